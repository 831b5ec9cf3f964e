"""What is measured: every case, its message counts and its targets, as a literal table.

A count is chosen so that one measurement takes about 2 to 4 s on two cores, except where its reason says
otherwise; rates are compared, not durations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Side = Literal["qulo", "nats"]
Style = Literal["callback", "iterator"]

# The size the targets are stated for; small enough that the cost per message shows, not that of copying.
BODY = b"x" * 100

# nats-server ends a subscriber that is more than 64 MiB behind. A delivery is 125 bytes on the wire at most,
# so with this many messages the subscriber stays below that however slow it is, and nothing is lost.
_NATS_STREAM = 500_000

_QUICK_DIVISOR = 20  # --quick shows that everything works; its figures are mostly start-up effects


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio qulo/NATS, or on qulo's own value where NATS has nothing to compare."""

    bound: float
    at_least: bool
    unit: str = "x"

    @property
    def is_ratio(self) -> bool:
        """Is it the ratio that is bounded?"""
        return self.unit == "x"

    def met(self, figure: float) -> bool:
        """Does `figure` (a ratio or a value, see `is_ratio`) keep the bound?"""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}".replace(" x", "x")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: which figure of its case's outcome it shows, and how."""

    figure: str
    what: str
    unit: str
    target: Target | None = None
    scale: float = 1.0  # figures are in base units; the table shows figure * scale


@dataclass(frozen=True, slots=True)
class FanOut:
    """One publisher sends to `topics` topics in turn; each of `subscribers` must count every message.

    With `secure`, qulo has CURVE and NATS TLS; and qulo is measured without it just before, for comparison.
    """

    counts: Mapping[Side, int]
    topics: int = 1
    subscribers: int = 1
    style: Style = "callback"
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Requests:
    """One requester keeps `in_flight` requests open to one responder that echoes the body."""

    counts: Mapping[Side, int]
    in_flight: int = 1


@dataclass(frozen=True, slots=True)
class Puts:
    """One producer keeps `in_flight` messages on their way into a stream.

    qulo acknowledges after fsync; NATS does so with `fsync` (sync_interval: always), else as it comes.
    """

    counts: Mapping[Side, int]
    in_flight: int
    fsync: bool


@dataclass(frozen=True, slots=True)
class Consume:
    """One consumer takes and acknowledges what a stream has: all is there before it starts.

    With `push` NATS sends without being asked, which is its fastest way and the one it advises against.
    """

    counts: Mapping[Side, int]
    push: bool = False


@dataclass(frozen=True, slots=True)
class IdleAgent:
    """A qagent with a master and nothing to do, watched for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Startup:
    """How long `qulo --version` takes, the median of `runs`."""

    runs: int


@dataclass(frozen=True, slots=True)
class Flood:
    """A quarter of the hub's maximum for `seconds`, without and then with one accepted peer that floods it.

    The maximum is what `counts` messages at full speed reach just before, on the same hub, with CURVE.
    """

    counts: Mapping[Side, int]
    seconds: float
    share: float = 0.25


@dataclass(frozen=True, slots=True)
class Return:
    """So many enrolled links in a few processes, whose hub restarts."""

    links: int
    processes: int


Work = FanOut | Requests | Puts | Consume | IdleAgent | Startup | Flood | Return


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, made once per repeat for each side that it has."""

    name: str
    work: Work
    rows: tuple[Row, ...]

    @property
    def sides(self) -> tuple[Side, ...]:
        """The systems measured, in the order they take turns."""
        return (
            tuple(self.work.counts) if isinstance(self.work, FanOut | Requests | Puts | Consume | Flood) else ("qulo",)
        )


def _counts(qulo: int, nats: int | None = None) -> Mapping[Side, int]:
    both: dict[Side, int] = {"qulo": qulo} if nats is None else {"qulo": qulo, "nats": nats}
    return MappingProxyType(both)


def _rate(what: str, unit: str, at_least: float | None = None) -> Row:
    target = None if at_least is None else Target(at_least, at_least=True)
    return Row("rate", what, f"k {unit}", target, scale=1e-3)


