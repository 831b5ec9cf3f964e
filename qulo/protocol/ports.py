"""What the pure core needs from whoever drives it, and what it tells: limits, upstream, log-worthy events.

The protocols stand here, beside their user; `net` and `relay` implement them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from qulo.errors import QuloError
from qulo.protocol.session import Session


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds a hub keeps; bytes, frames and seconds. The defaults are those of the configuration."""

    max_message: int = 1024 * 1024
    high_water: int = 1000
    link_buffer: int = 4 * 1024 * 1024
    replay_window: int = 64 * 1024 * 1024
    max_subscriptions: int = 1000
    max_pending: int = 10_000
    max_sessions: int = 1000  # of one principal
    max_rate: int = 0  # messages per second that a peer may publish; 0: any number
    heartbeat: float = 2.0
    session_timeout: float = 30.0
    slow_after: float = 5.0


@dataclass(frozen=True, slots=True)
class Note:
    """Something an operator may want to read: the driver writes it to the log at `level`."""

    level: str  # "debug" | "info" | "warning" | "error"
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision worth keeping for ever: the driver appends it to the audit log. Never a body, never a secret."""

    who: str
    address: str
    verb: str
    on: str
    allowed: bool
    why: str
    untold: int = 0
    """Denials of the same session since the last line, which were too many to write."""


class Request(NamedTuple):
    """What is asked: `ttl` in ms is what is left of the asker's patience; `many` asks every responder."""

    topic: str
    ttl: int
    many: bool
    kind: int
    body: bytes


class Put(NamedTuple):
    """One PUT: consecutive messages on one topic."""

    rid: int
    topic: str
    kind: int
    extra: dict[str, Any] | None
    bodies: list[bytes]


class Upstream(Protocol):
    """The way from an agent's hub to its master, as the hub sees it. `relay.Relay` is the one implementation."""

    @property
    def connected(self) -> bool:
        """Is there a session with the master right now?"""

    @property
    def idle(self) -> bool:
        """Are the puts of local programs answered?"""

    @property
    def spooled(self) -> int:
        """Messages in the agent's spool, for the master."""

    def publish(self, topic: str, kind: int, bodies: list[bytes]) -> QuloError | None:
        """Forward a run; never blocks, overflow becomes a Gap up there. Returns what the master said to an earlier
        one on the topic, if it refused that.
        """

    def want(self, pattern: str) -> bool:
        """Subscribe upstream; True if that is confirmed already or cannot be now, else `Hub.upstream_ready`."""

    def unwant(self, pattern: str) -> None:
        """Take one `want` back."""

    def join(self, session: Session, sid: int, pattern: str, group: str) -> None:
        """Make a local group member known to the master."""

    def respond(self, session: Session, sid: int, pattern: str) -> None:
        """Make a local responder known to the master."""

    def consume(self, session: Session, sid: int, what: list[Any]) -> None:
        """Make a local consumer known to the master; `what` are the fields of CONSUME behind the sid."""

    def settle(self, session: Session, record: list[Any]) -> None:
        """Pass on what a local consumer says of its messages."""

    def put(self, session: Session, put: Put, now: float) -> None:
        """To the master with it, or into the spool. Raises ProtocolError."""

    def leave(self, session: Session, sid: int) -> None:
        """Take `join`, `respond` or `consume` back."""

    def request(self, session: Session, rid: int, request: Request) -> None:
        """Ask the master; the answer comes through `Session.answer`."""

    def answer(self, rid: int, code: str, kind: int, body: bytes) -> None:
        """Answer a request that came from the master."""

    def lost(self, pattern: str, reason: str) -> None:
        """Tell the master's subscribers of a gap below."""


SystemHandler = Callable[[Session, dict[str, Any]], Any]
"""Answers a request on one of the system's topics: who asks, and the argument. Raises QuloError, or ValueError,
TypeError, KeyError, ArithmeticError or RecursionError for a bad argument. The asker has been authorised."""

Answering = Callable[[Session, dict[str, Any], Callable[[Any], None], float], None]
"""The same for what takes its time: who asks, the argument, what to call with the answer or a QuloError, now."""


@dataclass(slots=True)
class Counters:
    """What a hub counts since it started."""

    messages: int = 0
    runs: int = 0
    frames_in: int = 0
    bad_frames: int = 0
    ignored: int = 0  # frames of connections that sent too many bad ones
    requests: int = 0
    no_responders: int = 0
    repairs: int = 0
    gaps: int = 0
    dropped: int = 0
