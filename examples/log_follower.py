"""Follow a log file as `tail -F` does, and publish each new line on logs.<name>.

    python examples/subscribe.py 'logs.>' &
    python examples/log_follower.py /var/log/syslog

It survives rotation (the file is renamed and made anew) and truncation, waits for a file that is not there yet,
and publishes only whole lines.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import qulo

# Seconds between two looks at the file: soon enough for a reader, and next to nothing for the host.
LOOK_AGAIN = 0.2


class Follower:
    """The lines of a file, whatever happens to it. `lines` gives what is new since the last call."""

    def __init__(self, path: Path, *, from_start: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""  # a line whose end is not written yet
        self._open()
        if self._file is not None and not from_start:
            self._file.seek(0, os.SEEK_END)

    def lines(self) -> Iterator[bytes]:
        """New lines, without their ends. The old file is read to its end before the new one is begun."""
        yield from self._read()
        if self._was_replaced():
            yield from self._read()  # written between reading and looking
            self.close()
            self._open()
            yield from self._read()

    def close(self) -> None:
        """Close the file; a rest without an end of line is given up."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._rest = b""

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None

    def _was_replaced(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False  # renamed, and the new one is not made yet
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def _read(self) -> Iterator[bytes]:
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # truncated
            self._file.seek(0)
            self._rest = b""
        for piece in self._file:
            self._rest += piece
            if self._rest.endswith(b"\n"):
                yield self._rest.rstrip(b"\r\n")
                self._rest = b""


async def follow(follower: Follower) -> AsyncIterator[bytes]:
    """Its lines, as they come, for ever."""
    while True:
        for line in follower.lines():
            yield line
        await asyncio.sleep(LOOK_AGAIN)


async def main() -> None:
    parser = argparse.ArgumentParser(description="publish the lines of a growing file")
    parser.add_argument("path", type=Path, help="the file; it need not exist yet")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--from-start", action="store_true", help="also what it holds already")
    parser.add_argument("--count", type=int, help="end after so many lines")
    options = parser.parse_args()

    # A topic's tokens have no dots and no spaces: /var/log/my app.log becomes logs.my-app.
    topic = "logs." + re.sub(r"[^A-Za-z0-9_-]+", "-", options.path.stem)
    follower = Follower(options.path, from_start=options.from_start)
    published = 0
    async with qulo.connect(options.url) as bus:
        print(f"publishing {options.path} on {topic}", flush=True)
        async for line in follow(follower):
            await bus.publish(topic, line)
            published += 1
            if options.count is not None and published >= options.count:
                break
    follower.close()


if __name__ == "__main__":
    asyncio.run(main())
