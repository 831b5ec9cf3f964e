"""Signals become items of one queue; whoever reads the queue acts on them, one after the other.

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


def hold() -> None:
    """Let the handled signals wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


@contextlib.contextmanager
def listen() -> Iterator[asyncio.Queue[signal.Signals]]:
    """The queue of the running loop's signals, from those that `hold` kept waiting on."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in HANDLED:
        loop.add_signal_handler(number, queue.put_nowait, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    try:
        yield queue
    finally:
        hold()  # the way out takes its time too, and must not be cut short by the default action
        for number in HANDLED:
            loop.remove_signal_handler(number)
