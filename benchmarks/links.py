"""Many links in one process, as many agents would be: each with a key of its own, all back after a hub's restart.

    python -m benchmarks.links URL SERVER_KEY DIRECTORY FIRST COUNT

The keys are DIRECTORY/NUMBER.key. It speaks with the driver as `benchmarks.peers` does: "ready" when all are connected,
and after "go" the time at which all of them had been away and were back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qulo.net.curve import load_key, load_public
from qulo.net.link import LinkDriver, Security
from qulo.net.socket import make_context
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.ports import Limits

_POLL = 0.005


class _Returning:
    """One link, and whether it has lost its hub since `go`."""

    def __init__(self, driver: LinkDriver) -> None:
        self.driver = driver
        self.was_away = False
        driver.disconnected = self._away

    def _away(self) -> None:
        self.was_away = True

    @property
    def is_up(self) -> bool:
        return self.driver.link.phase is Phase.UP


async def _until(condition: Callable[[], bool]) -> None:
    """The driver has the deadline."""
    while True:
        if condition():
            return
        await asyncio.sleep(_POLL)


async def _work(url: str, server: bytes, directory: Path, numbers: range) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))  # several descriptors for each link
    context = make_context()
    links: list[_Returning] = []
    for number in numbers:
        link = Link(Identity(b"", f"link-{number}"), Limits())
        security = Security(server, load_key(directory / f"{number}.key"))
        links.append(_Returning(LinkDriver(link, [url], context, lambda _events, _items: None, security)))
        links[-1].driver.start()
    await _until(lambda: all(link.is_up for link in links))
    for each in links:
        each.was_away = False
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await _until(lambda: all(link.is_up and link.was_away for link in links))
    print(json.dumps({"last_ns": time.monotonic_ns()}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(link.driver.close() for link in links))
    context.term()


if __name__ == "__main__":
    logging.disable()  # a thousand connections are lost, as they shall be
    first, count = int(sys.argv[4]), int(sys.argv[5])
    asyncio.run(_work(sys.argv[1], load_public(sys.argv[2]), Path(sys.argv[3]), range(first, first + count)))
