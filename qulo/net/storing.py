"""The store of a hub in its own thread: batches go there, and what became of them comes back to the loop.

The thread makes the store, uses it and closes it; nobody else touches it. The first StoreFailed is the last: `failed`
is told, nothing is acknowledged any more, and the daemon ends.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from qulo.errors import QuloError, StoreFailed
from qulo.protocol.journal import Journal, Outcome
from qulo.protocol.storage import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

# A timer is not set closer than this (seconds): what is due then is done together.
LEAST_PAUSE = 0.002


class Core(Protocol):
    """What is served: `protocol.streams.Streams` or `protocol.spool.Spool`."""

    journal: Journal
    offset_ms: int
    due: float | None  # when to call `turn` again at the latest

    def turn(self, now: float) -> None:
        """Decide what there is to decide."""


class StoreThread:
    """Carries one core's batches to one store. `start`, then `serve`, then `turn` once per turn; at the end `close`."""

    def __init__(
        self, make: Callable[[], Store], woken: Callable[[], None], failed: Callable[[QuloError], None]
    ) -> None:
        """`make` opens the store, in the thread; `woken` is called when there is news for the hub's peers."""
        self._make = make
        self._woken = woken
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Callable[[Store], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._core: Core | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def start(self) -> None:
        """Open the store. Raises FileError or StoreFailed."""
        self._thread.start()
        await self._opened

    async def do(self, what: Callable[[Store], T]) -> T:
        """Have something done in the thread, between two batches; raises what it raises."""
        future: asyncio.Future[T] = self._loop.create_future()

        def work(store: Store) -> None:
            try:
                result = what(store)
            except Exception as error:  # noqa: BLE001 - it is the caller's
                self._tell(_set_exception, future, error)
            else:
                self._tell(_set_result, future, result)

        self._work.put(work)
        return await future

    def spawn(
        self, work: Coroutine[Any, Any, T], then: Callable[[T], None], failed: Callable[[QuloError], None]
    ) -> None:
        """Have something done in the background; `then` gets its result, `failed` its error."""
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                then(task.result())
            else:
                failed(error if isinstance(error, QuloError) else QuloError(f"{type(error).__name__}: {error}"))
            self._woken()

        task.add_done_callback(done)

    async def back_up(self, path: str) -> None:
        """Copy the store into a new file, while batches go on. Raises FileError."""
        await self.do(lambda store: store.backup(path, lambda: self._work_off(store)))

    def serve(self, core: Core) -> None:
        """From now on carry its batches."""
        self._core = core

    def turn(self) -> None:
        """Let the core decide, and send its batch off if none is under way."""
        core = self._core
        if core is None:
            return
        now = time.monotonic()
        core.offset_ms = int(time.time() * 1000) - int(now * 1000)
        core.turn(now)
        batch = core.journal.take()
        if batch is not None:
            carry_out = batch.carry_out
            self._work.put(lambda store: self._tell(self._done, carry_out(store)))
        due = core.due
        if due is not None and due != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(max(LEAST_PAUSE, due - now), self._is_due)

    def _is_due(self) -> None:
        self._timer_at = 0.0
        self._woken()

    def _done(self, outcome: Outcome) -> None:
        if self._core is not None:
            self._core.journal.done(outcome, time.monotonic())
            self._woken()

    async def close(self) -> None:
        """Let the thread finish what it has, and close the store."""
        self._core = None
        if not self._thread.ident:  # never started
            return
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._work.put(None)
        await self._ended

    # -- in the thread

    def _run(self) -> None:
        try:
            store = self._make()
        except Exception as error:  # noqa: BLE001 - whoever starts it is told
            self._tell(_set_exception, self._opened, error)
            self._tell(_set_result, self._ended, None)
            return
        self._tell(_set_result, self._opened, None)
        try:
            while (work := self._work.get()) is not None:
                work(store)
        except StoreFailed as error:
            self._tell(self._failed, error)
        except Exception as error:
            log.exception("the store's thread failed")
            self._tell(self._failed, StoreFailed(f"{type(error).__name__}: {error}"))
        finally:
            store.close()
            self._tell(_set_result, self._ended, None)

    def _work_off(self, store: Store) -> None:
        """What has come meanwhile."""
        while not self._work.empty():
            work = self._work.get()
            if work is None:
                self._work.put(None)  # the end waits for the backup to be done
                return
            work(store)

    def _tell(self, what: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop is closed: nobody wants to know any more
            log.debug("too late for %s", what)


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
