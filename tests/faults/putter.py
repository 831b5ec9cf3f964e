"""A producer that writes its history: every put begun, and what came of it; what is unknown is put again with its id.

    python -m tests.faults.putter URL HISTORY NAME TOPIC IN_FLIGHT

It ends by SIGINT, when every put is answered. The body of a message is its key, and some more bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import sys
import time
from pathlib import Path

import qulo
from tests.history.events import FAIL, INVOKE, OK, UNKNOWN, Event, Writer

PADDING = b" " * 80

# Of a put: longer than the longest fault.
TIMEOUT = 60.0

# Refused is what the store has no room for: asked again soon enough to see it have some.
REFUSED_PAUSE = 0.2


class Putter:
    """Keeps so many puts under way."""

    def __init__(self, bus: qulo.Bus, write: Writer, name: str, topic: str) -> None:
        self._bus, self._write, self._name, self._topic = bus, write, name, topic
        self._numbers = itertools.count(1)
        self.stopped = False

    async def work(self) -> None:
        """One put after another."""
        while not self.stopped:
            await self._put(next(self._numbers))

    async def _put(self, n: int) -> None:
        key = f"{self._name}-{n}"
        event = Event(0, self._name, "put", key=key, topic=self._topic, n=n, id=key)
        body = key.encode() + PADDING
        while True:
            self._say(event, INVOKE)
            self._write.flush()
            try:
                stored = await self._bus.put(self._topic, body, id=key, timeout=TIMEOUT)
            except (qulo.StoreFull, qulo.NoStream, qulo.Denied):
                self._say(event, FAIL)
                await asyncio.sleep(REFUSED_PAUSE)
                return
            except qulo.QuloError:
                self._say(event, UNKNOWN)
                await asyncio.sleep(REFUSED_PAUSE)
                continue
            stream, seq, duplicate, at = stored
            self._say(event._replace(stream=stream, seq=seq, duplicate=duplicate, at=at), OK)
            return

    def _say(self, event: Event, phase: str) -> None:
        self._write(event._replace(t=time.monotonic(), phase=phase))


async def main(url: str, history: str, name: str, topic: str, in_flight: int) -> None:
    """Until SIGINT."""
    logging.disable()  # that connections are lost is what this is about
    write = Writer(Path(history))
    async with qulo.connect(url, name=name, timeout=None) as bus:
        putter = Putter(bus, write, name, topic)

        def stop() -> None:
            putter.stopped = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
        await asyncio.gather(*(putter.work() for _ in range(in_flight)))
    write.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        url, history, name, topic, in_flight = sys.argv[1:]
        asyncio.run(main(url, history, name, topic, int(in_flight)))
