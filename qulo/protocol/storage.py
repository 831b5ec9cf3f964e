"""The store of durable streams as its user sees it: what can be put in, what comes out, and what is promised.

The streams core decides: who gets which message, when a lease ends, what is dead. A store only keeps. It is given a
batch of operations and answers with one result for each, in order; a batch is one transaction, and on disk when
`commit` returns. `qulo.store.sqlite` is the store of the daemons, `qulo.store.memory` the verified fake; one suite
holds both.

    stored, acked, _ = store.commit([Append("ORDERS", "orders.new", 1, b"...", now), Ack("ORDERS", "billing",
                                    (Span(1, 7),)), Trim(now)])

A result may be an error (`StoreFull`, `NoStream`, `UsageError`): it is that operation's alone, which changed nothing;
the rest of the batch is done. What is *raised* is `StoreFailed`: the outcome of the whole batch is unknown, nothing
may be acknowledged any more, and the store refuses everything from then on.

Times are milliseconds since 1970 and come from the caller; sequence numbers and spool numbers count from 1. The
caller has checked what came from elsewhere: topics are valid, text can be encoded, numbers are below 2**63. A mistake
of its own ends the store like a broken disk.

Pure: no I/O, no clock. Nothing here decides anything about messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from qulo.errors import QuloError, UsageError
from qulo.protocol.spans import Span
from qulo.protocol.topics import check_pattern

Keep: TypeAlias = Literal["work", "limits"]

# A store numbers streams and messages in one 64-bit key: 15 bits and 48. At 100,000 messages a second for 89 years.
MAX_SEQ = 2**48 - 1
MAX_STREAMS = 2**15 - 1
"""Made over a store's life; a number is used again only when all its messages are gone."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a stream stores and for how long; a limit of 0 is none."""

    name: str
    """`[a-z0-9A-Z._-]{1,64}`."""
    topics: tuple[str, ...]
    """Patterns. That no two streams share a topic is the core's to see to: a put is one Append."""
    keep: Keep = "limits"
    """`work`: a message goes when every group has acked it (never while there is no group). `limits`: only the limits
    below, which hold for `work` too, make it go."""
    max_age_ms: int = 0
    max_bytes: int = 0
    """Of topics and bodies, see `size`."""
    max_msgs: int = 0
    per_topic: int = 0
    """How many messages each topic keeps; 1 is "last value". Whether it is 0 cannot be changed later."""
    dedupe_ms: int = 0
    """How long an `id` is remembered, by the times of the messages."""
    max_tries: int = 0
    """For the core; the store only keeps it."""
    created_ms: int = 0


def size(topic: str, body: bytes) -> int:
    """What a message counts in `max_bytes` and in every count of bytes; on disk it is some 30 bytes more."""
    return len(topic.encode()) + len(body)


# -- operations: what goes into commit -------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Which put of which agent this is. The highest number of each agent is kept for ever, in the same transaction."""

    agent: str
    number: int


class StreamAdd(NamedTuple):
    """Make a stream; its numbers begin at 1. → None; UsageError if there is one of that name or it is not valid."""

    stream: Stream


class StreamChange(NamedTuple):
    """Give a stream a new definition; what does not fit any more goes with the next Trims. → None, NoStream,
    UsageError.
    """

    stream: Stream


class StreamRemove(NamedTuple):
    """Forget a stream, its groups and its ids; its messages go with the next Trims, its dead letters stay.
    → None, NoStream.
    """

    name: str


class Purge(NamedTuple):
    """Remove messages up to and with `upto`, at most `limit`, oldest first; acks stay as they are. → Removed,
    NoStream.
    """

    stream: str
    upto: int
    limit: int = 1000


class Append(NamedTuple):
    """Store a message. → Appended; StoreFull at the quota or on a full disk, NoStream.

    A duplicate stores nothing: an `origin` not above the agent's mark (the number is then 0: it is not known any more),
    or an `id` that the stream has seen within its window (the number is the first one's). Not before `visible_ms` it
    may be delivered, and from `expires_ms` on it is gone; 0 is "at once" and "never".
    """

    stream: str
    topic: str
    kind: int
    body: bytes
    time_ms: int
    id: str | None = None
    visible_ms: int = 0
    expires_ms: int = 0
    origin: Origin | None = None


class GroupAdd(NamedTuple):
    """Make a group that has all messages above `floor` before it. → None, NoStream; UsageError if it is there."""

    stream: str
    group: str
    floor: int = 0
    created_ms: int = 0


class GroupRemove(NamedTuple):
    """Forget a group. Its dead letters stay. → None, NoStream."""

    stream: str
    group: str


class Ack(NamedTuple):
    """These numbers are done for this group. → the new floor, NoStream.

    Numbers that do not exist (trimmed, purged, expired: the holes a `read` shows) are acked like any other; else the
    floor stays below them. One row is written for the group, one more for each span above the floor that changed.
    """

    stream: str
    group: str
    spans: Sequence[Span]


