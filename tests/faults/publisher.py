"""A publisher that writes its history: what it published, and what of that its hub has acknowledged.

    python -m tests.faults.publisher URL HISTORY NAME TOPIC

It ends by SIGINT. The body of a message is its key, and a kilobyte. It must never publish what it has not announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path

import qulo
from tests.history.events import INVOKE, OK, UNKNOWN, Event, Writer

# Messages between two acknowledgements, and seconds between two batches: 200 a second. Enough for every fault to have
# some under way, few enough for the machine to be busy with the streams.
BATCH, PAUSE = 5, 0.025

# Big enough for the buffer of a slow subscriber to be full in seconds.
PADDING = b" " * 1000

# Of an acknowledgement: longer than the longest fault.
TIMEOUT = 60.0


async def publish(bus: qulo.Bus, write: Writer, name: str, topic: str, stopped: asyncio.Event) -> None:
    """One batch after the other."""
    number = 0
    while not stopped.is_set():
        batch = [f"{name}-{number + offset}" for offset in range(1, BATCH + 1)]
        for offset, key in enumerate(batch, 1):
            write(Event(time.monotonic(), name, "publish", INVOKE, key=key, topic=topic, n=number + offset))
        write.flush()
        number += BATCH
        for key in batch:
            await bus.publish(topic, key.encode() + PADDING)
        write(Event(time.monotonic(), name, "flush", INVOKE))
        phase = OK
        try:
            await bus.flush(TIMEOUT)
        except (qulo.QuloError, TimeoutError):
            phase = UNKNOWN
        write(Event(time.monotonic(), name, "flush", phase))
        write.flush()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), PAUSE)


async def main(url: str, history: str, name: str, topic: str) -> None:
    """Until SIGINT."""
    logging.disable()
    write = Writer(Path(history))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    async with qulo.connect(url, name=name, timeout=None) as bus:
        await publish(bus, write, name, topic, stopped)
    write.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
