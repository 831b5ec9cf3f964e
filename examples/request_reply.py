"""Request and reply: ask a question, get one answer or an error that says why not.

    python examples/request_reply.py

Both sides are here; usually they are two programs.
"""

from __future__ import annotations

import argparse
import asyncio
import os

import qulo


async def load(message: qulo.Message) -> dict[str, float]:
    """Answer with the load of this host. A handler may be plain or async; what it raises reaches the asker."""
    if message.body != "load":
        raise ValueError(f"expected 'load', got {message.body!r}")
    one, five, fifteen = os.getloadavg()
    return {"1 min": one, "5 min": five, "15 min": fifteen}


async def main() -> None:
    parser = argparse.ArgumentParser(description="ask this host for its load")
    parser.add_argument("--url", help="the hub's address")
    options = parser.parse_args()

    async with qulo.connect(options.url) as bus:
        async with bus.respond("host.load", load):
            print("load:", await bus.request("host.load", "load", timeout=2.0))
            try:
                await bus.request("host.load", "weather")
            except qulo.HandlerError as error:
                print("refused:", error)
        try:
            await bus.request("host.load", "load")
        except qulo.NoResponders as error:
            print("then:", error)  # at once, not after a timeout


if __name__ == "__main__":
    asyncio.run(main())
