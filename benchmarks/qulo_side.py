"""qulo's client, used as its documentation shows; flow control is the library's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import qulo
from benchmarks.cases import Style
from benchmarks.client import Tally
from benchmarks.jobs import Endpoint

_STREAM = "BENCH"

# As many as JetStream lets a consumer have unacknowledged by default.
_PREFETCH = 1000


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

    async def make_stream(self, topic: str) -> None:
        """As `qulo stream add BENCH TOPIC` does."""
        await self._bus.request("$qulo.stream.add", {"name": _STREAM, "topics": [topic]})

    async def put_all(self, topic: str, body: bytes, count: int, in_flight: int) -> None:
        """One task for each in flight."""
        put, tickets = self._bus.put, iter(range(count))

        async def put_each() -> None:
            for _ in tickets:
                await put(topic, body)

        await asyncio.gather(*(put_each() for _ in range(in_flight)))

    async def consume_all(self, topic: str, count: int, push: bool) -> None:
        """Every ack is on disk when this returns; that the hub pushes is its only way."""
        async with self._bus.consume(_STREAM, group="bench", prefetch=_PREFETCH) as work:
            left = count
            async for message in work:
                await message.ack()
                left -= 1
                if not left:
                    break
            await work.flush()


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[QuloClient]:
    """A client connected to the hub, with CURVE where the endpoint has keys."""
    async with qulo.connect(endpoint.url, server_key=endpoint.server_key, key=endpoint.key) as bus:
        yield QuloClient(bus)
