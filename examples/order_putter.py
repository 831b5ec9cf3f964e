"""Put orders into a stream: what was said to be stored is on disk, and is stored once however often it is put.

    python examples/order_putter.py --orders 10

Start as many examples/order_worker.py as you like, before or after.
"""

from __future__ import annotations

import argparse
import asyncio

import qulo


async def main() -> None:
    parser = argparse.ArgumentParser(description="put orders into the stream ORDERS")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--orders", type=int, default=10)
    options = parser.parse_args()

    async with qulo.connect(options.url) as bus:

        async def order(number: int) -> qulo.Stored:
            """Until it is known to be stored. With the same id a second try stores nothing twice."""
            while True:
                try:
                    return await bus.put("orders.new", {"id": number}, id=f"order {number}")
                except qulo.OutcomeUnknown:
                    print(f"order {number}: the connection was lost, again")

        try:
            stored = await asyncio.gather(*(order(number) for number in range(options.orders)))
        except qulo.NoStream:
            raise SystemExit("no stream yet: qulo stream add ORDERS 'orders.>' --keep work") from None
    new = sum(not each.duplicate for each in stored)
    print(f"{new} orders are stored, {len(stored) - new} were there already")


if __name__ == "__main__":
    asyncio.run(main())
