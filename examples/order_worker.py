"""Work off the stream ORDERS: each order goes to one worker, and comes again until one has done it.

    python examples/order_worker.py --orders 10

Start it on any host, several times if there is much to do. A worker that dies gives its orders back.
"""

from __future__ import annotations

import argparse
import asyncio

import qulo


async def bill(order: dict[str, int]) -> None:
    """The work; it may happen twice for one order (after a crash), so it should do no harm then."""
    if order["id"] % 5 == 4:
        raise ValueError(f"order {order['id']} has no address")


async def main() -> None:
    parser = argparse.ArgumentParser(description="work off the stream ORDERS")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--orders", type=int, help="end after so many")
    options = parser.parse_args()

    done = 0
    async with qulo.connect(options.url) as bus, bus.consume("ORDERS", group="billing", prefetch=10) as work:
        async for message in work:
            try:
                await bill(message.body)
            except ValueError as error:
                await message.reject(str(error))  # to the dead letters: `qulo dead ls`
                print(f"{message.topic} {message.seq}: {error}")
            else:
                await message.ack()
            done += 1
            if done == options.orders:
                break
        await work.flush()  # all of that is on the hub's disk
    print(f"{done} orders are done with")


if __name__ == "__main__":
    asyncio.run(main())
