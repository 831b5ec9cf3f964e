"""The client: `connect()` gives a Bus, over which a program publishes, subscribes, requests and responds.

    async with qulo.connect() as bus:
        async with bus.subscribe("sensors.>") as sub:
            await bus.publish("sensors.kitchen", {"t": 21.5})
            async for msg in sub: ...

Everything lives in one event loop; the blocking front for other programs is `qulo.sync`. A Bus reconnects by
itself. What that cost is never silent: subscribers get a `Gap` in place, `flush` raises OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import re
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import msgpack

from qulo import config
from qulo._version import __version__
from qulo.errors import (
    BadBody,
    BadTopic,
    DeadlineExceeded,
    Disconnected,
    EndpointError,
    HandlerError,
    OutcomeUnknown,
    QuloError,
    TooLarge,
    UsageError,
    from_wire,
)
from qulo.net import curve
from qulo.net.link import LinkDriver, Security
from qulo.net.socket import make_context
from qulo.protocol import link as core
from qulo.protocol import topics
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Gap, Item, Tracker
from qulo.protocol.wire import HEADED, PACKED, RAW

log = logging.getLogger("qulo")

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})

# Bytes of bodies that wait in one subscription for a slow program; beyond it newer ones become a Gap in place.
SUBSCRIPTION_BUFFER = 64 * 1024 * 1024

# Requests that one responder's async handler works on at once.
CONCURRENT_CALLS = 1000

# Seconds that `connect` waits for the first session.
CONNECT_TIMEOUT = 5.0

# Seconds that closing waits for the hub to acknowledge what was published.
CLOSE_TIMEOUT = 5.0


class Message:
    """What a subscriber or responder gets: topic, body (bytes as published, or the value), headers."""

    __slots__ = ("body", "headers", "topic")

    def __init__(self, topic: str, body: Any, headers: Mapping[str, Any] = NO_HEADERS) -> None:
        self.topic = topic
        self.body = body
        self.headers = headers

    def __repr__(self) -> str:
        return f"Message({self.topic!r}, {self.body!r}, {dict(self.headers)!r})"


Handler = Callable[[Message], Any]


def encode_body(body: Any, headers: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    """(kind, bytes) of a body; raises BadBody when msgpack cannot hold it."""
    try:
        if headers:
            kind, data = encode_body(body)
            return HEADED, msgpack.packb([dict(headers), kind, data])
        if isinstance(body, (bytes, bytearray, memoryview)):
            return RAW, bytes(body)
        return PACKED, msgpack.packb(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadBody(f"msgpack cannot hold this body: {error}") from None


def decode_body(topic: str, kind: int, data: bytes) -> Message:
    """The message that a peer encoded; what cannot be decoded comes as its bytes, with a header that says so."""
    try:
        if kind == RAW:
            return Message(topic, data)
        value = msgpack.unpackb(data, strict_map_key=False)
        if kind == PACKED:
            return Message(topic, value)
        headers, inner, body = value
        return Message(topic, decode_body(topic, inner, body).body, headers)
    except Exception as error:  # noqa: BLE001 - another program's bytes: nothing of them may end this one
        return Message(topic, data, {"qulo-error": f"undecodable body: {type(error).__name__}"})


class Registered:
    """What `subscribe` and `respond` return: await it or enter it, and it is confirmed by the hub."""

    def __init__(self, bus: Bus, topic: str) -> None:
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
        bus: Bus,
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

    def __init__(self, bus: Bus, topic: str, handler: Handler) -> None:
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

    def _call(self, call: core.Call) -> None:
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


class _Pending:
    """One request under way: a future for one answer, or a queue for many."""

    __slots__ = ("answers", "expected", "future", "topic")

    def __init__(self, future: asyncio.Future[Any], topic: str, many: bool) -> None:
        self.future = future
        self.topic = topic
        self.answers: asyncio.Queue[core.Answer | QuloError | None] | None = asyncio.Queue() if many else None
        self.expected: int | None = None


class Bus:
    """A program's connection to its hub. Made by `connect`; use it as an async context manager.

    `connected` tells whether there is a session now; `on_state`, given to connect, is called with "connected"
    and "disconnected".
    """

    def __init__(self, options: Options) -> None:
        self.subscription_buffer = options.subscription_buffer
        self._options = options
        self._registered: dict[int, Any] = {}
        self._pending: dict[int, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[float, deque[tuple[float, int]]] = {}  # by timeout: deadline, request
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._first = True
        self._closed = False
        self._refusal: QuloError | None = None
        self._unknown = 0
        self._topics: set[str] = set()

    # -- life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; raises EndpointError when there is no session within the connect timeout."""
        options = self._options
        self._loop = asyncio.get_running_loop()
        self._context = make_context()
        info = {"version": __version__, "pid": os.getpid(), "program": options.program}
        self._link = core.Link(core.Identity(b"", options.name, info=info), options.limits)
        self._driver = LinkDriver(self._link, options.urls, self._context, self._deliver, options.security)
        self._driver.disconnected = self._went_away
        self._driver.refused = self._was_refused
        self._up = asyncio.Event()  # or refused
        self._driver.start()
        if options.timeout is None:
            return
        try:
            await asyncio.wait_for(self._up.wait(), options.timeout)
            if self._refusal is not None:
                raise self._refusal
        except TimeoutError:
            reasons = "; ".join(self._driver.failures.values())
            await self.close()
            tried = ", ".join(options.urls)
            raise EndpointError(f"no hub answers at {tried} ({reasons or 'no answer'})") from None
        except BaseException:
            await self.close()  # refused, or cancelled: nobody else will
            raise

    async def close(self) -> None:
        """Let the hub acknowledge what was published (bounded), then disconnect."""
        if self.connected:
            with contextlib.suppress(TimeoutError):  # said below, as if there were no hub at all
                await asyncio.wait_for(self._settled(), CLOSE_TIMEOUT)
        if not self._link.settled:
            log.warning("closed with messages that the hub has not acknowledged")
        self._closed = True
        self._topics.clear()  # so that publish looks whether it may
        self._end_all(Disconnected("the bus was closed"))
        tasks = self._tasks - {asyncio.current_task()}  # a handler may be what closes the bus
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._driver.close()
        self._context.term()

    def _end_all(self, error: QuloError) -> None:
        """Nothing more comes: whoever waits for something is told."""
        for registered in list(self._registered.values()):
            registered._settle(error)
            if isinstance(registered, Subscription):
                registered._end()
        for rid in list(self._pending):
            self._finish(rid, error)
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _check_open(self) -> None:
        if self._closed:
            raise Disconnected("the bus is closed")

    @property
    def connected(self) -> bool:
        """Is there a session with the hub now?"""
        return self._link.phase is core.Phase.UP

    @property
    def url(self) -> str:
        """The address in use, or tried last."""
        return self._driver.url

    # -- publish

    async def publish(self, topic: str, body: Any, headers: Mapping[str, Any] | None = None) -> None:
        """Publish to whoever subscribes now. Waits only when the hub's credit is used up.

        Raises BadTopic, BadBody or TooLarge before anything is sent. `flush` tells when the hub has it.
        """
        if type(body) is bytes and not headers:
            kind = RAW
        else:
            kind, body = encode_body(body, headers)
        if topic not in self._topics:
            self._check_topic(topic)
        if len(body) > self._link.max_message:
            self._check_size(body)
        if self._link.publish(topic, kind, body):
            self._driver.send()
            if self._link.room <= 0:
                await self._room()
        elif not self._driver.scheduled:
            self._driver.wake()
            if self._link.room <= 0:  # looked at once a turn: one message at a time never fills a batch
                await self._room()

    async def flush(self, timeout: float | None = 30.0) -> None:
        """Return when the hub has acknowledged everything published so far.

        Raises DeadlineExceeded, or OutcomeUnknown when a hub restarted with messages under way.
        """
        try:
            await asyncio.wait_for(self._settled(), timeout)
        except TimeoutError:
            raise DeadlineExceeded(f"the hub has not acknowledged everything within {timeout:g} s") from None
        unknown, self._unknown = self._unknown, 0
        if unknown:
            raise OutcomeUnknown(f"{unknown} messages were under way when the hub restarted; they may not have arrived")

    async def _settled(self) -> None:
        self._driver.send()
        if not self._link.settled:
            self._driver.beat()  # its answer acknowledges what nobody else would ask about
        while not self._link.settled:
            await self._progress()

    async def _room(self) -> None:
        while self._link.room <= 0:
            await self._progress()

    async def _progress(self) -> None:
        """Wait until the hub acknowledges something."""
        self._check_open()
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _check_topic(self, topic: str) -> None:
        self._check_open()
        topics.check_topic(topic)
        if topic[0] == "$":
            raise BadTopic(f"{topic}: topics that begin with $ are the system's own")
        if len(self._topics) > 10_000:  # a program that makes topics up: do not remember them all
            self._topics.clear()
        self._topics.add(topic)

    def _check_size(self, body: bytes) -> None:
        if len(body) > self._link.max_message:
            raise TooLarge(f"the body has {len(body)} bytes; the hub takes {self._link.max_message} (max_message)")

    # -- subscribe and respond

    def subscribe(
        self,
        topic: str,
        handler: Handler | None = None,
        *,
        group: str | None = None,
        on_gap: Callable[[Gap], Any] | None = None,
    ) -> Subscription:
        """Subscribe to a topic or pattern (`*` one token, `>` the rest): await the result, or `async with` it.

        With a `handler` (plain or async) messages go to it, else iterate. In a `group` each message goes to one
        member. A plain handler runs inside the event loop: it must not block.
        """
        return Subscription(self, topic, handler, group, on_gap)

    def respond(self, topic: str, handler: Handler) -> Responder:
        """Answer requests with what `handler(msg)`, plain or async, returns; an exception reaches the caller."""
        return Responder(self, topic, handler)

    # -- request

    async def request(self, topic: str, body: Any = None, *, timeout: float = 5.0) -> Any:
        """Ask one responder; returns the body of its answer.

        Raises NoResponders at once, DeadlineExceeded after `timeout` seconds, HandlerError with the responder's
        exception, ResponderLost or Disconnected when the outcome is unknown.
        """
        rid = self._ask(topic, body, timeout, many=False)
        pending = self._pending[rid]
        if len(self._pending) == 1:
            self._driver.send()  # alone: there is no batch to wait for
        else:
            self._driver.wake()
        try:
            return await pending.future
        finally:
            if rid in self._pending:  # cancelled
                self._finish(rid, Disconnected())

    def request_many(
        self, topic: str, body: Any = None, *, timeout: float = 1.0, count: int | None = None
    ) -> AsyncIterator[Any]:
        """Ask every responder; iterate over the bodies of their answers.

        Ends after `timeout` seconds, after `count` answers, or when all have answered. A responder's error is
        raised, unless there were answers before it. Raises NoResponders when there is nobody, Disconnected when
        there is no hub.
        """
        return self._many(topic, body, timeout, count)

    async def _many(self, topic: str, body: Any, timeout: float, count: int | None) -> AsyncIterator[Any]:
        rid = self._ask(topic, body, timeout, many=True)
        pending = self._pending[rid]
        answers = pending.answers
        self._driver.wake()
        seen = 0
        try:
            while answers is not None and (count is None or seen < count):
                answer = await answers.get()
                if answer is None:
                    return
                if isinstance(answer, QuloError):
                    raise answer
                seen += 1
                if not answer.code:
                    yield decode_body(topic, answer.kind, answer.body).body
                elif seen == 1 and pending.expected is None:
                    raise from_wire(answer.code, answer.body.decode("utf-8", "replace"))
                else:
                    log.warning("a responder of %s failed: %s", topic, answer.body.decode("utf-8", "replace"))
                if pending.expected is not None and seen >= pending.expected:
                    return
        finally:
            self._finish(rid, None)

    def _ask(self, topic: str, body: Any, timeout: float, many: bool) -> int:
        self._check_open()
        kind, data = encode_body(body)
        topics.check_topic(topic)
        self._check_size(data)
        rid = self._link.request(topic, int(timeout * 1000), many, kind, data)
        self._pending[rid] = _Pending(self._loop.create_future(), topic, many)
        self._await_deadline(rid, timeout)
        return rid

    def _await_deadline(self, rid: int, timeout: float) -> None:
        """One timer per distinct timeout, not per request: its requests end in the order in which they began."""
        waiting = self._deadlines.get(timeout)
        if waiting is None:
            waiting = self._deadlines[timeout] = deque()
            self._loop.call_later(timeout, self._late, timeout)
        while waiting and waiting[0][1] not in self._pending:
            waiting.popleft()
        waiting.append((self._loop.time() + timeout, rid))

    def _late(self, timeout: float) -> None:
        waiting = self._deadlines[timeout]
        now = self._loop.time()
        while waiting and (waiting[0][0] <= now or waiting[0][1] not in self._pending):
            rid = waiting.popleft()[1]
            pending = self._pending.get(rid)
            if pending is None:
                continue
            if self.connected:
                self._finish(rid, DeadlineExceeded(f"no answer on {pending.topic} within {timeout:g} s"))
            else:
                reason = self._driver.error or "not connected"
                self._finish(rid, Disconnected(f"no hub within {timeout:g} s: {reason}"))
        if waiting:
            self._loop.call_at(waiting[0][0], self._late, timeout)
        else:
            del self._deadlines[timeout]

    def _finish(self, rid: int, error: QuloError | None) -> None:
        pending = self._pending.pop(rid, None)
        if pending is None:
            return
        self._link.give_up(rid)
        if pending.answers is not None:
            pending.answers.put_nowait(error if isinstance(error, Disconnected) else None)
        elif error is not None and not pending.future.done():
            pending.future.set_exception(error)

    # -- what comes

    def _deliver(self, events: list[core.Event], items: list[tuple[Tracker, Item]]) -> None:
        registered = self._registered
        for tracker, item in items:
            subscription = registered.get(tracker.sid)
            if subscription is not None:
                subscription._take(item)
        for event in events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    def _answered(self, event: core.Answer) -> None:
        pending = self._pending.get(event.rid)
        if pending is None:
            return
        if pending.answers is not None:
            pending.answers.put_nowait(event)
            return
        del self._pending[event.rid]
        if pending.future.done():
            return
        if event.code:
            pending.future.set_exception(from_wire(event.code, event.body.decode("utf-8", "replace")))
        elif event.kind == RAW:
            pending.future.set_result(event.body)
        else:
            pending.future.set_result(decode_body("", event.kind, event.body).body)

    def _asked(self, event: core.Asked) -> None:
        if event.rid in self._pending:
            self._pending[event.rid].expected = event.responders

    def _called(self, event: core.Call) -> None:
        responder = self._registered.get(event.sid)
        if responder is not None:
            responder._call(event)

    def _worked(self, event: core.Work) -> None:
        subscription = self._registered.get(event.sid)
        if subscription is not None:
            subscription._take_run(event.topic, event.kind, event.bodies)

    def _readied(self, event: core.Ready) -> None:
        registered = self._registered.get(event.sid)
        if registered is not None:
            registered._settle(None)

    def _rejected(self, event: core.Rejected) -> None:
        registered = self._registered.pop(event.sid, None)
        if registered is not None:
            registered._settle(event.error)
            if isinstance(registered, Subscription):
                registered._end(event.error)

    def _acknowledged(self, event: core.Acknowledged) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _welcomed(self, event: core.Welcomed) -> None:
        self._up.set()
        lost = sum(event.lost.values())
        self._unknown += lost
        if lost:
            log.warning("the hub restarted; %d messages were not acknowledged", lost)
        if not event.resumed:
            self._fail_sent()
        self._first = False
        self._acknowledged(core.Acknowledged())
        self._tell_state("connected")

    def _fail_sent(self) -> None:
        """A new session knows nothing of the requests that an old one had been given."""
        if self._first:
            return
        for rid in list(self._pending):
            if rid < self._oldest_unsent:
                self._finish(rid, Disconnected("the hub lost this request; its outcome is unknown"))

    def _was_refused(self, error: QuloError) -> None:
        """The hub said no: `open` need not wait any longer. Later ones only show in the log."""
        if not self._up.is_set():
            self._refusal = error
            self._up.set()

    def _went_away(self) -> None:
        self._oldest_unsent = self._link.next_id
        self._tell_state("disconnected")

    _oldest_unsent = 0

    def _tell_state(self, state: str) -> None:
        if self._options.on_state is not None:
            try:
                self._options.on_state(state)
            except Exception:
                log.exception("on_state failed")

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


