"""What crosses between a program's threads and the one that runs the event loop of `qulo.sync`.

An Outbox hands publishes and calls to the loop in order and wakes it once per batch; a Call brings a coroutine's
result back to the thread that waits for it; Workers run handlers that may block. Nothing here waits without an end,
and nothing here knows what the messages are.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from qulo.errors import DeadlineExceeded, Disconnected
from qulo.protocol.wire import BODY_OVERHEAD

log = logging.getLogger("qulo")

P = ParamSpec("P")
T = TypeVar("T")

# Bytes of messages in the outbox before `publish` blocks: some milliseconds of work for the loop. What the
# loop has taken from it, at most as much again, waits for the hub's credit.
OUTBOX = 1024 * 1024

# Requests that one Bus's responders work on at once, one thread each; handlers mostly wait for other things.
WORKERS = 16


class Call:
    """A coroutine to be run by the loop for a thread that waits for `result`."""

    __slots__ = ("_make", "_task", "result")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._make = make
        self._task: asyncio.Task[Any] | None = None
        self.result: Future[Any] = Future()

    def start(self) -> None:
        """In the loop."""
        if self.result.set_running_or_notify_cancel():
            self._task = asyncio.get_running_loop().create_task(self._make())
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.result.set_exception(Disconnected("the bus was closed"))
        elif (error := task.exception()) is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())

    def fail(self) -> None:
        """The loop has ended: nobody else will answer."""
        if not self.result.done():
            self.result.set_exception(Disconnected("the bus was closed"))

    def abandon(self) -> None:
        """In the loop: nobody waits any more."""
        if self._task is not None:
            self._task.cancel()
        elif not self.result.done():
            self.result.cancel()


Publish = tuple[str, int, bytes]  # topic, kind, body


class Outbox:
    """What threads hand to the loop, in order. The loop is woken only if it waits; publishes are bounded."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._entries: list[Publish | Call] = []
        self._calls: set[Call] = set()  # not answered yet
        self._size = 0
        self._asleep = True
        self._ended = False
        self._room = threading.Condition(threading.Lock())

    def publish(self, entry: Publish, timeout: float | None) -> None:
        """Append, when there is room; raises DeadlineExceeded when there is none in time."""
        with self._room:
            if self._size >= OUTBOX and not self._room.wait_for(self._has_room, timeout):
                raise DeadlineExceeded(f"no room for another message within {timeout:g} s; this one was not sent")
            self._check()
            self._size += len(entry[2]) + BODY_OVERHEAD
            self._append(entry)

    def call(self, call: Call, *, ordered: bool) -> None:
        """Append a call, or with `ordered` False only see to it that it is answered; its thread waits."""
        with self._room:
            self._check()
            self._calls.add(call)
            if ordered:
                self._append(call)
        call.result.add_done_callback(lambda _result: self._calls.discard(call))

    def _append(self, entry: Publish | Call) -> None:
        self._entries.append(entry)
        if self._asleep:
            self._asleep = False
            self._wake()

    def take(self) -> list[Publish | Call]:
        """Everything, for the loop. When there is nothing, the next entry wakes it."""
        with self._room:
            taken, self._entries = self._entries, []
            self._asleep = not taken
            self._size = 0
            self._room.notify_all()
        return taken

    def end(self) -> None:
        """The loop takes nothing any more: whoever waits is told."""
        with self._room:
            self._ended = True
            self._room.notify_all()
        for call in tuple(self._calls):
            call.fail()

    def _has_room(self) -> bool:
        return self._size < OUTBOX or self._ended

    def _check(self) -> None:
        if self._ended:
            raise Disconnected("the bus is closed")


class Workers(Executor):
    """Up to WORKERS threads for handlers that may block, made when they are needed."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # calls submitted and not finished
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in a worker."""
        future: Future[T] = Future()
        with self._lock:
            self._busy += 1
            if self._busy > len(self._threads) < WORKERS:
                self._threads.append(start_thread(self._run, f"qulo worker {len(self._threads) + 1}"))
        self._work.put(partial(self._carry_out, future, partial(fn, *args, **kwargs)))
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _carry_out(self, future: Future[T], work: Callable[[], T]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is the asker's
                future.set_exception(error)
        with self._lock:
            self._busy -= 1

    def end(self, deadline: float) -> None:
        """Let the handlers under way finish until `deadline` (monotonic)."""
        for _ in self._threads:
            self._work.put(None)
        join_threads(self._threads, deadline)


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """A thread for `run`; a daemon: a handler that never returns must not keep the program from ending."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def join_threads(threads: list[threading.Thread], deadline: float) -> None:
    """Wait for them until `deadline` (monotonic); says which are left behind."""
    for thread in threads:
        if thread is threading.current_thread():  # closed from inside a handler
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.warning("%s still runs its handler; it was left behind", thread.name)
