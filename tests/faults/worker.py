"""A consumer that writes its history: what it was given, what it settled, and what of that it knows to be on disk.

    python -m tests.faults.worker URL HISTORY NAME STREAM GROUP PACE

PACE is the milliseconds that a batch takes it. One message in a hundred it gives back once, one in a thousand it
rejects: which, its key decides. It ends by SIGINT.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import qulo
from tests.history.events import INVOKE, OK, UNKNOWN, Event, Writer

# Messages that it takes at a time, and at most has.
BATCH, PREFETCH = 100, 200

LEASE = 10.0

# Seconds between two looks whether what was settled is on disk.
FLUSH_EVERY = 0.3

ONCE_BACK, REJECTED = 100, 1000


class Worker:
    """One member of a group."""

    def __init__(self, write: Writer, name: str, stream: str, group: str, pace: float) -> None:
        self._write = write
        self._event = Event(0, name, "", stream=stream, group=group)
        self._pace = pace
        self._flushed = time.monotonic()
        self.stopped = False

    async def work(self, work: Any) -> None:
        """Until it is told to stop."""
        while not self.stopped:
            batch = await work.fetch(BATCH, timeout=0.2)
            now = time.monotonic()
            for message in batch:
                self._write(self._of(message, "deliver")._replace(t=now, lease=LEASE, redelivered=message.redelivered))
            self._write.flush()  # what is settled below was delivered, whatever happens to us
            if batch and self._pace:
                await asyncio.sleep(self._pace)
            for message in batch:
                await self._settle(message)
            self._write.flush()
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                await self._flush(work)
        await self._flush(work)

    def _of(self, message: Any, op: str) -> Event:
        key = message.body.split(b" ", 1)[0].decode()
        return self._event._replace(op=op, key=key, topic=message.topic, seq=message.seq)

    async def _settle(self, message: Any) -> None:
        event = self._of(message, "ack")
        chance = zlib.crc32(event.key.encode())
        if chance % REJECTED == 0:
            self._write(event._replace(t=time.monotonic(), op="reject", phase=INVOKE))
            await message.reject("the worker does not want it")
        elif chance % ONCE_BACK == 1 and not message.redelivered:
            self._write(event._replace(t=time.monotonic(), op="nak", phase=INVOKE))
            await message.nak(0.1)
        else:
            self._write(event._replace(t=time.monotonic(), phase=INVOKE))
            await message.ack()

    async def _flush(self, work: Any) -> None:
        self._flushed = time.monotonic()
        self._write(self._event._replace(t=self._flushed, op="flush", phase=INVOKE))
        phase = OK
        try:
            await work.flush(5)
        except (qulo.QuloError, TimeoutError):
            phase = UNKNOWN
        self._write(self._event._replace(t=time.monotonic(), op="flush", phase=phase))
        self._write.flush()


async def main(url: str, history: str, name: str, stream: str, group: str, pace: float) -> None:
    """Until SIGINT."""
    logging.disable()
    write = Writer(Path(history))
    worker = Worker(write, name, stream, group, pace)

    def stop() -> None:
        worker.stopped = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
    async with (
        qulo.connect(url, name=name, timeout=None) as bus,
        bus.consume(stream, group=group, prefetch=PREFETCH, lease=LEASE) as work,
    ):
        await worker.work(work)
    write.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        url, history, name, stream, group, pace = sys.argv[1:]
        asyncio.run(main(url, history, name, stream, group, float(pace) / 1000))