_HANDLERS: dict[type, Callable[[Bus, Any], None]] = {
    core.Answer: Bus._answered,
    core.Asked: Bus._asked,
    core.Call: Bus._called,
    core.Work: Bus._worked,
    core.Ready: Bus._readied,
    core.Rejected: Bus._rejected,
    core.Acknowledged: Bus._acknowledged,
    core.Welcomed: Bus._welcomed,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What `connect` was told, checked."""

    urls: tuple[str, ...]
    name: str
    program: str
    timeout: float | None
    security: Security | None
    on_state: Callable[[str], Any] | None
    subscription_buffer: int
    limits: Limits


def _urls(url: str | None) -> tuple[str, ...]:
    urls = [url] if url else config.client_urls(os.environ, os.geteuid())
    for each in urls:
        if not each.startswith(("tcp://", "ipc://")):
            raise UsageError(f"{each!r} is not an address: tcp://HOST:PORT or ipc:///PATH is expected")
    return tuple(urls)


def _security(server_key: str | Path | None, key: str | Path | None) -> Security | None:
    if server_key is None:
        return None
    if key is None:
        raise UsageError("server_key needs key: the path of this program's own secret key file")
    return Security(curve.load_public(server_key), curve.load_key(key))


def _default_name(program: str) -> str:
    """PROGRAM-PID.HOST in the characters that names may have."""
    stem = program.removesuffix(".py").strip("-.") or "python"
    text = f"{stem}-{os.getpid()}.{socket.gethostname().partition('.')[0]}".lower()
    return re.sub(r"[^a-z0-9._-]", "-", text)[:64]


def connect(  # noqa: PLR0913 - keywords, each with a default
    url: str | None = None,
    *,
    name: str | None = None,
    timeout: float | None = CONNECT_TIMEOUT,
    server_key: str | Path | None = None,
    key: str | Path | None = None,
    on_state: Callable[[str], Any] | None = None,
    subscription_buffer: int = SUBSCRIPTION_BUFFER,
) -> Bus:
    """A Bus, to be entered with `async with`.

    Without `url`: the addresses in QULO_URL, else this host's own agent. `timeout` seconds for the first
    connection, None to go on without waiting for it. `server_key` and `key` are files, for a hub with
    `curve: on`. `name` is shown by `qulolist`.
    """
    program = Path(sys.argv[0] or "python").name[:64]
    name = name or _default_name(program)
    security = _security(server_key, key)
    limits = Limits()
    return Bus(Options(_urls(url), name, program, timeout, security, on_state, subscription_buffer, limits))
