"""A simulated disk: the verified fake behind a journal, with what a real disk does in between.

It outlives its process. A batch takes its time; a crash before that is over keeps it whole or loses it whole, by the
seed (one transaction is on its way at a time, so that this is the torn tail too). A batch that fails (EIO) is kept or
lost likewise, the process hears of it, and every later batch is refused until the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from qulo.errors import StoreFailed
from qulo.net.storing import LEAST_PAUSE, Core
from qulo.protocol.journal import Batch
from qulo.store.memory import MemoryStore
from tests.simulation.clock import Process

# Seconds for a commit: a good disk, and as much again by chance; a slow one.
FASTEST, SPREAD = 0.001, 0.006
SLOW = 0.4

# How much faster it reads than it commits.
READS_FASTER = 3


class Disk:
    """The store of one process, driven as `qulo.net.storing.StoreThread` does."""

    def __init__(self, process: Process, random: Random, agent: str) -> None:
        self.store = MemoryStore(agent=agent)
        self.process = process
        self.slow = False
        self.eio = False  # the next batch fails
        self.committed = 0
        self.kept = 0  # of the batches that a crash or an error interrupted
        self.lost = 0
        self._random = random
        self._core: Core | None = None
        self._batch: Batch | None = None
        self._woken: Callable[[], None] = _nothing
        self._failed: Callable[[str], None] = _ignore
        self._timer_at = 0.0

    def serve(self, core: Core, woken: Callable[[], None], failed: Callable[[str], None]) -> None:
        """A new life of the process."""
        self._core, self._woken, self._failed = core, woken, failed
        self._batch = None
        self._timer_at = 0.0

    def turn(self) -> None:
        """The end of a turn of the loop."""
        core = self._core
        if core is None:
            return
        now = self.process.clock.now
        core.offset_ms = self.process.offset_ms
        core.turn(now)
        batch = core.journal.take()
        if batch is not None:
            self._begin(batch)
        due = core.due
        if due is not None and due != self._timer_at:
            self._timer_at = due
            self.process.after(max(LEAST_PAUSE, due - now), partial(self._is_due, due))

    def _begin(self, batch: Batch) -> None:
        self._batch = batch
        seconds = FASTEST + SPREAD * self._random.random()
        if self.slow:
            seconds += SLOW * self._random.random()
        if not batch.operations:
            seconds /= READS_FASTER
        # The thread goes on while its process is frozen only as far as the kernel does: the batch may be there then.
        self.process.after(seconds, partial(self._finish, batch))

    def _is_due(self, due: float) -> None:
        if due == self._timer_at:
            self._timer_at = 0.0
            self._woken()

    def _finish(self, batch: Batch) -> None:
        core = self._core
        if batch is not self._batch or core is None:
            return
        if self.eio and batch.operations:
            self.eio = False
            self._interrupt()
            self._core = None  # nothing is acknowledged any more
            self._failed("EIO")
            return
        self._batch = None
        try:
            outcome = batch.carry_out(self.store)
        except StoreFailed as error:
            self._core = None
            self._failed(str(error))
            return
        self.committed += bool(batch.operations)
        core.journal.done(outcome, self.process.clock.now)
        self._woken()

    def _interrupt(self) -> None:
        """What was under way is on the disk, or it is not."""
        batch, self._batch = self._batch, None
        if batch is None or not batch.operations:
            return
        if self._random.random() < 0.5:
            self.store.commit(batch.operations)
            self.kept += 1
        else:
            self.lost += 1

    def crash(self) -> None:
        """The process is gone."""
        self._interrupt()
        self._core = None

    def fill(self) -> None:
        """No room for anything new."""
        self.store._max_store = max(1, self.store._used)

    def make_room(self) -> None:
        """Room again."""
        self.store._max_store = 0


def _nothing() -> None:
    """Nobody is served."""


def _ignore(why: str) -> None:
    """Nobody is served."""