class Retry(NamedTuple):
    """This message was tried and is to be tried again, not before a time. → None, NoStream. Acking forgets it."""

    stream: str
    group: str
    seq: int
    tries: int
    not_before_ms: int = 0


class Bury(NamedTuple):
    """Move a message to the dead letters, for this group: copied, then acked. → the letter's number, or 0 if the
    message is gone or acked already; NoStream; StoreFull only when the reserve is used up too.
    """

    stream: str
    group: str
    seq: int
    reason: str
    tries: int
    time_ms: int


class Requeue(NamedTuple):
    """Give a dead letter back: as a new message at the end of its stream, acked for every other group, so that only the
    group that buried it gets it; one of the spool goes back there under the new `number`. The letter is gone then. Its
    `id` goes with it (and is no duplicate of itself), its delay and its expiry do not.
    → Appended, or None if there is no such letter; NoStream (the letter stays), StoreFull (likewise).

    At the end, not in its old place: floors never move back, and in a log the copy is a message of today.
    """

    letter: int
    time_ms: int
    number: int = 0


class DeadPurge(NamedTuple):
    """Forget dead letters, at most `limit`, from `first` to `last`. → Removed."""

    first: int
    last: int
    limit: int = 1000


class Trim(NamedTuple):
    """Remove what is not to be kept, at most `limit` messages in all, stream by stream: removed streams, expired
    messages, then `per_topic`, work that is done, `max_age_ms`, `max_msgs`, `max_bytes`; and ids out of their window.
    → Removed; if it says `more`, put another Trim into the next batch.

    `max_age_ms` goes from the oldest to the first that is young enough.
    """

    now_ms: int
    limit: int = 1000


class Numbers(NamedTuple):
    """Take `amount` spool numbers that were never given out. → the first.

    An agent numbers its puts online too: it takes a block and never uses what it has not taken.
    """

    amount: int


class Spool(NamedTuple):
    """Keep a put until the master has it; the number is one of the caller's block and above all ever spooled.
    → None; StoreFull, UsageError for a number that is not.
    """

    number: int
    topic: str
    kind: int
    body: bytes
    time_ms: int
    id: str | None = None
    visible_ms: int = 0
    expires_ms: int = 0


class SpoolRelease(NamedTuple):
    """Forget the spool's puts up to and with a number: the master has them. → how many."""

    upto: int


class SpoolBury(NamedTuple):
    """Move a put that the master refused to the dead letters, whose stream and group are then "". → as Bury."""

    number: int
    reason: str
    time_ms: int


Operation: TypeAlias = (
    StreamAdd
    | StreamChange
    | StreamRemove
    | Purge
    | Append
    | GroupAdd
    | GroupRemove
    | Ack
    | Retry
    | Bury
    | Requeue
    | DeadPurge
    | Trim
    | Numbers
    | Spool
    | SpoolRelease
    | SpoolBury
)


# -- results: what comes out of commit -------------------------------------------------------------------------------


class Appended(NamedTuple):
    """The message's number in its stream; a duplicate stored nothing."""

    seq: int
    duplicate: bool = False


class Removed(NamedTuple):
    """How many messages or letters went, and whether the limit may have left more."""

    gone: int
    more: bool


Result: TypeAlias = Appended | Removed | int | QuloError | None


# -- what reading returns --------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A message as it was appended."""

    seq: int
    topic: str
    kind: int
    body: bytes
    time_ms: int
    id: str | None
    visible_ms: int
    expires_ms: int


class Delayed(NamedTuple):
    """A message that may not be delivered yet."""

    visible_ms: int
    seq: int


class Read(NamedTuple):
    """Part of a stream. Numbers up to `upto` that are in neither list do not exist, or have expired."""

    messages: list[Stored]
    delayed: list[Delayed]
    upto: int
    """Go on after this one."""


class StreamState(NamedTuple):
    """A stream and how full it is."""

    stream: Stream
    first: int
    """The oldest message's number; `last` + 1 when there is none."""
    last: int
    """The highest number ever given."""
    messages: int
    bytes: int


class TopicState(NamedTuple):
    """What a stream has on one topic."""

    topic: str
    messages: int
    bytes: int


class GroupState(NamedTuple):
    """How far a group is."""

    group: str
    floor: int
    """Everything up to here is acked."""
    acked: tuple[Span, ...]
    """Above the floor, ascending, neither touching nor overlapping."""
    retries: int
    """How many messages wait with tries."""
    created_ms: int


class Retried(NamedTuple):
    """A message that was tried."""

    seq: int
    tries: int
    not_before_ms: int


class DeadLetter(NamedTuple):
    """A message that a group, or for the spool the master, would not take."""

    number: int
    stream: str
    group: str
    seq: int
    topic: str
    size: int
    """Of the body."""
    reason: str
    tries: int
    dead_ms: int


