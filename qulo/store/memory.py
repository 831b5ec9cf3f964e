"""The verified fake: the same answers as the store on disk, made the plainest way, and gone with the process.

Where `sqlite` counts and indexes, this one looks at everything each time; that is what makes it a check of the other.
For tests and simulations, not for many messages.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from qulo.errors import NoStream, StoreFailed, StoreFull, UsageError
from qulo.protocol.spans import Span, Spans
from qulo.protocol.storage import (
    Ack,
    Append,
    Appended,
    Bury,
    DeadLetter,
    DeadPurge,
    Delayed,
    GroupAdd,
    GroupRemove,
    GroupState,
    Numbers,
    Operation,
    Purge,
    Read,
    Removed,
    Report,
    Requeue,
    Result,
    Retried,
    Retry,
    Spool,
    SpoolBury,
    SpoolRelease,
    SpoolState,
    Stored,
    Stream,
    StreamAdd,
    StreamChange,
    StreamRemove,
    StreamState,
    TopicState,
    Trim,
    check_name,
    check_stream,
    size,
)
from qulo.protocol.topics import matches


@dataclasses.dataclass(slots=True)
class _Group:
    name: str
    created: int
    spans: Spans
    tries: dict[int, Retried] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class _Stream:
    stream: Stream
    last: int = 0
    messages: dict[int, Stored] = dataclasses.field(default_factory=dict)  # ascending: seqs only grow
    groups: dict[str, _Group] = dataclasses.field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(size(each.topic, each.body) for each in self.messages.values())

    def acknowledged(self, group: _Group, span: Span) -> None:
        group.spans.add(span.first, min(span.last, self.last))
        for seq in [seq for seq in group.tries if seq in group.spans]:
            del group.tries[seq]


class MemoryStore:
    """Implements `protocol.storage.Store`."""

    def __init__(self, *, agent: str = "memory", max_store: int = 0) -> None:
        self.failure = ""
        """Set by a test: everything raises StoreFailed from then on."""
        self._agent = agent
        self._max_store = max_store
        self._streams: dict[str, _Stream] = {}
        self._marks: dict[str, int] = {}
        self._dead: dict[int, tuple[DeadLetter, Stored]] = {}
        self._letters = 0
        self._spool: dict[int, Spool] = {}
        self._next_number = 1
        self._spool_last = 0
        self._handlers: dict[type, Callable[[Any], Result]] = {
            StreamAdd: self._stream_add,
            StreamChange: self._stream_change,
            StreamRemove: self._stream_remove,
            Purge: self._purge,
            Append: self._append,
            GroupAdd: self._group_add,
            GroupRemove: self._group_remove,
            Ack: self._ack,
            Retry: self._retry,
            Bury: self._bury,
            Requeue: self._requeue,
            DeadPurge: self._dead_purge,
            Trim: self._trim,
            Numbers: self._numbers,
            Spool: self._spool_put,
            SpoolRelease: self._spool_release,
            SpoolBury: self._spool_bury,
        }

    def commit(self, operations: Sequence[Operation]) -> list[Result]:
        """One after the other; what a handler raises is that operation's answer."""
        self._refuse()
        return [self._one(operation) for operation in operations]

    def _one(self, operation: Operation) -> Result:
        try:
            return self._handlers[type(operation)](operation)
        except (NoStream, StoreFull, UsageError) as error:
            return error

    def _refuse(self) -> None:
        if self.failure:
            raise StoreFailed(self.failure)

    def _find(self, stream: str) -> _Stream:
        if stream not in self._streams:
            raise NoStream(f"there is no stream {stream}")
        return self._streams[stream]

    def _group(self, stream: str, group: str) -> tuple[_Stream, _Group]:
        book = self._find(stream)
        if group not in book.groups:
            raise NoStream(f"the stream {stream} has no group {group}")
        return book, book.groups[group]

    @property
    def _used(self) -> int:
        spooled = sum(size(each.topic, each.body) for each in self._spool.values())
        dead = sum(size(message.topic, message.body) for _letter, message in self._dead.values())
        return sum(book.bytes for book in self._streams.values()) + spooled + dead

    def _check_room(self, topic: str, body: bytes) -> None:
        if self._max_store and self._used + size(topic, body) > self._max_store:
            raise StoreFull

    # -- streams ----------------------------------------------------------------------------------------------------

    def _stream_add(self, op: StreamAdd) -> Result:
        if op.stream.name in self._streams:
            raise UsageError(f"there is a stream {op.stream.name}")
        check_stream(op.stream)
        self._streams[op.stream.name] = _Stream(op.stream)
        return None

    def _stream_change(self, op: StreamChange) -> Result:
        book = self._find(op.stream.name)
        check_stream(op.stream, book.stream)
        book.stream = op.stream
        return None

    def _stream_remove(self, op: StreamRemove) -> Result:
        self._find(op.name)
        del self._streams[op.name]
        return None

    def _purge(self, op: Purge) -> Result:
        book = self._find(op.stream)
        return self._remove(book, (seq for seq in book.messages if seq <= op.upto), op.limit)

    def _remove(self, book: _Stream, seqs: Iterable[int], limit: int) -> Removed:
        gone = list(seqs)[:limit]
        for seq in gone:
            del book.messages[seq]
        return Removed(len(gone), len(gone) == limit)

    def _append(self, op: Append) -> Result:
        book = self._find(op.stream)
        if op.origin and op.origin.number <= self._marks.get(op.origin.agent, 0):
            return Appended(0, True)
        seq, seen = book.seen.get(op.id or "", (0, 0))
        duplicate = bool(op.id is not None and seq and op.time_ms - seen < book.stream.dedupe_ms)
        if not duplicate:
            seq = self._keep(book, op)
        if op.origin:
            self._marks[op.origin.agent] = op.origin.number
        return Appended(seq, duplicate)

    def _keep(self, book: _Stream, op: Append) -> int:
        self._check_room(op.topic, op.body)
        book.last += 1
        book.messages[book.last] = Stored(
            book.last, op.topic, op.kind, op.body, op.time_ms, op.id, op.visible_ms, op.expires_ms
        )
        if op.id is not None and book.stream.dedupe_ms:
            book.seen[op.id] = (book.last, op.time_ms)
        return book.last

    # -- groups -----------------------------------------------------------------------------------------------------

    def _group_add(self, op: GroupAdd) -> Result:
        book = self._find(op.stream)
        if op.group in book.groups:
            raise UsageError(f"the stream {op.stream} has a group {op.group}")
        check_name(op.group, "group")
        book.groups[op.group] = _Group(op.group, op.created_ms, Spans(max(0, min(op.floor, book.last))))
        return None

    def _group_remove(self, op: GroupRemove) -> Result:
        book, _group = self._group(op.stream, op.group)
        del book.groups[op.group]
        return None

    def _ack(self, op: Ack) -> Result:
        book, group = self._group(op.stream, op.group)
        for span in op.spans:
            book.acknowledged(group, span)
        return group.spans.floor

    def _retry(self, op: Retry) -> Result:
        book, group = self._group(op.stream, op.group)
        if op.seq not in group.spans and op.seq <= book.last:
            group.tries[op.seq] = Retried(op.seq, op.tries, op.not_before_ms)
        return None

    # -- dead letters -----------------------------------------------------------------------------------------------

    def _bury(self, op: Bury) -> Result:
        book, group = self._group(op.stream, op.group)
        if op.seq in group.spans or op.seq > book.last:
            return 0
        message = book.messages.get(op.seq)
        book.acknowledged(group, Span(op.seq, op.seq))
        return self._to_the_dead(message, op) if message else 0

    def _to_the_dead(self, message: Stored, op: Bury) -> int:
        self._letters += 1
        letter = DeadLetter(
            self._letters,
            op.stream,
            op.group,
            op.seq,
            message.topic,
            len(message.body),
            op.reason,
            op.tries,
            op.time_ms,
        )
        self._dead[self._letters] = letter, message
        return self._letters

    def _requeue(self, op: Requeue) -> Result:
        if op.letter not in self._dead:
            return None
        letter, old = self._dead[op.letter]
        if letter.stream:
            book, group = self._group(letter.stream, letter.group)
            seq = self._keep(book, Append(letter.stream, old.topic, old.kind, old.body, op.time_ms, old.id))
            for other in book.groups.values():
                if other is not group:
                    book.acknowledged(other, Span(seq, seq))
        else:
            seq = op.number
            self._spool_put(Spool(seq, old.topic, old.kind, old.body, op.time_ms, old.id))
        del self._dead[op.letter]
        return Appended(seq)

    def _dead_purge(self, op: DeadPurge) -> Result:
        gone = [number for number in self._dead if op.first <= number <= op.last][: op.limit]
        for number in gone:
            del self._dead[number]
        return Removed(len(gone), len(gone) == op.limit)

    # -- trimming ---------------------------------------------------------------------------------------------------

    def _trim(self, op: Trim) -> Result:
        left = op.limit
        for _name, book in sorted(self._streams.items()):
            left -= self._remove(book, self._expired(book, op.now_ms), left).gone
        for _name, book in sorted(self._streams.items()):
            for kind in (self._crowded, self._done, self._aged, self._many, self._heavy):
                left -= self._remove(book, kind(book, op.now_ms), left).gone if left else 0
            window = book.stream.dedupe_ms
            book.seen = {id_: (seq, time) for id_, (seq, time) in book.seen.items() if time > op.now_ms - window}
        return Removed(op.limit - left, left == 0)

    @staticmethod
    def _expired(book: _Stream, now_ms: int) -> Iterator[int]:
        return (seq for seq, each in book.messages.items() if each.expires_ms and each.expires_ms <= now_ms)

    @staticmethod
    def _crowded(book: _Stream, now_ms: int) -> Iterator[int]:
        left = Counter(each.topic for each in book.messages.values())
        for seq, each in book.messages.items():
            if book.stream.per_topic and left[each.topic] > book.stream.per_topic:
                left[each.topic] -= 1
                yield seq

    @staticmethod
    def _done(book: _Stream, now_ms: int) -> Iterator[int]:
        if book.stream.keep == "work" and book.groups:
            groups = book.groups.values()
            yield from (seq for seq in book.messages if all(seq in group.spans for group in groups))

    @staticmethod
    def _aged(book: _Stream, now_ms: int) -> Iterator[int]:
        for seq, each in book.messages.items():
            if not book.stream.max_age_ms or each.time_ms > now_ms - book.stream.max_age_ms:
                return
            yield seq

    @staticmethod
    def _many(book: _Stream, now_ms: int) -> Iterator[int]:
        excess = max(0, len(book.messages) - book.stream.max_msgs) if book.stream.max_msgs else 0
        yield from list(book.messages)[:excess]

    @staticmethod
    def _heavy(book: _Stream, now_ms: int) -> Iterator[int]:
        excess = book.bytes - book.stream.max_bytes if book.stream.max_bytes else 0
        for seq, each in book.messages.items():
            if excess <= 0:
                return
            excess -= size(each.topic, each.body)
            yield seq

    # -- the spool --------------------------------------------------------------------------------------------------

    def _numbers(self, op: Numbers) -> Result:
        self._next_number += op.amount
        return self._next_number - op.amount

    def _spool_put(self, op: Spool) -> Result:
        if not self._spool_last < op.number < self._next_number:
            raise UsageError(f"{op.number} is not a number to be spooled now")
        self._check_room(op.topic, op.body)
        self._spool[op.number] = op
        self._spool_last = op.number
        return None

    def _spool_release(self, op: SpoolRelease) -> Result:
        gone = [number for number in self._spool if number <= op.upto]
        for number in gone:
            del self._spool[number]
        return len(gone)

    def _spool_bury(self, op: SpoolBury) -> Result:
        put = self._spool.pop(op.number, None)
        if put is None:
            return 0
        return self._to_the_dead(Stored(*put), Bury("", "", op.number, op.reason, 0, op.time_ms))

    # -- reading ----------------------------------------------------------------------------------------------------

    def streams(self) -> list[StreamState]:
        """All streams."""
        self._refuse()
        return [
            StreamState(
                book.stream, min(book.messages, default=book.last + 1), book.last, len(book.messages), book.bytes
            )
            for _name, book in sorted(self._streams.items())
        ]

    def topics(self, stream: str, pattern: str = ">", after: str = "", limit: int = 1000) -> list[TopicState]:
        """Topics that have messages."""
        self._refuse()
        found: dict[str, list[int]] = {}
        for each in self._find(stream).messages.values():
            if each.topic > after and matches(pattern, each.topic):
                found.setdefault(each.topic, []).append(size(each.topic, each.body))
        return [TopicState(topic, len(sizes), sum(sizes)) for topic, sizes in sorted(found.items())][:limit]

    def read(self, stream: str, after: int, count: int, size: int, now_ms: int) -> Read:
        """What comes after a number."""
        self._refuse()
        book = self._find(stream)
        result = Read([], [], after)
        looked = [each for each in book.messages.values() if each.seq > after][:count]
        for each in looked:
            if each.expires_ms and each.expires_ms <= now_ms:
                pass
            elif each.visible_ms > now_ms:
                result.delayed.append(Delayed(each.visible_ms, each.seq))
            else:
                size -= len(each.topic.encode()) + len(each.body)
                if size < 0 and result.messages:
                    return result
                result.messages.append(each)
            result = result._replace(upto=each.seq)
        return result if len(looked) == count else result._replace(upto=max(after, book.last))

    def fetch(self, stream: str, seqs: Sequence[int]) -> list[Stored]:
        """Single messages."""
        self._refuse()
        messages = self._find(stream).messages
        return [messages[seq] for seq in sorted(set(seqs)) if seq in messages]

    def at(self, stream: str, time_ms: int) -> int:
        """The first number at a time."""
        self._refuse()
        book = self._find(stream)
        messages = list(book.messages.values())
        found = bisect_left(messages, time_ms, key=lambda each: each.time_ms)
        return messages[found].seq if found < len(messages) else book.last + 1

    def last(self, stream: str, pattern: str, after: str = "", limit: int = 1000) -> list[Stored]:
        """The last message of each topic."""
        self._refuse()
        found = {each.topic: each for each in self._find(stream).messages.values()}
        chosen = (topic for topic in sorted(found) if topic > after and matches(pattern, topic))
        return [found[topic] for topic in chosen][:limit]

    def delayed(self, stream: str, now_ms: int, limit: int = 1000) -> list[Delayed]:
        """What may not be delivered yet."""
        self._refuse()
        messages = self._find(stream).messages.values()
        return sorted(Delayed(each.visible_ms, each.seq) for each in messages if each.visible_ms > now_ms)[:limit]

    def groups(self, stream: str) -> list[GroupState]:
        """The groups of a stream."""
        self._refuse()
        return [
            GroupState(name, group.spans.floor, group.spans.spans(), len(group.tries), group.created)
            for name, group in sorted(self._find(stream).groups.items())
        ]

    def retries(self, stream: str, group: str, after: int = 0, limit: int = 1000) -> list[Retried]:
        """Messages with tries."""
        self._refuse()
        tries = self._group(stream, group)[1].tries
        return [tries[seq] for seq in sorted(tries) if seq > after][:limit]

    def dead(self, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Dead letters."""
        self._refuse()
        return [letter for number, (letter, _message) in self._dead.items() if number > after][:limit]

    def dead_counts(self) -> dict[tuple[str, str], int]:
        """How many there are."""
        self._refuse()
        return dict(Counter((letter.stream, letter.group) for letter, _message in self._dead.values()))

    def letter(self, number: int) -> tuple[DeadLetter, Stored] | None:
        """One with its message."""
        self._refuse()
        return self._dead.get(number)

    def marks(self) -> dict[str, int]:
        """The highest number of each agent."""
        self._refuse()
        return dict(self._marks)

    def spool(self, after: int, count: int, size: int) -> list[Spool]:
        """The spool's puts."""
        self._refuse()
        found: list[Spool] = []
        for put in [put for number, put in self._spool.items() if number > after][:count]:
            size -= len(put.topic.encode()) + len(put.body)
            if size < 0 and found:
                break
            found.append(put)
        return found

    def spool_state(self) -> SpoolState:
        """What waits in the spool."""
        self._refuse()
        sizes = [size(put.topic, put.body) for put in self._spool.values()]
        return SpoolState(self._agent, min(self._spool, default=0), len(sizes), sum(sizes), self._next_number)

    def check(self) -> Report:
        """Always whole."""
        self._refuse()
        last = {name: book.last for name, book in sorted(self._streams.items())}
        return Report([], 0, "memory", self._used, 0, self._max_store, 0, 0, last)

    def backup(self, path: str, between: Callable[[], object] = lambda: None) -> None:
        """There is no file to be made of this."""
        raise UsageError("a store in memory has no backup")

    def close(self) -> None:
        """Nobody uses it any more."""
        self.failure = self.failure or "the store is closed"
