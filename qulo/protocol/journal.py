"""The way to the store: operations with what follows from their results, and questions, in batches.

One batch is at the store at a time; what comes meanwhile is the next one. That is group commit: the more is going on,
the more share one transaction and one fsync. Pure: whoever drives it carries the batches to the store and back.

    batch = journal.take()              # None: nothing to do, or one is under way
    outcome = batch.carry_out(store)    # in the store's thread; raises StoreFailed
    journal.done(outcome, now)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qulo.errors import NoStream, QuloError
from qulo.protocol.storage import Operation, Result, Store

Then = Callable[[list[Result], float], None]
"""What follows from the results of some operations, once they are on disk: (results, now)."""

Query = Callable[[Store], Any]
Tell = Callable[[Any, float], None]
Failed = Callable[[QuloError, float], None]

# Bytes of messages that may wait for the disk: beyond it whoever sends them is held back. A second's work of a slow
# disk, and what a hub can afford to hold twice.
ROOM = 16 * 1024 * 1024

# Operations in one transaction: a batch takes some 20 ms then, which everybody in the next one waits for.
MOST = 5000


@dataclass(slots=True)
class Batch:
    """One transaction, and the questions that are asked after it."""

    operations: list[Operation] = field(default_factory=list)
    thens: list[tuple[int, Then]] = field(default_factory=list)  # each takes so many results
    queries: list[tuple[Query, Tell, Failed]] = field(default_factory=list)
    size: int = 0

    def carry_out(self, store: Store) -> Outcome:
        """Blocks. Raises StoreFailed: then nothing is known of what is in here."""
        results = store.commit(self.operations) if self.operations else []
        return Outcome(self, results, [_answer(query, store) for query, _, _ in self.queries])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the store made of a batch."""

    batch: Batch
    results: list[Result]
    answers: list[Any]


class Journal:
    """Collects what is to be stored and asked."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._under_way: Batch | None = None
        self._size = 0

    def submit(self, operations: Sequence[Operation], then: Then, size: int = 0) -> None:
        """Put operations into the next batch; `then` gets their results, in the order of submission.

        `size` is that of the messages in them. Without operations `then` comes when all before it is on disk.
        """
        batch = self._open()
        batch.operations += operations
        batch.thens.append((len(operations), then))
        batch.size += size
        self._size += size

    def ask(self, query: Query, then: Tell, failed: Failed | None = None) -> None:
        """Ask the store, when everything that was submitted before is in it.

        A stream may have been removed by then: that is told to `failed`, or to nobody.
        """
        self._open().queries.append((query, then, failed or _tell_nobody))

    def _open(self) -> Batch:
        if not self._batches or len(self._batches[-1].operations) >= MOST:
            self._batches.append(Batch())
        return self._batches[-1]

    def take(self) -> Batch | None:
        """The next batch for the store."""
        if self._under_way is not None or not self._batches:
            return None
        self._under_way = self._batches.pop(0)
        return self._under_way

    def done(self, outcome: Outcome, now: float) -> None:
        """A batch is on disk, and its questions are answered."""
        batch = outcome.batch
        self._under_way = None
        self._size -= batch.size
        at = 0
        for count, then in batch.thens:
            then(outcome.results[at : at + count], now)
            at += count
        for (_, tell, failed), answer in zip(batch.queries, outcome.answers, strict=True):
            if isinstance(answer, NoStream):
                failed(answer, now)
            else:
                tell(answer, now)

    @property
    def idle(self) -> bool:
        """Is everything done?"""
        return self._under_way is None and not self._batches

    @property
    def is_full(self) -> bool:
        """Does so much wait for the disk that nobody should send more?"""
        return self._size > ROOM


def ignore(results: list[Result], now: float) -> None:
    """For operations that nothing follows from."""


def _tell_nobody(error: QuloError, now: float) -> None:
    """Whoever asked ended with the stream."""


def _answer(query: Query, store: Store) -> Any:
    try:
        return query(store)
    except NoStream as error:  # it went while the question was on its way; no reason for the store to end
        return error
