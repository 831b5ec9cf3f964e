"""What is not to be kept goes: in steps, so that no commit takes seconds, whatever there is to remove.

Each kind of it is one function that removes at most so much and says how much it did; a kind begins only when those
before it are through, so that what is left in the end does not depend on the size of the steps.
"""

from __future__ import annotations

import heapq

from qulo.protocol.spans import Span
from qulo.protocol.storage import Removed
from qulo.store.books import SHIFT, Book, Books
from qulo.store.database import Database


class Trimmer:
    """Removes messages, ids, and what is left of streams and groups."""

    def __init__(self, db: Database, books: Books) -> None:
        self._db = db
        self._books = books
        self._touched: set[Book] = set()

    def take_touched(self) -> set[Book]:
        """Streams whose highest number has to be written: it may have been removed."""
        touched, self._touched = self._touched, set()
        return touched

    def forget(self, book: Book) -> None:
        """The stream was removed."""
        self._touched.discard(book)

    def trim(self, now_ms: int, limit: int) -> Removed:
        """At most `limit` of everything."""
        messages, left = 0, limit
        for number in list(self._books.removed):
            count, left = self._sweep_stream(number, left)
            messages += count
        left = self._sweep_groups(left)
        count = self._expire(now_ms, left)
        messages, left = messages + count, left - count
        for _name, book in sorted(self._books.streams.items()):
            count = self._trim_stream(book, now_ms, left)
            messages, left = messages + count, left - count
            if left > 0:
                left -= self._db.run("forget_ids", book.number, now_ms - book.stream.dedupe_ms, left).rowcount
            if left <= 0:
                break
        if left > 0:
            left -= self._forget_topics(left)
        return Removed(messages, left <= 0)

    def _trim_stream(self, book: Book, now_ms: int, left: int) -> int:
        total = 0
        for step in (self._crowded, self._done, self._aged, self._many, self._heavy):
            if total < left:
                total += step(book, now_ms, left - total)
        return total

    # -- by kind -----------------------------------------------------------------------------------------------------

    def _expire(self, now_ms: int, left: int) -> int:
        if left <= 0:
            return 0
        keys = [key for (key,) in self._db.rows("expired", now_ms, left)]
        by_number = {book.number: book for book in self._books.streams.values()}
        for key in keys:
            book = by_number.get(key >> SHIFT)
            if book:
                self._remove_key(book, key)
            else:  # of a removed stream, which has no counts
                self._db.run("remove", key)
        return len(keys)

    def _crowded(self, book: Book, now_ms: int, left: int) -> int:
        """Topics with more than `per_topic`."""
        if not book.stream.per_topic:
            return 0
        if book.crowded is None:
            topics = [id_ for (id_,) in self._db.rows("crowded_topics", book.number, book.stream.per_topic, left)]
            if not topics:
                book.crowded = set()
        else:
            topics = list(book.crowded)
        total = 0
        for topic in topics:
            row = self._db.row("topic_messages", topic)
            excess = row[0] - book.stream.per_topic if row else 0
            if excess > left - total:
                excess = left - total
            elif book.crowded:
                book.crowded.discard(topic)
            if excess > 0:
                for (key,) in self._db.rows("oldest_ranked", topic, excess).fetchall():
                    self._remove_key(book, key)
                total += excess
            if total >= left:
                break
        return total

    def _done(self, book: Book, now_ms: int, left: int) -> int:
        """Work that every group has acked."""
        total = 0
        while book.done and total < left:
            first, last = heapq.heappop(book.done)
            total += self.remove_range(book, first, last, left - total)
            if total >= left:
                heapq.heappush(book.done, Span(first, last))
        return total

    def _aged(self, book: Book, now_ms: int, left: int) -> int:
        if not book.stream.max_age_ms:
            return 0
        end = 0
        for count, (key, _size, time) in enumerate(self._db.rows("sizes", *book.range)):
            if count == left or time > now_ms - book.stream.max_age_ms:
                break
            end = key
        return self.remove_range(book, 1, end - book.base, left) if end else 0

    def _many(self, book: Book, now_ms: int, left: int) -> int:
        excess = book.messages - book.stream.max_msgs
        if not book.stream.max_msgs or excess <= 0:
            return 0
        return self.remove_range(book, 1, book.last, min(excess, left))

    def _heavy(self, book: Book, now_ms: int, left: int) -> int:
        excess = book.bytes - book.stream.max_bytes
        if not book.stream.max_bytes or excess <= 0:
            return 0
        end = 0
        for count, (key, size, _time) in enumerate(self._db.rows("sizes", *book.range)):
            if count == left or excess <= 0:
                break
            end, excess = key, excess - size
        return self.remove_range(book, 1, end - book.base, left)

    # -- removing ----------------------------------------------------------------------------------------------------

    def remove_range(self, book: Book, first: int, last: int, limit: int) -> int:
        """At most so many messages from one number to another, oldest first; returns how many."""
        begin, end = book.base + first, book.base + last
        end, count = self._db.row("limit_range", begin, end, limit)
        if not count:
            return 0
        weights = self._db.rows("weigh_range", begin, end).fetchall()
        self._db.run("remove_range", begin, end)
        self._db.many("discount_topic", [(messages, size, topic) for topic, messages, size in weights])
        book.messages -= count
        book.bytes -= sum(size for _topic, _messages, size in weights)
        self._touched.add(book)
        return int(count)

    def _remove_key(self, book: Book, key: int) -> None:
        topic, size = self._db.row("weigh", key)
        self._db.run("remove", key)
        self._db.run("discount_topic", 1, size, topic)
        book.messages -= 1
        book.bytes -= size
        self._touched.add(book)

    # -- what is left of streams, groups and topics ------------------------------------------------------------------

    def _sweep_stream(self, number: int, left: int) -> tuple[int, int]:
        """Of a removed stream; returns how many messages went, and what may still be done."""
        begin, end = number << SHIFT, ((number + 1) << SHIFT) - 1
        if left <= 0:
            return 0, left
        end, messages = self._db.row("limit_range", begin, end, left)
        if messages:
            self._db.run("remove_range", begin, end)
            left -= messages
        for query in ("sweep_topics", "sweep_ids"):
            if left > 0:
                left -= self._db.run(query, number, left).rowcount
        if left > 0:
            self._db.run("forget_stream", number)
            self._books.removed.remove(number)
        return messages, left

    def _sweep_groups(self, left: int) -> int:
        for id_ in list(self._books.removed_groups):
            for query in ("sweep_retries", "sweep_acked"):
                if left > 0:
                    left -= self._db.run(query, id_, left).rowcount
            if left > 0:
                self._db.run("forget_group", id_)
                self._books.removed_groups.remove(id_)
        return left

    def _forget_topics(self, left: int) -> int:
        empty = self._db.rows("empty_topics", left).fetchall()
        if empty:
            self._db.many("forget_topic", empty)
            self._books.forget_topics()
        return len(empty)
