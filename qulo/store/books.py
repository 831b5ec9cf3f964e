"""What a store knows without asking the database: definitions, counts, floors, marks, and what is known of topics.

All of it is in the database as well and read at opening; a few hundred bytes for each stream, group and span, nothing
for a message. It is changed with the transaction, never undone: a transaction that fails ends the store.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from qulo.protocol.spans import Span, Spans
from qulo.protocol.storage import Stream
from qulo.store.database import Database

SHIFT = 48
"""A message's key is its stream's number shifted by this, and its own."""

# Names of topics whose ids are remembered, all streams together; about 300 bytes each.
_MAX_TOPICS = 50_000

# Topics per stream noted as perhaps too full; beyond, the database is asked instead.
_MAX_CROWDED = 10_000


@dataclass(slots=True, eq=False)
class Topic:
    """A topic, and what the open transaction adds to it; its stream's counts follow when that is flushed."""

    id: int
    length: int
    """Bytes of its name."""
    book: Book
    messages: int = 0
    bytes: int = 0
    last: int = 0


@dataclass(slots=True, eq=False)
class Group:
    """A group, and how many rows of tries it has."""

    id: int
    name: str
    created: int
    spans: Spans
    retries: int = 0


@dataclass(slots=True, eq=False)
class Book:
    """A stream."""

    number: int
    stream: Stream
    last: int = 0
    messages: int = 0
    bytes: int = 0
    groups: dict[str, Group] = field(default_factory=dict)
    known: dict[str, Topic] = field(default_factory=dict)
    done: list[Span] = field(default_factory=list)
    """Heap: what every group of a work stream has acked and no Trim has removed."""
    crowded: set[int] | None = None
    """Ids of topics that may have more messages than `per_topic`; None: not known, ask."""
    base: int = 0
    """What makes a number a key."""

    def __post_init__(self) -> None:
        self.base = self.number << SHIFT

    @property
    def range(self) -> tuple[int, int]:
        """The keys of all its messages."""
        return self.base, self.base + (1 << SHIFT) - 1

    def finish(self, spans: list[Span], by: Group | None = None) -> None:
        """Note what is done now that `by` has acked these; with None, of all groups."""
        if self.stream.keep != "work" or not self.groups:
            return
        for group in self.groups.values():
            if group is not by:
                spans = [part for span in spans for part in group.spans.within(span)]
        for span in spans:
            heapq.heappush(self.done, span)

    def regroup(self) -> None:
        """The groups are others now, or what they are for: find out anew what is done."""
        self.done.clear()
        self.finish([Span(1, self.last)])

    def crowd(self, topic: Topic) -> None:
        """This topic has got a message."""
        if self.crowded is not None:
            self.crowded.add(topic.id)
            if len(self.crowded) > _MAX_CROWDED:
                self.crowded = None


class Books:
    """All streams of a store."""

    def __init__(self, db: Database) -> None:
        self.streams: dict[str, Book] = {}
        self.removed: list[int] = []
        """Numbers of streams whose messages are still there."""
        self.removed_groups: list[int] = []
        self.marks: dict[str, int] = dict(db.rows("marks"))
        self.meta: dict[str, Any] = dict(db.rows("meta"))
        self._known = 0
        self._load(db)

    def _load(self, db: Database) -> None:
        numbers: dict[int, Book] = {}
        for number, name, definition, last in db.rows("streams"):
            if name is None:
                self.removed.append(number)
            else:
                book = Book(number, from_json(name, definition), last, *db.row("count_stream", number))
                (key,) = db.row("last_key", *book.range)
                book.last = max(last, key - book.base if key is not None else 0)
                self.streams[name] = numbers[number] = book
        self._load_groups(db, numbers)
        for book in numbers.values():
            book.regroup()

    def _load_groups(self, db: Database, numbers: dict[int, Book]) -> None:
        groups: dict[int, Group] = {}
        for id_, number, name, floor, created in db.rows("groups"):
            if number is None:
                self.removed_groups.append(id_)
            else:
                groups[id_] = numbers[number].groups[name] = Group(id_, name, created, Spans(floor))
        for id_, first, last in db.rows("acked"):
            if id_ in groups:
                groups[id_].spans.add(first, last)
        for id_, count in db.rows("count_retries"):
            if id_ in groups:
                groups[id_].retries = count
        for group in groups.values():
            group.spans.touched.clear()

    def remember(self, book: Book, name: str, topic: Topic) -> None:
        """Know a topic; when that would be too many, all are forgotten first."""
        if self._known >= _MAX_TOPICS:
            self.forget_topics()
        self._known += 1
        book.known[name] = topic

    def forget_topics(self) -> None:
        """Know no topic any more; what is counted in them has to be written before they are used again."""
        self._known = 0
        for book in self.streams.values():
            book.known.clear()


def to_json(stream: Stream) -> str:
    """A definition as the database keeps it."""
    return json.dumps(asdict(stream), sort_keys=True)


def from_json(name: str, text: str) -> Stream:
    """The definition again."""
    values = json.loads(text)
    return Stream(**{**values, "name": name, "topics": tuple(values["topics"])})
