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


class NatsClient:
    """`benchmarks.client.Client` over nats-py."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
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
        yield NatsClient(connection)
    finally:
        await connection.close()
