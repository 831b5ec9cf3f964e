"""Publish: send messages to whoever subscribes now.

    python examples/subscribe.py &
    python examples/publish.py

Without --url the addresses in QULO_URL are tried, then this host's own hub.
"""

from __future__ import annotations

import argparse
import asyncio

import qulo


async def main() -> None:
    parser = argparse.ArgumentParser(description="publish some temperatures")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--count", type=int, default=5, help="how many")
    options = parser.parse_args()

    async with qulo.connect(options.url) as bus:
        for number in range(options.count):
            # A body is bytes, or any value that msgpack can hold.
            await bus.publish("sensors.kitchen", {"number": number, "celsius": 20 + number / 10})
        await bus.flush()  # returns when the hub has everything
    print(f"published {options.count} messages on sensors.kitchen")


if __name__ == "__main__":
    asyncio.run(main())
