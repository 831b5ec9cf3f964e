"""A producer: puts numbers into a stream until it is interrupted, and knows what became of each.

    putter.py NAME LEAST

Says "ready" when it is connected, waits for say.start, then puts 0, 1, 2, … on orders.NAME, with some under way at a
time, until Ctrl-C has come and LEAST are put. An unknown outcome is put again with its id. The last line is JSON:
{"put": how many, "at": {where: how many}, "again": how many were put more than once}.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter

import qulo

# Under way at a time, and seconds between two batches of that: some hundred a second, at every moment of a fault some.
BATCH, PAUSE = 20, 0.05

PATIENCE = 60.0


async def put(bus: qulo.Bus, name: str, number: int, at: Counter[str]) -> int:
    """Put it until the answer is known; how often it took."""
    for tries in range(1, 100):
        try:
            stored = await bus.put(f"orders.{name}", number, id=f"{name}-{number}", timeout=PATIENCE)
        except (qulo.OutcomeUnknown, qulo.Disconnected):
            continue
        at[stored.at] += 1
        return tries
    raise AssertionError(f"{number} was never answered")


async def main(name: str, least: int) -> None:
    start, stop = asyncio.Event(), asyncio.Event()
    async with qulo.connect(name=f"putter.{name}") as bus:
        await bus.subscribe("say.start", lambda _: start.set())
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print("ready", flush=True)
        await start.wait()
        number, again = 0, 0
        at: Counter[str] = Counter()
        while number < least or not stop.is_set():
            batch = range(number, number + BATCH)
            tries = await asyncio.gather(*(put(bus, name, each, at) for each in batch))
            again += sum(each > 1 for each in tries)
            number = batch.stop
            await asyncio.sleep(PAUSE)
    print(json.dumps({"put": number, "at": at, "again": again}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
