"""qulo's client, used as its documentation shows; flow control is the library's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import qulo
from benchmarks.cases import Style
from benchmarks.client import Tally
from benchmarks.jobs import Endpoint


class QuloClient:
    """`benchmarks.client.Client` over qulo."""

    def __init__(self, bus: qulo.Bus) -> None:
        self._bus = bus
        self.publish = bus.publish
        self.request = bus.request
        self.flush = bus.flush
        self.body_of = bytes

    async def pause(self) -> None:
        """`publish` itself waits for the hub's acknowledgements where it must."""

    @asynccontextmanager
    async def counting(self, pattern: str, style: Style, tally: Tally) -> AsyncIterator[None]:
        """Count by plain callable or by iterator."""
        async with self._called(pattern, tally) if style == "callback" else self._iterated(pattern, tally):
            yield

    @asynccontextmanager
    async def _called(self, pattern: str, tally: Tally) -> AsyncIterator[None]:
        subscription = await self._bus.subscribe(pattern, tally.add, on_gap=tally.add_gap)
        yield
        await subscription.close()

    @asynccontextmanager
    async def _iterated(self, pattern: str, tally: Tally) -> AsyncIterator[None]:
        async with self._bus.subscribe(pattern) as subscription:

            async def count() -> None:
                async for item in subscription:
                    if isinstance(item, qulo.Gap):
                        tally.add_gap(item)
                    else:
                        tally.add(item)

            task = asyncio.create_task(count())
            yield
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @asynccontextmanager
    async def echoing(self, topic: str) -> AsyncIterator[None]:
        """Answer with the body that came."""
        async with self._bus.respond(topic, lambda message: message.body):
            yield


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[QuloClient]:
    """A client connected to the hub, with CURVE where the endpoint has keys."""
    async with qulo.connect(endpoint.url, server_key=endpoint.server_key, key=endpoint.key) as bus:
        yield QuloClient(bus)
