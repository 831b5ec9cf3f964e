"""One peer as its hub sees it, from HELLO to oblivion.

A session outlives connections: it ends with BYE, or when nothing was heard for `session_timeout`. What it holds
is bounded by its channel's limit and the hub's limits per peer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from qulo.errors import Overloaded
from qulo.protocol import topics
from qulo.protocol.bucket import Bucket
from qulo.protocol.channel import Channel
from qulo.protocol.interest import Interest
from qulo.protocol.offenders import Offenders
from qulo.protocol.permissions import Rights
from qulo.protocol.wire import ANSWER, BODY_OVERHEAD, RECORD_OVERHEAD, Record

# An agent's share of the limits per peer: the programs of one host, and of the hosts below it.
AGENT_WEIGHT = 100


class Life(Enum):
    """What a hub knows of a peer's health."""

    UP = "up"
    SUSPECT = "suspect"  # silent for some heartbeats, or its connection is gone
    DOWN = "down"  # ended; only remembered for `qulolist`


LIFE: dict[tuple[Life, str], Life] = {
    (Life.UP, "heard"): Life.UP,
    (Life.UP, "silent"): Life.SUSPECT,
    (Life.UP, "bye"): Life.DOWN,
    (Life.SUSPECT, "heard"): Life.UP,
    (Life.SUSPECT, "silent"): Life.SUSPECT,
    (Life.SUSPECT, "bye"): Life.DOWN,
    (Life.SUSPECT, "expired"): Life.DOWN,
}


@dataclass(slots=True, eq=False)
class Listener:
    """One ROUTER + PUB pair of a hub. `local` ones serve programs of this host only."""

    number: int
    local: bool
    publish: int  # the PUB's TCP port, 0 on ipc: the PUB is beside the ROUTER
    routes: dict[bytes, Session] = field(default_factory=dict)
    offenders: Offenders = field(default_factory=Offenders)
    strangers: Offenders = field(default_factory=Offenders)  # SUBs, by user for they have no route here


@dataclass(slots=True, eq=False)
class Subscription:
    """One pattern of one session, and how it is served."""

    session: Session
    sid: int
    pattern: str
    interest: Interest
    since: int  # the hub's number when it began
    prefix: bytes | None = None  # granted on PUB; installed where `path` says so
    path: str = ""  # "" until served, then "pub" or "router"
    base: int = 0  # interest.frames when PUB began to serve it
    confirmed: int = -1  # the count that the subscriber has agreed to


@dataclass(slots=True, eq=False)
class Repair:
    """Runs on their way to one subscription for the second time."""

    subscription: Subscription
    verified: int
    newer: dict[str, int]
    frames: deque[Any] | None = None  # what is still to be sent; None: it has not been worked out yet
    at: int = 0
    count: int = 0
    lost: tuple[int, int] | None = None  # first and last number of what is not in the window any more


