"""A subscriber that writes its history: what it received, and where it was told that something is missing.

    python -m tests.faults.subscriber URL HISTORY NAME PATTERN PACE

PACE is the milliseconds that a message takes it: one that is too slow for what comes gets gaps. Told to stop by SIGINT
it is as quick as it can, and ends when nothing more comes.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import qulo
from tests.history.events import Event, Writer

# Seconds between two looks whether to stop.
LOOK = 0.3

# Seconds without a message after which nothing more comes: the session of an agent that died has expired.
SILENCE = 10.0


async def listen(
    subscription: qulo.Subscription, write: Writer, name: str, pace: float, stopped: asyncio.Event
) -> None:
    """One message after the other."""
    came = time.monotonic()
    while not stopped.is_set() or time.monotonic() - came < SILENCE:
        try:
            item = await subscription.next(LOOK)
        except qulo.DeadlineExceeded:
            write.flush()
            continue
        came = time.monotonic()
        if isinstance(item, qulo.Gap):
            write(Event(time.monotonic(), name, "gap", topic=item.pattern, reason=item.reason))
        else:
            write(Event(time.monotonic(), name, "receive", key=item.body.split(b" ", 1)[0].decode(), topic=item.topic))
        if pace and not stopped.is_set():
            write.flush()
            await asyncio.sleep(pace)


async def main(url: str, history: str, name: str, pattern: str, pace: float) -> None:
    """Until SIGINT."""
    logging.disable()
    write = Writer(Path(history))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    async with qulo.connect(url, name=name, timeout=None) as bus, bus.subscribe(pattern) as subscription:
        write(Event(time.monotonic(), name, "subscribe", topic=pattern))
        write.flush()
        await listen(subscription, write, name, pace, stopped)
        write(Event(time.monotonic(), name, "unsubscribe", topic=pattern))
    write.close()


if __name__ == "__main__":
    url, history, name, pattern, pace = sys.argv[1:]
    asyncio.run(main(url, history, name, pattern, float(pace) / 1000))
