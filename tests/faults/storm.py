"""A thousand programs that connect at one time, and go without a word.

    python -m tests.faults.storm URL COUNT

Says "ready" when all are connected, and ends with its stdin, by _exit: no BYE.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys

from qulo.net.link import LinkDriver
from qulo.net.socket import make_context
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.ports import Limits


async def main(url: str, count: int) -> None:
    """Connect all, and be gone."""
    logging.disable()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    context = make_context()
    drivers = []
    for number in range(count):
        link = Link(Identity(b"", f"storm-{number}"), Limits())
        drivers.append(LinkDriver(link, [url], context, lambda _events, _items: None))
        drivers[-1].start()
    while True:
        await asyncio.sleep(0.01)
        if all(driver.link.phase is Phase.UP for driver in drivers):
            break
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
