"""One of several that talk to all others until somebody says stop: each is publisher and subscriber at once.

    talker.py NAME TALKERS LEAST

Says "ready" when it is subscribed to flow.>, and waits for flow.start. Then publishes 0, 1, 2, … on flow.NAME, in
batches that it awaits the hub's acknowledgement for, until flow.stop has come and LEAST messages are published. The
last thing it says is "end". When it has the end of all TALKERS it prints what it sent and what it got, one JSON line
each, for `tests.functional.talk.check`:

    ["sent", NUMBER, [[FIRST, LAST], …]]     how many, and those whose outcome it was told to be unknown
    ["got", PUBLISHER, NUMBER]               in the order in which they came; NUMBER is "end" at the end
    ["gap", PATTERN, REASON]                 in its place among them

It must never stop by a time that passes: the story says when.
"""

from __future__ import annotations

import asyncio
import json
import sys

import qulo

# Messages between two acknowledgements, and seconds between two batches: some 1,500 messages a second. Enough for
# every moment of a fault to have some under way, little enough for many talkers on one core.
BATCH, PAUSE = 20, 0.01

# Seconds: an acknowledgement may take as long as the longest fault, and as long for the end of the last talker.
PATIENCE = 60.0


async def publish(bus: qulo.Bus, topic: str, stop: asyncio.Event, least: int) -> tuple[int, list[tuple[int, int]]]:
    """Publish until told to stop; how many, and which of them have an unknown outcome."""
    number, unknown = 0, []
    while number < least or not stop.is_set():
        first = number
        for number in range(first, first + BATCH):
            await bus.publish(topic, number)
        number += 1
        try:
            await bus.flush(PATIENCE)
        except qulo.OutcomeUnknown:
            unknown.append((first, number - 1))
        await asyncio.sleep(PAUSE)
    return number, unknown


async def main(name: str, talkers: int, least: int) -> None:
    got: list[tuple[str, ...]] = []
    ended: set[str] = set()
    start, stop, all_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def take(message: qulo.Message) -> None:
        who = message.topic.removeprefix("flow.")
        if who in ("start", "stop"):
            (start if who == "start" else stop).set()
            return
        got.append(("got", who, message.body))
        if message.body == "end":
            ended.add(who)
            if len(ended) == talkers:
                all_ended.set()

    async with qulo.connect(name=f"talker.{name}") as bus:
        await bus.subscribe("flow.>", take, on_gap=lambda gap: got.append(("gap", gap.pattern, gap.reason)))
        print("ready", flush=True)
        await start.wait()
        sent, unknown = await publish(bus, f"flow.{name}", stop, least)
        await bus.publish(f"flow.{name}", "end")
        await asyncio.wait_for(all_ended.wait(), PATIENCE)
    print(json.dumps(["sent", sent, unknown]))
    for item in got:
        print(json.dumps(item))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
