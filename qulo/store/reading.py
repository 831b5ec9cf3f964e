"""Everything that only looks: parts of streams, topics, groups, dead letters, the spool.

Every answer is bounded by its arguments; rows are read as far as is needed, and no cursor is left open behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qulo.errors import NoStream
from qulo.protocol.storage import (
    DeadLetter,
    Delayed,
    GroupState,
    Read,
    Retried,
    Spool,
    SpoolState,
    Stored,
    StreamState,
    TopicState,
)
from qulo.protocol.topics import matches
from qulo.store.books import Book, Books
from qulo.store.database import Database


class Reader:
    """Reads, between transactions."""

    def __init__(self, db: Database, books: Books) -> None:
        self._db = db
        self._books = books

    def _book(self, stream: str) -> Book:
        book = self._books.streams.get(stream)
        if book is None:
            raise NoStream(f"there is no stream {stream}")
        return book

    # -- streams -----------------------------------------------------------------------------------------------------

    def streams(self) -> list[StreamState]:
        """All, by name."""
        return [self._state(book) for _name, book in sorted(self._books.streams.items())]

    def _state(self, book: Book) -> StreamState:
        (key,) = self._db.row("first_key", *book.range)
        first = key - book.base if key is not None else book.last + 1
        return StreamState(book.stream, first, book.last, book.messages, book.bytes)

    def read(self, stream: str, after: int, count: int, size: int, now_ms: int) -> Read:
        """Some of a stream; see the protocol."""
        book = self._book(stream)
        messages: list[Stored] = []
        delayed: list[Delayed] = []
        upto, seen = after, 0
        cursor = self._db.rows("read", book.base + after + 1, book.range[1], count)
        for row in cursor:
            message = _stored(row, book.base)
            live = not message.expires_ms or message.expires_ms > now_ms
            if live and message.visible_ms > now_ms:
                delayed.append(Delayed(message.visible_ms, message.seq))
            elif live:
                size -= len(message.topic.encode()) + len(message.body)
                if size < 0 and messages:
                    cursor.close()
                    return Read(messages, delayed, upto)
                messages.append(message)
            upto, seen = message.seq, seen + 1
        if seen < count:
            upto = max(after, book.last)
        return Read(messages, delayed, upto)

    def fetch(self, stream: str, seqs: Sequence[int]) -> list[Stored]:
        """Single messages."""
        book = self._book(stream)
        rows = (self._db.row("message", book.base + seq) for seq in sorted(set(seqs)) if 0 < seq <= book.last)
        return [_stored(row, book.base) for row in rows if row]

    def at(self, stream: str, time_ms: int) -> int:
        """Halve until it is found."""
        book = self._book(stream)
        low, high = 1, book.last + 1
        while low < high:
            middle = (low + high) // 2
            row = self._db.row("key_and_time", book.base + middle, book.base + high - 1)
            if row is None or row[1] >= time_ms:
                high = middle
            else:
                low = row[0] - book.base + 1
        (key,) = self._db.row("first_key", book.base + low, book.range[1])
        return key - book.base if key is not None else book.last + 1

    def delayed(self, stream: str, now_ms: int, limit: int) -> list[Delayed]:
        """By the index that only delayed ones are in."""
        book = self._book(stream)
        rows = self._db.rows("delayed", book.number, now_ms, limit)
        return [Delayed(visible, key - book.base) for visible, key in rows]

    # -- topics ------------------------------------------------------------------------------------------------------

    def topics(self, stream: str, pattern: str, after: str, limit: int) -> list[TopicState]:
        """Those that match and have messages."""
        rows = self._matching(self._book(stream), pattern, after, limit)
        return [TopicState(name, messages, size) for _id, name, messages, size, _last in rows]

    def last(self, stream: str, pattern: str, after: str, limit: int) -> list[Stored]:
        """The last message of each."""
        book = self._book(stream)
        rows = list(self._matching(book, pattern, after, limit))
        keys = (self._last_key(book, id_, last) for id_, _name, _messages, _bytes, last in rows)
        return [_stored(self._db.row("message", key), book.base) for key in keys]

    def _last_key(self, book: Book, topic: int, last: int) -> int:
        key = book.base + last
        if self._db.row("message", key) is None:
            ranked = book.stream.per_topic
            (key,) = (
                self._db.row("last_ranked", topic) if ranked else self._db.row("last_on_topic", book.base, key, topic)
            )
        return key

    def _matching(self, book: Book, pattern: str, after: str, limit: int) -> Iterator[Any]:
        prefix = re.split(r"(?:^|\.)[*>](?:\.|$)", pattern, maxsplit=1)[0]
        for row in self._db.rows("topics", book.number, max(prefix, after)):
            if limit <= 0 or not row[1].startswith(prefix):
                return
            if row[1] > after and matches(pattern, row[1]):
                limit -= 1
                yield row

    # -- groups ------------------------------------------------------------------------------------------------------

    def groups(self, stream: str) -> list[GroupState]:
        """All of a stream, by name."""
        return [
            GroupState(name, group.spans.floor, group.spans.spans(), group.retries, group.created)
            for name, group in sorted(self._book(stream).groups.items())
        ]

    def retries(self, stream: str, group: str, after: int, limit: int) -> list[Retried]:
        """By number."""
        found = self._book(stream).groups.get(group)
        if found is None:
            raise NoStream(f"the stream {stream} has no group {group}")
        return [Retried(*row) for row in self._db.rows("retries", found.id, after, limit)]

    def marks(self) -> dict[str, int]:
        """A copy."""
        return dict(self._books.marks)

    # -- dead letters and the spool ----------------------------------------------------------------------------------

    def dead(self, after: int, limit: int) -> list[DeadLetter]:
        """Without bodies."""
        return [DeadLetter(*row) for row in self._db.rows("dead", after, limit)]

    def dead_counts(self) -> dict[tuple[str, str], int]:
        """By an index."""
        return {(stream, group): count for stream, group, count in self._db.rows("dead_counts")}

    def letter(self, number: int) -> tuple[DeadLetter, Stored] | None:
        """With its body."""
        row = self._db.row("letter", number)
        if row is None:
            return None
        kind, body, time, id_, visible, expires = row[9:]
        letter = DeadLetter(*row[:9])
        return letter, Stored(letter.seq, letter.topic, kind, body, time, id_, visible or 0, expires or 0)

    def spool(self, after: int, count: int, size: int) -> list[Spool]:
        """Oldest first."""
        cursor = self._db.rows("spooled", after, count)
        found: list[Spool] = []
        for number, topic, kind, body, time, id_, visible, expires in cursor:
            size -= len(topic.encode()) + len(body)
            if size < 0 and found:
                cursor.close()
                break
            found.append(Spool(number, topic, kind, body, time, id_, visible or 0, expires or 0))
        return found

    def spool_state(self) -> SpoolState:
        """Counts are kept, the ends are looked up."""
        (first,) = self._db.row("first_spooled")
        meta = self._books.meta
        return SpoolState(meta["agent"], first or 0, meta["spool_messages"], meta["spool_bytes"], meta["next_number"])


def _stored(row: Iterable[Any], base: int) -> Stored:
    key, topic, kind, body, time, id_, visible, expires = row
    return Stored(key - base, topic, kind, body, time, id_, visible or 0, expires or 0)