@dataclass(slots=True, eq=False)
class Session:
    """Everything a hub holds for one peer."""

    instance: bytes
    token: bytes
    principal: str
    name: str
    kind: str  # "client" or "agent"
    listener: Listener
    route: bytes | None  # None while not connected
    channel: Channel
    rights: Rights
    heard: float
    since: float
    user: str = ""  # principal#connection of its DEALER
    address: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    life: Life = Life.UP
    claimed: bytes | None = None  # the token that its HELLO named, of a session that was gone
    tied: str | None = None  # the connection of its SUB
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    members: dict[int, Any] = field(default_factory=dict)  # group memberships
    responders: dict[int, Any] = field(default_factory=dict)
    consumers: dict[int, Any] = field(default_factory=dict)  # of streams; None while the group is being made
    granted: dict[bytes, dict[Subscription, None]] = field(default_factory=dict)  # by prefix, for its SUB
    repairs: OrderedDict[Subscription, Repair] = field(default_factory=OrderedDict)  # taken off in front
    parked: deque[tuple[int, list[Record], int]] = field(default_factory=deque)
    parked_size: int = 0
    over_rate: bool = False  # was it named for that in the log?
    bucket: Bucket | None = None  # of messages published; None: there is no max_rate, or it published nothing yet
    reached: int = 0  # PUB frames the peer says it has taken
    closed_frames: int = 0  # PUB frames owed by subscriptions that have ended
    crowds: dict[str, int] = field(default_factory=dict)  # registrations that are looked at together, see `crowd_of`
    pulse: tuple[int, dict[int, int]] = (0, {})  # the last pulse on PUB: number, sid → count
    lag_since: float | None = None
    slow: bool = False
    dropped: int = 0  # runs and work that did not fit
    forwarded: dict[str, None] = field(default_factory=dict)  # an agent's: topics that came through it
    own_ping: int | None = None  # an agent's: the responder to pings that is itself; others are of hosts below it
    key_frame: int = 0  # the frame that tells it the hub's next key; 0: it was not told
    publishes: set[str] = field(default_factory=set)  # topics it may publish on, remembered
    denied: int = 0  # decisions against it
    denial_told: float = 0.0  # when one was last written to the audit log
    denials_untold: int = 0
    bad_answered: float = 0.0
    bad: int = 0  # frames and records that were not the protocol
    calls: int = 0  # requests under way
    rtt: int = 0  # µs

    @property
    def key(self) -> tuple[str, bytes]:
        """What no two sessions have in common. An instance alone is no secret: every run carries one."""
        return self.principal, self.instance

    @property
    def weight(self) -> int:
        """How many peers it counts as: an agent speaks for all programs of its host."""
        return AGENT_WEIGHT if self.kind == "agent" else 1

    def enter(self, crowd: str, bound: int, instead: str | None) -> None:
        """One more registration, in place of one in the crowd `instead`. Raises Overloaded beyond the bound."""
        if not crowd:
            return
        count = self.crowds.get(crowd, 0)
        if count >= bound + (crowd == instead):
            what = "patterns with wildcards" if crowd == ">" else f"members and responders on {crowd}"
            raise Overloaded(f"this peer has {count} {what}; the limit is max_subscriptions, for an agent too")
        self.crowds[crowd] = count + 1

    def quit(self, crowd: str) -> None:
        """There is one less."""
        if crowd:
            self.crowds[crowd] -= 1
            if not self.crowds[crowd]:
                del self.crowds[crowd]

    @property
    def connected(self) -> bool:
        """Can something be sent to it now?"""
        return self.route is not None

    @property
    def owed(self) -> int:
        """PUB frames sent so far that its subscriptions match."""
        return self.closed_frames + sum(
            s.interest.frames - s.base for s in self.subscriptions.values() if s.path == "pub"
        )

    @property
    def lag(self) -> int:
        """PUB frames between what was sent and what it has taken."""
        return max(0, self.owed - self.reached)

    def step(self, event: str) -> bool:
        """Move along LIFE; True if that changed anything. An event not in the table is a bug."""
        before, self.life = self.life, LIFE[self.life, event]
        return before is not self.life

    def answer(self, rid: int, code: str, kind: int, body: bytes) -> None:
        """The answer to one of its requests."""
        self.calls -= 1
        channel = self.channel
        if channel.bytes > 2 * channel.limit and body:
            # It asks and does not read: its requests are bounded by number, their answers have to be by size.
            code, body = Overloaded.code, b"the answer was dropped: too many others wait to be read"
        size = len(body) + 4 * len(code) + BODY_OVERHEAD + RECORD_OVERHEAD
        channel.add([ANSWER, rid, code, kind, body], size)


def crowd_of(pattern: str, shared: bool) -> str:
    """Which registrations of a session are looked at together, for one message: these are bounded for an agent as for
    any other peer, while what only makes tables longer counts by its weight.

    All patterns with wildcards are one crowd, `>`, as one topic can match all of them; members of groups and
    responders (`shared`) on one topic are another. Subscriptions to a topic are in none: they are one interest.
    """
    if topics.is_wide(pattern):
        return ">"
    return pattern if shared else ""