class SpoolState(NamedTuple):
    """What waits in an agent's spool."""

    agent: str
    """Who this store is: random, made once. A restored backup gets another: its numbers may have been used since."""
    first: int
    """The oldest put's number, 0 when there is none."""
    messages: int
    bytes: int
    next_number: int
    """What `Numbers` would return."""


class Report(NamedTuple):
    """What `qulo doctor` asks a store; `problems` is empty when all is well."""

    problems: list[str]
    schema: int
    """The version of the tables."""
    engine: str
    """The library and its version."""
    used: int
    """Bytes in use, of `max_store`."""
    on_disk: int
    """Bytes of all files; what is not in use is used again, not given back."""
    max_store: int
    free: int
    """Bytes free on the disk."""
    reserve: int
    """Bytes kept back, 0 while released."""
    last: dict[str, int]
    """The highest number of each stream: to compare with what clients saw acknowledged."""


class Store(Protocol):
    """Keeps streams. One thread uses it, the one that made it; every call blocks."""

    def commit(self, operations: Sequence[Operation]) -> list[Result]:
        """Do all of it in one transaction; on disk when this returns, with one result for each operation.

        Raises StoreFailed: nothing is known of the whole batch, stop acknowledging and restart.
        """

    def streams(self) -> list[StreamState]:
        """All streams, by name. Cheap: counts are kept, not made."""

    def topics(self, stream: str, pattern: str = ">", after: str = "", limit: int = 1000) -> list[TopicState]:
        """The topics that have messages, ascending (by UTF-8), those behind `after`."""

    def read(self, stream: str, after: int, count: int, size: int, now_ms: int) -> Read:
        """What comes after a number: at most `count` messages, delayed ones included, and about `size` bytes, but one
        message at least.
        """

    def fetch(self, stream: str, seqs: Sequence[int]) -> list[Stored]:
        """These messages, delayed and expired ones too, ascending; those that are gone are left out."""

    def at(self, stream: str, time_ms: int) -> int:
        """The first number stored at a time or after, `last` + 1 if none. Found by halving: where the clock was set
        back, one of the places.
        """

    def last(self, stream: str, pattern: str, after: str = "", limit: int = 1000) -> list[Stored]:
        """The last message of each topic, as `topics` orders them."""

    def delayed(self, stream: str, now_ms: int, limit: int = 1000) -> list[Delayed]:
        """Those that may not be delivered yet, the next first."""

    def groups(self, stream: str) -> list[GroupState]:
        """All groups of a stream, by name."""

    def retries(self, stream: str, group: str, after: int = 0, limit: int = 1000) -> list[Retried]:
        """Messages with tries, by number."""

    def dead(self, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Dead letters, oldest first, without their bodies."""

    def dead_counts(self) -> dict[tuple[str, str], int]:
        """How many there are by stream and group."""

    def letter(self, number: int) -> tuple[DeadLetter, Stored] | None:
        """One of them with its message."""

    def marks(self) -> dict[str, int]:
        """The highest number stored of each agent's puts."""

    def spool(self, after: int, count: int, size: int) -> list[Spool]:
        """The spool's puts after a number, oldest first; bounded as `read`."""

    def spool_state(self) -> SpoolState:
        """What waits in the spool, and this store's name as an agent."""

    def check(self) -> Report:
        """Look at every page; takes minutes for a large store, and commits wait."""

    def backup(self, path: str, between: Callable[[], object] = ...) -> None:
        """Copy everything into a new file, in steps; `between` them the caller may commit. Raises FileError."""

    def close(self) -> None:
        """Leave the files whole and unlocked."""


_NAME = re.compile(r"[a-z0-9A-Z._-]{1,64}")

_KEEP = ("work", "limits")


def check_name(name: str, what: str) -> None:
    """Raise UsageError if a stream or group cannot be called that."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"the {what}'s name {name[:80]!r} is not 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")


def check_stream(stream: Stream, before: Stream | None = None) -> None:
    """Raise UsageError if a stream cannot be made like this, or cannot become this from what it was."""
    check_name(stream.name, "stream")
    if not stream.topics:
        raise UsageError(f"the stream {stream.name} has no topics")
    for pattern in stream.topics:
        check_pattern(pattern)
    if stream.keep not in _KEEP:
        raise UsageError(f"the stream {stream.name} keeps {stream.keep!r}; it can keep {' or '.join(_KEEP)}")
    for limit in ("max_age_ms", "max_bytes", "max_msgs", "per_topic", "dedupe_ms", "max_tries"):
        if getattr(stream, limit) < 0:
            raise UsageError(f"{limit} of the stream {stream.name} is below 0")
    if before and bool(before.per_topic) != bool(stream.per_topic):
        raise UsageError(f"whether {stream.name} keeps a number of messages per topic was settled when it was made")
