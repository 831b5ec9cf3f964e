"""What a program has registered at its hub: subscriptions and responders. Made by `Bus.subscribe` and `Bus.respond`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any, Protocol, Self

from qulo.client.message import Handler, Message, decode_body, encode_body
from qulo.errors import (
    DeadlineExceeded,
    Disconnected,
    HandlerError,
    QuloError,
    UsageError,
)
from qulo.net.link import LinkDriver
from qulo.protocol import events, topics
from qulo.protocol import link as core
from qulo.protocol.tracker import Gap, Item
from qulo.protocol.wire import RAW

log = logging.getLogger("qulo")

# Requests that one responder's async handler works on at once.
CONCURRENT_CALLS = 1000


class Home(Protocol):
    """What a registration needs of the bus that it belongs to."""

    subscription_buffer: int
    _loop: asyncio.AbstractEventLoop
    _link: core.Link
    _driver: LinkDriver
    _registered: dict[int, Any]

    def _check_open(self) -> None: ...

    def _check_size(self, body: bytes) -> None: ...

    def _spawn(self, work: Any) -> asyncio.Task[None]: ...


class Registered:
    """What `subscribe` and `respond` return: await it or enter it, and it is confirmed by the hub."""

    def __init__(self, bus: Home, topic: str) -> None:
        self.topic = topic
        self._bus = bus
        self._sid = 0
        self._confirmed: asyncio.Future[None] | None = None

    async def _open(self) -> None:
        """Wait for the hub's answer; raises what the hub refused it with."""
        self._bus._check_open()
        self._confirmed = self._bus._loop.create_future()
        self._sid = self._register()
        self._bus._registered[self._sid] = self
        self._bus._driver.wake()
        try:
            await self._confirmed
        except BaseException:
            self._forget()
            raise

    def _register(self) -> int:
        raise NotImplementedError

    def _forget(self) -> None:
        if self._bus._registered.pop(self._sid, None) is not None:
            self._bus._link.close(self._sid)
            self._bus._driver.wake()

    def _settle(self, error: QuloError | None) -> None:
        """The hub confirmed or refused; later confirmations, after reconnecting, are no news."""
        future = self._confirmed
        if future is not None and not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    async def close(self) -> None:
        """End it; messages already received can still be read."""
        self._forget()

    def __await__(self) -> Generator[Any, None, Any]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Any:
        if self._confirmed is None:
            await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Subscription(Registered):
    """A subscription: iterate over it, or give it a handler. Yields Message, and Gap where something was missed."""

    def __init__(
        self,
        bus: Home,
        topic: str,
        handler: Handler | None,
        group: str | None,
        on_gap: Callable[[Gap], Any] | None,
    ) -> None:
        super().__init__(bus, topics.check_pattern(topic))
        self.group = group
        self.gaps = 0
        self._handler = handler
        self._on_gap = on_gap
        self._direct = handler is not None and not inspect.iscoroutinefunction(handler)
        self._queue: deque[Any] = deque()  # (topic, kind, bodies) or Gap
        self._queued = 0
        self._run: Iterator[Message] = iter(())  # what is left of the run that was begun
        self._closed = False
        self._error: QuloError | None = None  # the hub refused it after a reconnect
        self._readable = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._handler is not None and not self._direct and self._worker is None:
            self._worker = self._bus._spawn(self._work())
        return self

    def __await__(self) -> Generator[Any, None, Subscription]:
        return self.__aenter__().__await__()

    def __aiter__(self) -> AsyncIterator[Message | Gap]:
        return self._generate()

    async def next(self, timeout: float | None = None) -> Message | Gap:
        """The next message or gap; raises DeadlineExceeded after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while (item := self._pop()) is None:
                    await self._more()
                return item
        except TimeoutError:
            raise DeadlineExceeded(f"nothing came on {self.topic} within {timeout:g} s") from None

    async def close(self) -> None:
        """End the subscription; iteration ends after what has already come."""
        await super().close()
        self._end()

    def _end(self, error: QuloError | None = None) -> None:
        self._closed = True
        self._error = error
        self._readable.set()

    def _register(self) -> int:
        if self.group is not None:
            return self._bus._link.join(self.topic, self.group)
        tracker = self._bus._link.subscribe(self.topic)
        return tracker.sid

    async def _generate(self) -> AsyncIterator[Message | Gap]:
        """A generator may be left, or cancelled, anywhere: it keeps nothing, so that the next one goes on."""
        while True:
            for message in self._run:
                yield message
            item = self._pop()
            if item is not None:
                yield item
            elif self._closed and self._error is None:
                return
            else:
                await self._more()

    def _pop(self) -> Message | Gap | None:
        """The next of what has come; None when there is nothing."""
        while True:
            message = next(self._run, None)
            if message is not None or not self._queue:
                return message
            item = self._queue.popleft()
            if type(item) is Gap:
                return item
            topic, kind, bodies = item
            self._queued -= sum(map(len, bodies))
            self._run = map(partial(Message, topic) if kind == RAW else partial(decode_body, topic, kind), bodies)

    async def _more(self) -> None:
        """Wait until something has come; raises when nothing can come any more."""
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Disconnected("the subscription is closed")
        self._readable.clear()
        await self._readable.wait()

    async def _work(self) -> None:
        """Feed an async handler, one message at a time."""
        async for item in self:
            if isinstance(item, Gap):
                self._tell_gap(item)
                continue
            try:
                await self._handler(item)  # type: ignore[misc]
            except Exception:
                log.exception("the handler of %s failed", self.topic)

    def _take(self, item: Item) -> None:
        if type(item) is Gap:
            self._take_gap(item)
        else:
            self._take_run(item[0], item[1], item[2])  # type: ignore[index]

    def _take_run(self, topic: str, kind: int, bodies: list[bytes]) -> None:
        if self._direct:
            self._handle(topic, kind, bodies)
            return
        size = sum(map(len, bodies))
        if self._queued + size > self._bus.subscription_buffer:
            self._overflow()
            return
        self._queued += size
        self._queue.append((topic, kind, bodies))
        self._readable.set()

    def _handle(self, topic: str, kind: int, bodies: list[bytes]) -> None:
        handler = self._handler
        for body in bodies:
            message = Message(topic, body) if kind == RAW else decode_body(topic, kind, body)
            try:
                handler(message)  # type: ignore[misc]
            except Exception:
                log.exception("the handler of %s failed", self.topic)

    def _overflow(self) -> None:
        """The program is too slow for its own subscription: one Gap stands where messages were dropped."""
        last = self._queue[-1] if self._queue else None
        if not (type(last) is Gap and last.reason == "overflow"):
            self._take_gap(Gap(self.topic, self._bus._link.epoch, None, None, "overflow"))

    def _take_gap(self, gap: Gap) -> None:
        self.gaps += 1
        if self._direct:
            self._tell_gap(gap)
            return
        self._queue.append(gap)
        self._readable.set()

    def _tell_gap(self, gap: Gap) -> None:
        if self._on_gap is None:
            log.warning(
                "messages on %s were missed (%s); give subscribe an on_gap to handle that",
                gap.pattern,
                gap.reason,
            )
            return
        try:
            self._on_gap(gap)
        except Exception:
            log.exception("the on_gap of %s failed", self.topic)


class Responder(Registered):
    """Answers requests on a topic until it is closed."""

    def __init__(self, bus: Home, topic: str, handler: Handler) -> None:
        super().__init__(bus, topics.check_pattern(topic))
        self._handler = handler
        self._slots = asyncio.Semaphore(CONCURRENT_CALLS)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    def __await__(self) -> Generator[Any, None, Responder]:
        return self.__aenter__().__await__()

    def _register(self) -> int:
        return self._bus._link.respond(self.topic)

    def _call(self, call: events.Call) -> None:
        message = decode_body(call.topic, call.kind, call.body)
        try:
            answer = self._handler(message)
        except Exception as error:  # noqa: BLE001 - it is the asker's to handle
            self._fail(call.rid, error)
            return
        if hasattr(answer, "__await__"):
            self._bus._spawn(self._finish(call.rid, answer))
        else:
            self._reply(call.rid, answer)

    async def _finish(self, rid: int, answer: Awaitable[Any]) -> None:
        async with self._slots:
            try:
                value = await answer
            except Exception as error:  # noqa: BLE001 - it is the asker's to handle
                self._fail(rid, error)
                return
            self._reply(rid, value)

    def _reply(self, rid: int, value: Any) -> None:
        try:
            kind, data = encode_body(value)
            self._bus._check_size(data)
        except UsageError as error:
            self._fail(rid, error)
            return
        self._bus._link.reply(rid, "", kind, data)
        self._bus._driver.wake()

    def _fail(self, rid: int, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:1000]
        self._bus._link.reply(rid, HandlerError.code, RAW, text.encode())
        self._bus._driver.wake()
