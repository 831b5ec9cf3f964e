"""Subscribe: get what is published on a pattern, in order; what was missed for good comes as a Gap in its place.

    python examples/subscribe.py &
    python examples/publish.py

A pattern is a topic in which * stands for one token and > for all the rest.
"""

from __future__ import annotations

import argparse
import asyncio

import qulo


async def main() -> None:
    parser = argparse.ArgumentParser(description="print what is published")
    parser.add_argument("pattern", nargs="?", default="sensors.>")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--count", type=int, default=5, help="end after so many messages")
    options = parser.parse_args()

    left = options.count
    async with qulo.connect(options.url) as bus, bus.subscribe(options.pattern) as subscription:
        async for item in subscription:
            if isinstance(item, qulo.Gap):
                print(f"missed messages on {item.pattern}: {item.reason}", flush=True)
                continue
            print(item.topic, item.body, flush=True)
            left -= 1
            if left <= 0:
                break


if __name__ == "__main__":
    asyncio.run(main())
