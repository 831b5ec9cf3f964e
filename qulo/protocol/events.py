"""What a link tells whoever drives it, beside runs and gaps: one small class per thing that can happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from qulo.errors import QuloError


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The session is up. `publish` is the PUB's port (0: beside the ipc path).

    `lost`: by topic, messages that an earlier hub had been given and never acknowledged; their fate is unknown.
    """

    publish: int
    token: bytes
    resumed: bool
    lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Prefix:
    """SUB shall subscribe to (or, with `add` False, unsubscribe from) this prefix."""

    prefix: bytes
    add: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The subscription, group membership or responder is confirmed."""

    sid: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """It is refused for good."""

    sid: int
    error: QuloError


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The hub did not take what was published on this topic."""

    topic: str
    error: QuloError


@dataclass(frozen=True, slots=True)
class NewKey:
    """The hub will have this public key (Z85) soon; it was told over a session that the present one protects."""

    key: bytes


# These come once per message or run of a busy program; a NamedTuple costs a third of a frozen dataclass.
class Work(NamedTuple):
    """Messages for a group member."""

    sid: int
    topic: str
    kind: int
    bodies: list[bytes]


class Call(NamedTuple):
    """A request for a responder; answer it with `reply`."""

    rid: int
    sid: int
    topic: str
    ttl: int
    kind: int
    body: bytes


class Answer(NamedTuple):
    """An answer, or with a code an error, to one of our requests."""

    rid: int
    code: str
    kind: int
    body: bytes


class Stored(NamedTuple):
    """Puts `rid` to `rid + amount - 1` are on disk; their numbers follow each other, or are all 0: not known."""

    rid: int
    amount: int
    stream: str
    seq: int
    duplicate: bool
    at: str


class Unstored(NamedTuple):
    """Puts `rid` to `rid + amount - 1` are not stored."""

    rid: int
    amount: int
    code: str
    text: str


class Deliver(NamedTuple):
    """Messages of a stream, with numbers from `seq` on, for a consumer. `tries`: 1 the first time."""

    sid: int
    seq: int
    tries: int
    redelivered: bool
    time: int
    topic: str
    kind: int
    bodies: list[bytes]


class Acked(NamedTuple):
    """The consumer's records up to this one, which settled something, have taken effect and are on disk."""

    sid: int
    record: int


class Expired(NamedTuple):
    """The consumer's leases of these numbers (first, last, first, last, …) have ended; of all, when there are none."""

    sid: int
    spans: list[int]


@dataclass(frozen=True, slots=True)
class Asked:
    """How many responders a request for many went to."""

    rid: int
    responders: int


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The hub does not know (or want) this session: close the sockets and begin anew."""

    error: QuloError


@dataclass(frozen=True, slots=True)
class Pulsed:
    """The hub is alive: it answered the heartbeat that was sent at `time` (µs, our clock)."""

    time: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The hub has more of what was sent: there may be room again."""


Event = (
    Welcomed
    | Prefix
    | Ready
    | Rejected
    | Forbidden
    | NewKey
    | Work
    | Call
    | Answer
    | Asked
    | Stored
    | Unstored
    | Deliver
    | Acked
    | Expired
    | Dismissed
    | Pulsed
    | Acknowledged
)
