"""What crosses between a program's threads and the one that runs the event loop of `qulo.sync`.

An Outbox hands publishes and calls to the loop in order and wakes it once per batch; a Call brings a coroutine's
answer back to the thread that waits for it; Workers run handlers that may block. Nothing here waits without an end,
and nothing here knows what the messages are.

Ctrl-C raises KeyboardInterrupt in the main thread between any two steps of it, and the program may go on with
the Bus. So what the main thread runs here must be right wherever it is cut off: it takes a plain Lock only with
`with` (one step of the interpreter; Condition and Future take theirs in Python code, where an interrupt leaves them
locked for good), and every wake-up comes before the flag that says it was given.
"""

from __future__ import annotations

import asyncio
import logging
import math
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


# Seconds after which a waiting thread looks up. A signal that comes just before the thread falls asleep does not
# wake it: CPython looks for signals before it waits for a lock, and is woken by one only while it waits.
LOOK_UP = 0.5


class Answer:
    """One value or error that the loop hands to a thread. Made by the thread that waits, set once by the loop."""

    __slots__ = ("_error", "_unset", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._unset = threading.Lock()
        self._unset.acquire()

    def set(self, value: Any = None, error: BaseException | None = None) -> None:
        """In the loop: wake the thread; only the first value or error counts."""
        if not self.done:
            self._value, self._error = value, error
            self.done = True
            self._unset.release()

    def wait(self, timeout: float | None) -> Any:
        """The value; raises the error, or TimeoutError after `timeout` seconds."""
        left = math.inf if timeout is None else max(0.0, timeout)
        while not self.done and not self._unset.acquire(timeout=min(left, LOOK_UP)):
            left -= LOOK_UP
            if left <= 0:
                raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value


class Call:
    """A coroutine to be run by the loop for a thread that waits for `answer`."""

    __slots__ = ("_make", "_task", "answer")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._make = make
        self._task: asyncio.Task[Any] | None = None
        self.answer = Answer()

    def start(self) -> None:
        """In the loop. Does nothing when it was abandoned before."""
        if not self.answer.done:
            self._task = asyncio.get_running_loop().create_task(self._make())
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._task = None  # not to be freed in the other thread: its weakrefs' callbacks would swallow a Ctrl-C
        if task.cancelled():
            self.fail()
        elif (error := task.exception()) is not None:
            self.answer.set(error=error)
        else:
            self.answer.set(task.result())

    def fail(self) -> None:
        """In the loop, or after its end: nobody else will answer."""
        self.answer.set(error=Disconnected("the bus was closed"))

    def abandon(self) -> None:
        """In the loop: nobody waits any more."""
        if self._task is not None:
            self._task.cancel()
        else:
            self.fail()


Publish = tuple[str, int, bytes]  # topic, kind, body
Post = Callable[[], None]  # nobody waits for it


class Outbox:
    """What threads hand to the loop, in order. The loop is woken only if it waits; publishes are bounded."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._entries: list[Publish | Call | Post] = []
        self._calls: set[Call] = set()  # not answered yet
        self._size = 0
        self._asleep = True
        self._ended = False
        self._lock = threading.Lock()
        self._waiting: list[Answer] = []  # of threads, for room

    def publish(self, entry: Publish, timeout: float | None) -> None:
        """Append, when there is room; raises DeadlineExceeded when there is none in time."""
        while True:
            with self._lock:
                self._check()
                if self._size < OUTBOX:
                    self._size += len(entry[2]) + BODY_OVERHEAD
                    self._append(entry)
                    return
                room = Answer()
                self._waiting.append(room)
            started = time.monotonic()
            try:
                room.wait(timeout)
            except TimeoutError:
                late = f"no room for another message within {timeout:g} s; this one was not sent"
                raise DeadlineExceeded(late) from None
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - started))

    def post(self, entry: Post) -> None:
        """Append what the loop is to do; raises Disconnected when it does nothing any more."""
        with self._lock:
            self._check()
            self._append(entry)

    def call(self, call: Call, *, ordered: bool) -> None:
        """Append a call, or with `ordered` False only see to it that it is answered; its thread waits.

        The thread says `forget` when it waits no more.
        """
        with self._lock:
            self._check()
            self._calls.add(call)
            if ordered:
                self._append(call)

    def forget(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self._calls.discard(call)

    def _append(self, entry: Publish | Call | Post) -> None:
        self._entries.append(entry)
        if self._asleep:
            self._wake()
            self._asleep = False  # last: interrupted before, the next entry wakes it once more

    def take(self) -> list[Publish | Call | Post]:
        """Everything, for the loop. When there is nothing, the next entry wakes it."""
        with self._lock:
            taken, self._entries = self._entries, []
            waiting, self._waiting = self._waiting, []
            self._asleep = not taken
            self._size = 0
        for room in waiting:
            room.set()
        return taken

    def end(self) -> None:
        """The loop takes nothing any more: whoever waits is told."""
        with self._lock:
            self._ended = True
        for room in self._waiting:
            room.set()
        for call in tuple(self._calls):
            call.fail()

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
