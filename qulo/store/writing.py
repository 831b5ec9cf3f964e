"""One function for each operation: what a batch changes, in the books at once and in the database when it is flushed.

Many rows of a kind are written together: messages, counts and floors are collected and written once. Whatever reads
them in the same batch calls `flush` first. Nothing here begins or ends the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qulo.errors import NoStream, QuloError, StoreFull, UsageError
from qulo.protocol.spans import Spans
from qulo.protocol.storage import (
    MAX_SEQ,
    MAX_STREAMS,
    Ack,
    Append,
    Appended,
    Bury,
    DeadPurge,
    GroupAdd,
    GroupRemove,
    Numbers,
    Operation,
    Origin,
    Purge,
    Removed,
    Requeue,
    Result,
    Retry,
    Spool,
    SpoolBury,
    SpoolRelease,
    StreamAdd,
    StreamChange,
    StreamRemove,
    Trim,
    check_name,
    check_stream,
)
from qulo.store.books import SHIFT, Book, Books, Group, Topic, to_json
from qulo.store.database import Database
from qulo.store.space import Space
from qulo.store.trimming import Trimmer

# What a message takes in the database beside topic and body; an estimate that errs upwards.
_ROW = 64

Row = tuple[Any, ...]

# What Appended(…) does in the end; it is half of what making one takes.
_NEW = tuple.__new__


class Writer:
    """Carries operations out."""

    def __init__(self, db: Database, books: Books, space: Space) -> None:
        self._db = db
        self._books = books
        self._space = space
        self._trimmer = Trimmer(db, books)
        self._room = 0  # bytes that this batch may still append,
        self._looked = False  # once that was looked at
        self._messages: list[Row] = []
        self._topics: list[Topic] = []  # with counts to be written
        self._ids: dict[tuple[int, str], tuple[int, int]] = {}
        self._groups: set[Group] = set()  # with floors to be written
        self._marks: dict[str, int] = {}
        self._meta: dict[str, int] = {}
        self._handlers: dict[type, Callable[[Any], Result]] = {
            Append: self._append,
            Ack: self._ack,
            Retry: self._retry,
            Trim: self._trim,
            Purge: self._purge,
            Bury: self._bury,
            Requeue: self._requeue,
            DeadPurge: self._dead_purge,
            StreamAdd: self._stream_add,
            StreamChange: self._stream_change,
            StreamRemove: self._stream_remove,
            GroupAdd: self._group_add,
            GroupRemove: self._group_remove,
            Numbers: self._numbers,
            Spool: self._spool,
            SpoolRelease: self._spool_release,
            SpoolBury: self._spool_bury,
        }

    def carry_out(self, operations: Sequence[Operation]) -> list[Result]:
        """All of a batch; everything is handed to the database when it returns."""
        self._room, self._looked = 0, False
        handlers = self._handlers
        results = [handlers[type(operation)](operation) for operation in operations]
        self.flush()
        self._finish()
        return results

    # -- writing what was collected ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write messages, and what is counted with each."""
        if self._messages:
            self._db.many("append", self._messages)
            self._messages.clear()
        if self._topics:
            self._db.many("count_topic", [self._counted(topic) for topic in self._topics])
            self._topics.clear()
        if self._ids:
            self._db.many("remember", [(*name, seq, time) for name, (seq, time) in self._ids.items()])
            self._ids.clear()

    @staticmethod
    def _counted(topic: Topic) -> Row:
        row = (topic.messages, topic.bytes, topic.last, topic.id)
        topic.book.messages += topic.messages
        topic.book.bytes += topic.bytes
        topic.messages = topic.bytes = 0
        return row

    def _finish(self) -> None:
        """Write what is written once for each commit."""
        self._db.many("set_last", [(book.last, book.number) for book in self._trimmer.take_touched()])
        for group in self._groups:
            self._write_group(group)
        self._groups.clear()
        if self._marks:
            self._db.many("set_mark", self._marks.items())
            self._marks.clear()
        if self._meta:
            self._db.many("set_meta", self._meta.items())
            self._meta.clear()

    def _write_group(self, group: Group) -> None:
        spans = group.spans
        self._db.run("set_floor", spans.floor, group.id)
        for first in spans.touched:
            last = spans.last_of(first)
            if last is None:
                self._db.run("forget_span", group.id, first)
            else:
                self._db.run("set_span", group.id, first, last)
        spans.touched.clear()

    # -- messages ----------------------------------------------------------------------------------------------------

    def _append(self, op: Append) -> Result:
        book = self._books.streams.get(op.stream)
        if book is None:
            return NoStream(f"there is no stream {op.stream}")
        if op.id is None and op.origin is None:
            return self._store(book, op)
        if known := self._duplicate(book, op):
            return known
        result = self._store(book, op)
        if type(result) is Appended:
            self._mark(op.origin)
        return result

    def _duplicate(self, book: Book, op: Append) -> Appended | None:
        """What to answer if there is nothing to be stored."""
        if op.origin is not None and op.origin.number <= self._books.marks.get(op.origin.agent, 0):
            return Appended(0, True)
        if op.id is not None and book.stream.dedupe_ms and (seen := self._seen(book, op.id, op.time_ms)):
            self._mark(op.origin)
            return Appended(seen, True)
        return None

    def _store(self, book: Book, op: Append) -> Appended | QuloError:
        """A message that is no duplicate. The time goes here: nothing in it that can be done once for a batch."""
        _stream, name, kind, body, time, id_, visible, expires, _origin = op
        topic = book.known.get(name)
        length = len(body) + (topic.length if topic else len(name.encode()))
        if self._room < length + _ROW and not self._measured(length):
            return StoreFull()
        if book.last == MAX_SEQ:
            return StoreFull(f"the stream {op.stream} has used up its numbers")
        self._room -= length + _ROW
        if topic is None:
            topic = self._topic(book, name)
        if not topic.messages:
            self._topics.append(topic)
        topic.messages += 1
        topic.bytes += length
        book.last = topic.last = seq = book.last + 1
        ranked = None
        if book.stream.per_topic:
            ranked = topic.id
            book.crowd(topic)
        if id_ is not None and book.stream.dedupe_ms:
            self._ids[book.number, id_] = seq, time
        self._messages.append(
            (book.base + seq, topic.id, kind, time, id_, visible or None, expires or None, ranked, body)
        )
        return _NEW(Appended, (seq, False))

    def _measured(self, length: int) -> bool:
        """Is there room for so much? Looks at quota and disk if this is the batch's first question."""
        if not self._looked:
            self._looked = True
            self._room = self._space.room(self._db)
        return length + _ROW <= self._room

    def _topic(self, book: Book, name: str) -> Topic:
        row = self._db.row("topic", book.number, name)
        id_ = row[0] if row else self._db.run("add_topic", book.number, name).lastrowid or 0
        topic = Topic(id_, len(name.encode()), book)
        self._books.remember(book, name, topic)
        return topic

    def _seen(self, book: Book, id_: str, now_ms: int) -> int:
        """The number of the message with this id, if it is in the window; else 0."""
        found = self._ids.get((book.number, id_)) or self._db.row("seen", book.number, id_)
        return found[0] if found and now_ms - found[1] < book.stream.dedupe_ms else 0

    def _mark(self, origin: Origin | None) -> None:
        if origin is not None:
            self._books.marks[origin.agent] = self._marks[origin.agent] = origin.number

    def _purge(self, op: Purge) -> Result:
        book = self._books.streams.get(op.stream)
        if book is None:
            return NoStream(f"there is no stream {op.stream}")
        self.flush()
        count = self._trimmer.remove_range(book, 1, min(op.upto, book.last), op.limit)
        return Removed(count, count == op.limit)

    def _trim(self, op: Trim) -> Result:
        self.flush()
        return self._trimmer.trim(op.now_ms, op.limit)

    # -- streams and groups ------------------------------------------------------------------------------------------

    def _stream_add(self, op: StreamAdd) -> Result:
        stream = op.stream
        if stream.name in self._books.streams:
            return UsageError(f"there is a stream {stream.name}")
        used = {book.number for book in self._books.streams.values()} | set(self._books.removed)
        number = next(number for number in range(1, MAX_STREAMS + 2) if number not in used)
        if number > MAX_STREAMS:
            return UsageError(f"there can be no more than {MAX_STREAMS} streams")
        try:
            check_stream(stream)
        except UsageError as error:
            return error
        self._db.run("add_stream", number, stream.name, to_json(stream))
        self._books.streams[stream.name] = Book(number, stream, crowded=set())
        return None

    def _stream_change(self, op: StreamChange) -> Result:
        book = self._books.streams.get(op.stream.name)
        if book is None:
            return NoStream(f"there is no stream {op.stream.name}")
        try:
            check_stream(op.stream, book.stream)
        except UsageError as error:
            return error
        self._db.run("change_stream", to_json(op.stream), book.number)
        book.stream = op.stream
        book.crowded = None
        book.regroup()
        return None

    def _stream_remove(self, op: StreamRemove) -> Result:
        self.flush()
        book = self._books.streams.pop(op.name, None)
        if book is None:
            return NoStream(f"there is no stream {op.name}")
        for group in book.groups.values():
            self._drop_group(group)
        self._trimmer.forget(book)
        self._db.run("remove_stream", book.number)
        self._books.removed.append(book.number)
        return None

    def _find(self, stream: str, group: str) -> tuple[Book, Group] | NoStream:
        book = self._books.streams.get(stream)
        found = book.groups.get(group) if book else None
        if not book or not found:
            return NoStream(f"the stream {stream} has no group {group}" if book else f"there is no stream {stream}")
        return book, found

    def _group_add(self, op: GroupAdd) -> Result:
        book = self._books.streams.get(op.stream)
        if book is None:
            return NoStream(f"there is no stream {op.stream}")
        if op.group in book.groups:
            return UsageError(f"the stream {op.stream} has a group {op.group}")
        try:
            check_name(op.group, "group")
        except UsageError as error:
            return error
        floor = max(0, min(op.floor, book.last))
        id_ = self._db.run("add_group", book.number, op.group, floor, op.created_ms).lastrowid
        book.groups[op.group] = Group(id_ or 0, op.group, op.created_ms, Spans(floor))
        book.regroup()
        return None

    def _group_remove(self, op: GroupRemove) -> Result:
        found = self._find(op.stream, op.group)
        if isinstance(found, NoStream):
            return found
        book, group = found
        del book.groups[op.group]
        self._drop_group(group)
        book.regroup()
        return None

    def _drop_group(self, group: Group) -> None:
        self._groups.discard(group)
        self._db.run("remove_group", group.id)
        self._books.removed_groups.append(group.id)

    # -- acknowledging -----------------------------------------------------------------------------------------------

    def _ack(self, op: Ack) -> Result:
        found = self._find(op.stream, op.group)
        if isinstance(found, NoStream):
            return found
        book, group = found
        for first, last in op.spans:
            self._acked(book, group, first, last)
        return group.spans.floor

    def _acked(self, book: Book, group: Group, first: int, last: int) -> None:
        fresh = group.spans.add(first, min(last, book.last))
        if not fresh:
            return
        self._groups.add(group)
        if group.retries:
            for span in fresh:
                group.retries -= self._db.run("forget_retries", group.id, *span).rowcount
        if book.stream.keep == "work":
            book.finish(fresh, by=group)

    def _retry(self, op: Retry) -> Result:
        found = self._find(op.stream, op.group)
        if isinstance(found, NoStream):
            return found
        book, group = found
        if op.seq in group.spans or op.seq > book.last:
            return None
        values = (op.tries, op.not_before_ms, group.id, op.seq)
        if not self._db.run("change_retry", *values).rowcount:
            self._db.run("add_retry", *values)
            group.retries += 1
        return None

    # -- dead letters ------------------------------------------------------------------------------------------------

    def _bury(self, op: Bury) -> Result:
        found = self._find(op.stream, op.group)
        if isinstance(found, NoStream):
            return found
        book, group = found
        if op.seq in group.spans or op.seq > book.last:
            return 0
        self.flush()
        if full := self._no_last_room("weigh", book.base + op.seq):
            return full
        letter = (op.stream, op.group, op.reason, op.tries, op.time_ms, op.seq, book.base + op.seq)
        cursor = self._db.run("bury", *letter)
        number = cursor.lastrowid if cursor.rowcount else 0
        self._acked(book, group, op.seq, op.seq)
        return number

    def _no_last_room(self, query: str, *key: int) -> StoreFull | None:
        """StoreFull if even the reserve has no space for a copy of this."""
        row = self._db.row(query, *key)
        return StoreFull() if row and row[1] + _ROW > self._space.last_room(self._db) else None

    def _requeue(self, op: Requeue) -> Result:
        self.flush()
        row = self._db.row("letter", op.letter)
        if row is None:
            return None
        stream, name, topic, (kind, body, _time, id_) = row[1], row[2], row[4], row[9:13]
        if stream:
            result = self._requeue_for(stream, name, Append(stream, topic, kind, body, op.time_ms, id_))
        else:
            spooled = self._spool(Spool(op.number, topic, kind, body, op.time_ms, id_))
            result = spooled if isinstance(spooled, QuloError) else Appended(op.number)
        if isinstance(result, Appended):
            self._db.run("forget_letters", op.letter, op.letter, 1)
        return result

    def _requeue_for(self, stream: str, name: str, message: Append) -> Appended | QuloError:
        found = self._find(stream, name)
        if isinstance(found, NoStream):
            return found
        book, group = found
        result = self._store(book, message)
        if isinstance(result, Appended):
            for other in book.groups.values():
                if other is not group:
                    self._acked(book, other, result.seq, result.seq)
        return result

    def _dead_purge(self, op: DeadPurge) -> Result:
        count = self._db.run("forget_letters", op.first, op.last, op.limit).rowcount
        return Removed(count, count == op.limit)

    # -- the spool ---------------------------------------------------------------------------------------------------

    def _numbers(self, op: Numbers) -> Result:
        first: int = self._books.meta["next_number"]
        self._set_meta("next_number", first + op.amount)
        return first

    def _set_meta(self, name: str, value: int) -> None:
        self._books.meta[name] = self._meta[name] = value

    def _spool(self, op: Spool) -> Result:
        if not self._books.meta["spool_last"] < op.number < self._books.meta["next_number"]:
            return UsageError(f"{op.number} is not a number to be spooled now")
        length = len(op.topic.encode()) + len(op.body)
        if self._room < length + _ROW and not self._measured(length):
            return StoreFull()
        self._room -= length + _ROW
        visible, expires = op.visible_ms or None, op.expires_ms or None
        self._db.run("spool", op.number, op.topic, op.kind, op.body, op.time_ms, op.id, visible, expires)
        self._set_meta("spool_last", op.number)
        self._set_meta("spool_messages", self._books.meta["spool_messages"] + 1)
        self._set_meta("spool_bytes", self._books.meta["spool_bytes"] + length)
        return None

    def _spool_release(self, op: SpoolRelease) -> Result:
        return self._unspool(0, op.upto)

    def _unspool(self, first: int, last: int) -> int:
        count, weight = self._db.row("weigh_spool", first, last)
        if count:
            self._db.run("forget_spooled", first, last)
            self._set_meta("spool_messages", self._books.meta["spool_messages"] - count)
            self._set_meta("spool_bytes", self._books.meta["spool_bytes"] - weight)
        return int(count)

    def _spool_bury(self, op: SpoolBury) -> Result:
        if full := self._no_last_room("weigh_spool", op.number, op.number):
            return full
        cursor = self._db.run("bury_spooled", op.reason, op.time_ms, op.number)
        number = cursor.lastrowid if cursor.rowcount else 0
        self._unspool(op.number, op.number)
        return number


assert MAX_SEQ < 1 << SHIFT, "a number has to fit below its stream's"  # noqa: S101 - two constants of two modules
