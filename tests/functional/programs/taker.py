"""A consumer of the stream ORDERS: takes and acknowledges until it is interrupted.

    taker.py GROUP

Says "ready" when it is a member, and prints one JSON line for each message: [topic, number, redelivered].
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import qulo


async def main(group: str) -> None:
    async with qulo.connect(name=f"taker.{group}") as bus, bus.consume("ORDERS", group=group, lease=5) as work:
        print("ready", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: asyncio.ensure_future(work.close()))
        async for message in work:
            print(json.dumps([message.topic, message.body, message.redelivered]), flush=True)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