CASES: tuple[Case, ...] = (
    Case(
        "one-topic",
        FanOut(_counts(3_000_000, _NATS_STREAM)),
        (_rate("one topic, 1 subscriber", "msg/s", at_least=3),),
    ),
    Case(
        "one-topic-curve",
        FanOut(_counts(3_000_000, _NATS_STREAM), secure=True),
        (
            _rate("one topic, 1 subscriber, CURVE beside TLS", "msg/s", at_least=2.5),
            Row("of_plain", "the same, of what it is without CURVE", "%", Target(60, at_least=True, unit="%")),
        ),
    ),
    Case(
        "one-topic-iterator",
        # nats-py's iterator makes a task per message and is several times slower than its callbacks.
        FanOut(_counts(2_000_000, 150_000), style="iterator"),
        (_rate("one topic, 1 subscriber, async for", "msg/s"),),
    ),
    Case(
        "fifty-topics",
        FanOut(_counts(1_000_000, _NATS_STREAM), topics=50),
        (_rate("50 topics in turn, 1 subscriber", "msg/s", at_least=1.2),),
    ),
    Case(
        "ten-subscribers",
        FanOut(_counts(500_000, 100_000), subscribers=10),
        (_rate("one topic, 10 subscribers, all deliveries", "msg/s", at_least=3),),
    ),
    Case(
        "request",
        Requests(_counts(8_000, 8_000)),
        (
            Row("p50_us", "request/reply one by one, p50", "µs", Target(1, at_least=False)),
            Row("p99_us", "request/reply one by one, p99", "µs"),
        ),
    ),
    Case(
        "request-100",
        Requests(_counts(200_000, 100_000), in_flight=100),
        (_rate("request/reply, 100 in flight", "req/s", at_least=1.3),),
    ),
    Case(
        "request-1000",
        Requests(_counts(300_000, 100_000), in_flight=1_000),
        (_rate("request/reply, 1,000 in flight", "req/s"),),
    ),
    Case(
        "puts-fsync",
        Puts(_counts(500_000, 20_000), in_flight=256, fsync=True),
        (_rate("puts, fsync before each ack, 256 in flight", "msg/s", at_least=20),),
    ),
    Case(
        "puts",
        Puts(_counts(500_000, 200_000), in_flight=256, fsync=False),
        (_rate("the same, beside JetStream as it comes", "msg/s", at_least=2),),
    ),
    Case(
        "put",
        Puts(_counts(6_000, 6_000), in_flight=1, fsync=True),
        (_rate("puts one by one, fsync before each ack", "msg/s", at_least=1),),
    ),
    Case(
        "consume",
        Consume(_counts(500_000, 100_000)),
        (_rate("consume and ack, NATS pulling", "msg/s", at_least=2.5),),
    ),
    Case(
        "consume-push",
        Consume(_counts(500_000, 300_000), push=True),
        (_rate("consume and ack, NATS pushing", "msg/s"),),
    ),
    Case(
        "idle-agent",
        IdleAgent(10.0),  # the kernel counts CPU in ticks of 10 ms: 10 s tells 0.1 % of a core apart
        (
            Row("rss_mb", "idle qagent, resident memory", "MB", Target(35, at_least=False, unit="MB")),
            Row("executor_mb", "its executor, resident memory", "MB"),
            Row("cpu_percent", "idle qagent, share of one core", "%", Target(0.5, at_least=False, unit="%")),
        ),
    ),
    Case(
        "flood",
        Flood(_counts(3_000_000), seconds=10.0),
        (
            # The publisher is paced by a clock: less than all of it means that something was held up.
            Row("rate", "a quarter of the maximum, while one peer floods", "k msg/s", scale=1e-3),
            Row("of_calm", "the same, of what it is without the flood", "%", Target(99, at_least=True, unit="%")),
            Row("p99_ms", "its p99 latency", "ms"),
            Row("p99_times", "the same, times what it is without", "times", Target(2, at_least=False, unit="times")),
            Row("flood", "frames that the flooder could hand to its socket", "k/s", scale=1e-3),
        ),
    ),
    Case(
        "return",
        Return(links=1_000, processes=4),
        (
            Row("seconds", "1,000 links back, from the end of the old hub", "s", Target(5, at_least=False, unit="s")),
            Row("after_ready", "the same, from when the new one is ready", "s"),
        ),
    ),
    Case(
        "version",
        Startup(5),
        (Row("seconds", "qulo --version", "s", Target(0.1, at_least=False, unit="s")),),
    ),
)


def quick(work: Work) -> Work:
    """The same work, small enough to take a moment."""
    match work:
        case FanOut():
            return FanOut(_fewer(work.counts), work.topics, work.subscribers, work.style, work.secure)
        case Requests():
            return Requests(_fewer(work.counts), work.in_flight)
        case Puts():
            return Puts(_fewer(work.counts), work.in_flight, work.fsync)
        case Consume():
            return Consume(_fewer(work.counts), work.push)
        case IdleAgent():
            return IdleAgent(work.seconds / _QUICK_DIVISOR)
        case Startup():
            return Startup(1)
        case Flood():
            return Flood(_fewer(work.counts), work.seconds / 5)
        case Return():
            return Return(work.links // _QUICK_DIVISOR, 2)


def _fewer(counts: Mapping[Side, int]) -> Mapping[Side, int]:
    return MappingProxyType({side: count // _QUICK_DIVISOR for side, count in counts.items()})
