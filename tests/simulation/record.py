"""What happened in a world, as its programs saw it: what the checks read. Decides nothing.

`moment` is the clock's count: what comes first has the lower one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qulo.protocol.tracker import Gap, Item, Tracker

if TYPE_CHECKING:
    from tests.simulation.programs import Program


@dataclass(slots=True, eq=False)
class Message:
    """One published message, or one that was put and is published by its hub when it is stored."""

    program: Program
    topic: str
    number: int
    moment: int
    put: bool = False
    certain: bool = True  # False: a hub or its program died, or dropped the session, before it was passed on
    acked: int | None = None  # the moment at which the program knew that its hub has it
    body: str = ""
    """What tells it from all others."""

    def __post_init__(self) -> None:
        self.body = f"{self.program.name}|{self.topic}|{self.number}"


@dataclass(slots=True, eq=False)
class Subscribed:
    """One subscription and what it got."""

    program: Program
    tracker: Tracker
    ready: int | None = None  # the moment at which it was confirmed
    closed: bool = False
    items: list[tuple[int, Item]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The messages, in order."""
        return [body.decode() for _, item in self.items if not isinstance(item, Gap) for body in item[2]]

    @property
    def gaps(self) -> list[tuple[int, Gap]]:
        """The gaps, each with the moment at which it was reported."""
        return [(moment, item) for moment, item in self.items if isinstance(item, Gap)]


@dataclass(slots=True, eq=False)
class Asked:
    """One request; it ends with answers or an error, once."""

    program: Program
    rid: int
    many: bool
    moment: int
    expected: int | None = None
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    end: str | None = None  # "" (all answers there are), or the code of an error


@dataclass(slots=True, eq=False)
class Put:
    """One put, from the call to what it returned or raised."""

    program: Program
    message: Message
    id: str | None
    delay: float
    ttl: float
    require: bool
    moment: int
    time: float
    end: str | None = None  # "" stored, else the code of the error
    ended: int = 0  # the moment of that
    late: str | None = None  # what came after that
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    at: str = ""

    @property
    def body(self) -> str:
        """What is put: with an id, the same again."""
        return self.message.body


@dataclass(slots=True, eq=False)
class Delivery:
    """One message of a stream, handed out to one consumer."""

    program: Program
    group: str
    stream: str
    seq: int
    body: str
    redelivered: bool
    tries: int
    moment: int
    time: float
    sid: int  # of the consumer
    settled: str = ""  # ack, nak, reject
    settled_at: int = 0  # the moment of that
    record: int = 0  # of the link's records, the one that settled it
    confirmed: int | None = None  # the moment at which the hub said that this is on disk
