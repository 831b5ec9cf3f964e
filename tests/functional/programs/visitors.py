"""Programs that come and go, one after the other, as visitor-0, visitor-1, …: each is a line of the hub's log.

Says "ready" after the first, and by Ctrl-C how many there were.
"""

from __future__ import annotations

import asyncio
import itertools
import signal

import qulo


async def main() -> None:
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)
    for number in itertools.count():
        async with qulo.connect(name=f"visitor-{number}"):
            pass
        if number == 0:
            print("ready", flush=True)
        if enough.is_set():
            print(number + 1)
            return


if __name__ == "__main__":
    asyncio.run(main())
