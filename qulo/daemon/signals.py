"""Signals become items of one inbox; whoever reads it acts on them, one after the other.

A handler must never do more than enqueue. Between `hold` and `listen` signals wait in the kernel, so none
that comes during the start is lost and none kills a daemon that has not installed its handlers yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

RELOAD = signal.SIGHUP
REOPEN = signal.SIGUSR1
DUMP = signal.SIGUSR2
DRAIN = signal.SIGTERM
STOP = signal.SIGINT

HANDLED = frozenset({RELOAD, REOPEN, DUMP, DRAIN, STOP})

# One of these that still waits speaks for all that come until it is acted on: a flood of them delays no other.
# A second TERM or INT means something of its own.
_ONCE = frozenset({RELOAD, REOPEN, DUMP})


class Inbox:
    """The signals that wait to be acted on, in the order in which they came."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._waiting: set[signal.Signals] = set()

    def put(self, number: signal.Signals) -> None:
        """A signal has come."""
        if number not in self._waiting or number not in _ONCE:
            self._waiting.add(number)
            self._queue.put_nowait(number)

    async def get(self) -> signal.Signals:
        """The next one; what comes from now on is news."""
        number = await self._queue.get()
        self._waiting.discard(number)
        return number


def hold() -> None:
    """Let the handled signals wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


@contextlib.contextmanager
def listen() -> Iterator[Inbox]:
    """The inbox of the running loop's signals, from those that `hold` kept waiting on."""
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    for number in HANDLED:
        loop.add_signal_handler(number, inbox.put, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    try:
        yield inbox
    finally:
        hold()  # the way out takes its time too, and must not be cut short by the default action
        for number in HANDLED:
            loop.remove_signal_handler(number)
