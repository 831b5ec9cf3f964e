"""nats-py, used the fastest way it has.

Callback subscriptions (the iterator is several times slower, `next_msg` slower still), pending limits lifted
so that the client drops nothing, subjects not validated on every publish, and a publisher that flushes after
every burst, which bounds what it holds and costs nothing measurable.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import Any

import nats
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from benchmarks.cases import Style
from benchmarks.client import Tally
from benchmarks.jobs import Endpoint

_NO_LIMIT = 0  # how nats-py spells it, for both of its pending limits

# A flush waits for the server to have read everything; the driver's deadline comes first.
_FLUSH_TIMEOUT = 60


_STREAM = "BENCH"

# Messages per pull: larger ones are no faster.
_PULLED = 500


class NatsClient:
    """`benchmarks.client.Client` over nats-py."""

    def __init__(self, connection: Connection, fsync: bool) -> None:
        self._connection = connection
        self._fsync = fsync
        self.publish = connection.publish
        self.request = connection.request
        self.flush = partial(connection.flush, _FLUSH_TIMEOUT)
        self.pause = self.flush
        self.body_of = attrgetter("data")

    @asynccontextmanager
    async def counting(self, pattern: str, style: Style, tally: Tally) -> AsyncIterator[None]:
        """Count by callback or by iterator."""
        async with self._called(pattern, tally) if style == "callback" else self._iterated(pattern, tally):
            yield

    @asynccontextmanager
    async def _called(self, pattern: str, tally: Tally) -> AsyncIterator[None]:
        # nats-py wants a coroutine function; it does what Tally.add does, to spare NATS a second call.
        async def add(_message: Msg) -> None:
            tally.count += 1
            if tally.count == tally.expected:
                tally.finish()

        await self._subscribe(pattern, cb=add)
        yield

    @asynccontextmanager
    async def _iterated(self, pattern: str, tally: Tally) -> AsyncIterator[None]:
        subscription = await self._subscribe(pattern)

        async def count() -> None:
            async for message in subscription.messages:
                tally.add(message)

        task = asyncio.create_task(count())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    @asynccontextmanager
    async def echoing(self, topic: str) -> AsyncIterator[None]:
        """Answer with the body that came."""
        publish = self._connection.publish

        async def answer(message: Msg) -> None:
            await publish(message.reply, message.data)

        await self._subscribe(topic, cb=answer)
        yield

    async def make_stream(self, topic: str) -> None:
        """In a file, which is the default."""
        await self._connection.jetstream().add_stream(name=_STREAM, subjects=[topic])

    async def put_all(self, topic: str, body: bytes, count: int, in_flight: int) -> None:
        """`publish_async` where the server does not sync; with fsync one task for each in flight is faster."""
        if self._fsync or in_flight == 1:
            publish, tickets = self._connection.jetstream().publish, iter(range(count))

            async def put_each() -> None:
                for _ in tickets:
                    await publish(topic, body)

            await asyncio.gather(*(put_each() for _ in range(in_flight)))
            return
        context = self._connection.jetstream(publish_async_max_pending=in_flight)
        for _ in range(count):
            await context.publish_async(topic, body)
        await context.publish_async_completed()

    async def consume_all(self, topic: str, count: int, push: bool) -> None:
        """Pull in batches, or take what is pushed."""
        if push:
            await self._take_pushed(topic, count)
        else:
            subscription = await self._connection.jetstream().pull_subscribe(topic, "bench", stream=_STREAM)
            left = count
            while left > 0:
                for message in await subscription.fetch(_PULLED):
                    await message.ack()
                    left -= 1
        await self._connection.flush()

    async def _take_pushed(self, topic: str, count: int) -> None:
        done = asyncio.Event()
        left = count

        async def take(message: Msg) -> None:
            nonlocal left
            await message.ack()
            left -= 1
            if not left:
                done.set()

        await self._connection.jetstream().subscribe(
            topic,
            cb=take,
            durable="bench",
            stream=_STREAM,
            manual_ack=True,
            pending_msgs_limit=_NO_LIMIT,
            pending_bytes_limit=_NO_LIMIT,
        )
        await done.wait()

    async def _subscribe(self, pattern: str, **options: Any) -> Subscription:
        subscription = await self._connection.subscribe(
            pattern, pending_msgs_limit=_NO_LIMIT, pending_bytes_limit=_NO_LIMIT, **options
        )
        # nats-py writes a flush's PING ahead of commands it still holds back, here ahead of SUB. The first
        # flush sees SUB written, the answer to the second comes after the server has read it.
        await self._connection.flush()
        await self._connection.flush()
        return subscription


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[NatsClient]:
    """A client connected to nats-server."""
    tls = None if endpoint.server_key is None else ssl.create_default_context(cafile=endpoint.server_key)
    connection = await nats.connect(endpoint.url, allow_reconnect=False, skip_subject_validation=True, tls=tls)
    try:
        yield NatsClient(connection, endpoint.fsync)
    finally:
        await connection.close()
