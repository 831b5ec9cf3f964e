"""The blocking front: `qulo.sync.connect()` gives a Bus with the verbs of `qulo.client.Bus`, for threads.

    with qulo.sync.connect() as bus:
        bus.publish("sensors.kitchen", {"t": 21.5})
        for msg in bus.subscribe("sensors.>"): ...

The client runs on one private thread with an event loop. Everything that has an order goes through one outbox
to that loop: publishes are only appended there, and the loop is woken once per batch, not once per message.
Handlers run in worker threads, so they may block, and use the Bus. Any thread may use a Bus.

It must never wait without an end: every call has a deadline, and Ctrl-C ends any wait. (Iterating over a
subscription waits for messages as long as there are none; `next` has a timeout.)

Forks: a Bus belongs to the process that made it. In a forked child every call raises UsageError at once, and
the parent's connection is not disturbed; connect anew in the child. Forking while no Bus is open is safe.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from qulo import client
from qulo.client import CLOSE_TIMEOUT, CONNECT_TIMEOUT, Handler, Message, decode_body, encode_body
from qulo.errors import DeadlineExceeded, Disconnected, UsageError
from qulo.handover import Answer, Call, Outbox, Workers, join_threads, start_thread
from qulo.protocol.tracker import Gap

__all__ = ["Bus", "Consumer", "Delivery", "Responder", "Subscription", "connect"]

log = logging.getLogger("qulo")

P = ParamSpec("P")
T = TypeVar("T")

# Seconds that `publish` waits for room: with no hub and full buffers for so long, the program has to decide.
PUBLISH_TIMEOUT = 30.0

# Seconds that reading waits for each page of a stream.
READ_TIMEOUT = 30.0

# Messages that a Consumer hands over to the program's thread at a time: it is woken once for so many.
HANDED = 32

# Seconds on top of a call's own deadline. The loop keeps that by itself and says more; this is for a loop
# that does not come to it, because publishes before the call still wait for the hub.
GRACE = 0.25


class _Source(client.Subscription):
    """The loop's side of a Subscription: hands over everything that has come at once, encoded as it came."""

    async def wait(self, timeout: float | None) -> list[Any]:
        """What has come, as soon as there is something; nothing when it is closed, or after `timeout`."""
        if not (self._queue or self._closed):
            try:
                await asyncio.wait_for(self._readable.wait(), timeout)
            except TimeoutError:
                return []
        return self.take()

    def take(self) -> list[Any]:
        """What has come. One by one: when the Bus is being closed, the loop may still append."""
        taken = []
        while self._queue:
            taken.append(self._queue.popleft())
        self._queued = 0
        if not self._closed:
            self._readable.clear()
        return taken


class _Registered:
    """What `subscribe` and `respond` return: confirmed by the hub; `close` it, or use it in a `with`."""

    def __init__(self, bus: Bus, registered: client.Registered) -> None:
        self._bus = bus
        self._registered = registered
        self.topic = registered.topic

    def close(self) -> None:
        """End it; messages already received can still be read."""
        self._bus._do(self._registered.close, CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Responder(_Registered):
    """Answers requests on a topic until it is closed."""


class Subscription(_Registered):
    """A subscription: iterate over it, or give it a handler.

    Yields Message, and Gap where something was missed. Several threads may read from one; each message goes
    to one of them.
    """

    _registered: _Source

    def __init__(self, bus: Bus, source: _Source, handler: Handler | None) -> None:
        super().__init__(bus, source)
        self.group = source.group
        self._runs: deque[Any] = deque()  # as they came: (topic, kind, bodies) or Gap
        self._items: deque[Message | Gap] = deque()  # decoded
        self._decoding = threading.Lock()
        self._thread: threading.Thread | None = None
        if handler is not None:
            self._thread = start_thread(partial(self._work, handler), f"qulo handler of {self.topic}")

    @property
    def gaps(self) -> int:
        """How many gaps there were."""
        return self._registered.gaps

    def __iter__(self) -> Iterator[Message | Gap]:
        while (item := self._next(None)) is not None:
            yield item

    def next(self, timeout: float | None = None) -> Message | Gap:
        """The next message or gap; raises DeadlineExceeded after `timeout` s, Disconnected when closed."""
        item = self._next(timeout)
        if item is None:
            raise Disconnected("the subscription is closed")
        return item

    def close(self) -> None:
        """End the subscription; a handler is given what has already come."""
        super().close()
        self._join(time.monotonic() + CLOSE_TIMEOUT)

    def _join(self, deadline: float) -> None:
        if self._thread is not None:
            join_threads([self._thread], deadline)

    def _next(self, timeout: float | None) -> Message | Gap | None:
        """None: closed, and everything was read."""
        self._bus._check_process()  # before the lock: at the fork another thread may have held it
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = late = False
        while True:
            with self._decoding:
                if self._items or self._decode():
                    return self._items.popleft()
            if ended:
                return None
            if late:
                raise self._nothing(timeout)
            ended = not self._bus._open or self._registered._closed  # before the last look at what came
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            late = left == 0.0
            self._fetch(left)

    def _nothing(self, timeout: float | None) -> DeadlineExceeded:
        return DeadlineExceeded(f"nothing came on {self.topic} within {timeout or 0:g} s")

    def _decode(self) -> bool:
        """Decode the next run, when there is one."""
        if not self._runs:
            return False
        run = self._runs[0]
        items: deque[Message | Gap] = deque()
        if type(run) is Gap:
            items.append(run)
        else:
            topic, kind, bodies = run
            items.extend([decode_body(topic, kind, body) for body in bodies])
        # Nothing is called between these two: no interrupt can lose the run, or give it twice.
        self._items = items
        del self._runs[0]
        return True

    def _fetch(self, timeout: float | None) -> None:
        """All that has come; waits for something to come when there is nothing."""
        try:
            self._bus._do(partial(self._hand_over, timeout), timeout, ordered=False)
        except Disconnected:  # the Bus was closed: what had come before can still be read
            self._runs.extend(self._registered.take())

    async def _hand_over(self, timeout: float | None) -> None:
        # Not as the call's result: that would be lost when its thread is interrupted just now.
        self._runs.extend(await self._registered.wait(timeout))

    def _work(self, handler: Handler) -> None:
        for item in self:
            if isinstance(item, Gap):
                self._registered._tell_gap(item)
                continue
            try:
                handler(item)
            except Exception:
                log.exception("the handler of %s failed", self.topic)


class Delivery(client.StoredMessage):
    """A message that a consumer has, until it is settled by `ack`, `nak` or `reject`, or its lease ends."""

    __slots__ = ("_source",)

    def __init__(self, source: _Deliveries, seq: int, run: Any, body: bytes) -> None:
        super().__init__(source.stream, seq, run, body)
        self._source = source

    def ack(self) -> None:
        """It is done. Goes out at once; `Consumer.flush` tells when it is on disk."""
        self._source.post(partial(self._source._ack, self.seq))

    def nak(self, delay: float = 0.0) -> None:
        """Deliver it again, to whoever is next, not before `delay` seconds. Counts as a try."""
        self._source.post(partial(self._source._nak, self.seq, delay))

    def extend(self, seconds: float | None = None) -> None:
        """Its lease goes on from now, for `seconds` or as long as the consumer's leases are."""
        self._source.post(partial(self._source._extend, self.seq, seconds))

    def reject(self, reason: str = "") -> None:
        """To the dead letters with it, whatever its tries."""
        self._source.post(partial(self._source._reject, self.seq, reason))


class _Deliveries(client.Consumer):
    """The loop's side of a Consumer."""

    _make = Delivery
    post: Callable[[Callable[[], None]], None]
    handed: set[int]
    """Handed over, but the program has not seen them yet: their leases have not begun."""

    def _unseen(self) -> list[int]:
        return [*super()._unseen(), *(number for seq in tuple(self.handed) for number in (seq, seq))]


class Consumer(_Registered):
    """A member of a group of a stream. Iterate over it, or `fetch`; settle each message.

    Several threads may share one; each message goes to one of them. Leaving it waits until what was settled is on the
    hub's disk, and gives back what was not.
    """

    _registered: _Deliveries

    def __init__(self, bus: Bus, source: _Deliveries) -> None:
        super().__init__(bus, source)
        self.stream = source.stream
        self.group = source.group
        self._items: deque[Delivery] = deque()

    def __iter__(self) -> Iterator[Delivery]:
        while True:
            while (item := self._pop()) is not None:
                yield item
            try:
                self._bus._do(partial(self._hand_over, HANDED, None), None, ordered=False)
            except Disconnected:  # closed; what ended it otherwise is raised
                return

    def fetch(self, count: int = 100, timeout: float = 0.0) -> list[Delivery]:
        """Up to `count` messages: what is there, or the first that come within `timeout` seconds; [] if none do."""
        if not self._items:
            self._bus._do(partial(self._hand_over, count, timeout), timeout + client.CONNECT_TIMEOUT, ordered=False)
        got: list[Delivery] = []
        while len(got) < count and (item := self._pop()) is not None:
            got.append(item)
        return got

    def flush(self, timeout: float = 30.0) -> None:
        """Return when everything settled so far is on the hub's disk; raises OutcomeUnknown, TimeoutError."""
        self._bus._do(partial(self._registered.flush, timeout), timeout)

    def _pop(self) -> Delivery | None:
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        self._registered.handed.discard(item.seq)
        return item

    async def _hand_over(self, count: int, timeout: float | None) -> None:
        # Not as the call's result: that would be lost when its thread is interrupted just now.
        got = await self._registered.fetch(count, timeout)
        self._registered.handed.update(item.seq for item in got)
        self._items.extend(got)


def _blocking(
    verb: Callable[Concatenate[client.Bus, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Bus, P], T]:
    """The client's coroutine `verb` as a blocking method, with its arguments, deadline and docstring."""
    signature = inspect.signature(verb)

    @wraps(verb)
    def call(self: Bus, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(self._bus, *args, **kwargs)
        bound.apply_defaults()
        result: T = self._do(lambda: verb(self._bus, *args, **kwargs), bound.arguments["timeout"])
        return result

    return call


class Bus:
    """A program's connection to its hub. Made, and connected, by `connect`; close it, or use it in a `with`.

    A Bus left open is closed when the program ends. `on_state`, given to connect, is called in the private
    thread: it must not block, and cannot use the Bus.
    """

    def __init__(self, bus: client.Bus) -> None:
        self._bus = bus
        self._pid = os.getpid()
        self._open = False
        self._outbox = Outbox(self._wake)
        self._workers = Workers()
        self._subscriptions: list[Subscription] = []
        self._started = Answer()
        self._stop = asyncio.Event()
        self._filled = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread(self._live, "qulo")
        try:
            self._started.wait(None)  # bounded by the client's own connect timeout
        except BaseException:
            self._end()
            raise
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let handlers finish and the hub acknowledge what was published (bounded), then disconnect."""
        if not self._open or os.getpid() != self._pid:
            return
        atexit.unregister(self.close)
        self._do(self._take_no_more, CLOSE_TIMEOUT, ordered=False)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for subscription in self._subscriptions:
            subscription._join(deadline)
        self._workers.end(deadline)
        try:
            self._do(self._nothing, CLOSE_TIMEOUT)  # whatever was published before is with the client then
        except DeadlineExceeded:
            log.warning("closed with messages that no hub took")
        self._open = False
        self._end()

    def _end(self) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(2 * CLOSE_TIMEOUT)  # the client's own bound, and some

    @property
    def connected(self) -> bool:
        """Is there a session with the hub now?"""
        return self._open and self._bus.connected

    @property
    def url(self) -> str:
        """The address in use, or tried last."""
        return self._bus.url

    # -- the verbs

    request = _blocking(client.Bus.request)
    flush = _blocking(client.Bus.flush)
    put = _blocking(client.Bus.put)

    def publish(
        self,
        topic: str,
        body: Any,
        headers: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = PUBLISH_TIMEOUT,
    ) -> None:
        """Publish to whoever subscribes now. Returns at once, or when a full outbox has room again.

        Raises BadTopic, BadBody or TooLarge before anything is sent, DeadlineExceeded when there is no room
        within `timeout` seconds. `flush` tells when the hub has it.
        """
        if not self._open or os.getpid() != self._pid:
            self._check()
        kind, data = encode_body(body, headers)
        if topic not in self._bus._topics:
            self._bus._check_topic(topic)
        self._bus._check_size(data)
        self._outbox.publish((topic, kind, data), timeout)

    def subscribe(
        self,
        topic: str,
        handler: Handler | None = None,
        *,
        group: str | None = None,
        on_gap: Callable[[Gap], Any] | None = None,
    ) -> Subscription:
        """Subscribe to a topic or pattern (`*` one token, `>` the rest); the hub has confirmed it on return.

        Iterate over the result, or call its `next`. With a `handler` messages go to that, in order, in a
        thread of their own; gaps go to `on_gap` there. In a `group` each message goes to one member.
        """
        _check_handler(handler)
        source = _Source(self._bus, topic, None, group, on_gap)
        self._do(source._open, CONNECT_TIMEOUT)
        subscription = Subscription(self, source, handler)
        self._subscriptions = [each for each in self._subscriptions if not each._registered._closed]
        self._subscriptions.append(subscription)
        return subscription

    def respond(self, topic: str, handler: Handler) -> Responder:
        """Answer requests with what `handler(msg)` returns; an exception reaches the caller.

        The handler is called in worker threads, several at once. The hub has confirmed it on return.
        """
        _check_handler(handler)

        async def answer(message: Message) -> Any:
            return await asyncio.wrap_future(self._workers.submit(handler, message))

        responder = client.Responder(self._bus, topic, answer)
        self._do(responder._open, CONNECT_TIMEOUT)
        return Responder(self, responder)

    def consume(
        self, stream: str, *, group: str, prefetch: int = 100, lease: float = 30.0, start: str = "first"
    ) -> Consumer:
        """Consume a stream as a member of a group, which the first consumer makes: iterate over it in a `with`.

        Each message goes to one member and is the program's for `lease` seconds, from when it is handed out: `ack` it,
        `nak` it, `reject` it, or `extend` the lease. `prefetch` messages at most are here unsettled. A new group begins
        with the `first` message of the stream, or with what is `new`.
        """
        source = _Deliveries(self._bus, stream, group, prefetch, lease, start)
        source.post, source.handed = self._post, set()
        self._do(source.__aenter__, CONNECT_TIMEOUT)
        return Consumer(self, source)

    def read(
        self,
        stream: str,
        *,
        topic: str = ">",
        seq: int | None = None,
        since: float | None = None,
        last: bool = False,
    ) -> Iterator[client.StoredMessage]:
        """What a stream has now, without a group: all, from the number `seq`, of the last `since` seconds, or with
        `last` the newest of each topic; on topics that match `topic`.
        """
        messages = self._bus.read(stream, topic=topic, seq=seq, since=since, last=last)
        return self._each(messages, READ_TIMEOUT)

    def request_many(
        self, topic: str, body: Any = None, *, timeout: float = 1.0, count: int | None = None
    ) -> Iterator[Any]:
        """Ask every responder; iterate over the bodies of their answers, as they come.

        Ends after `timeout` seconds, after `count` answers, or when all have answered. A responder's error is
        raised, unless there were answers before it. Raises NoResponders when there is nobody.
        """
        return self._each(self._bus.request_many(topic, body, timeout=timeout, count=count), timeout)

    def _each(self, things: Any, timeout: float) -> Iterator[Any]:
        """One by one what the loop iterates over."""
        end = object()
        lock = asyncio.Lock()  # Ctrl-C: what it cancelled has to end before the things can be closed

        async def one() -> Any:
            async with lock:
                return await anext(things, end)

        async def close() -> None:
            async with lock:
                await things.aclose()

        try:
            while (thing := self._do(one, timeout)) is not end:
                yield thing
        finally:
            if self._open:
                self._do(close, timeout)

    # -- the private thread

    def _live(self) -> None:
        """The thread's whole life."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._run())
        finally:
            self._outbox.end()

    async def _run(self) -> None:
        opening = asyncio.create_task(self._bus.open())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():  # interrupted
            opening.cancel()
            await asyncio.wait({opening})
            await self._bus.close()
            return
        if (error := opening.exception()) is not None:
            stopping.cancel()
            self._started.set(error=error)
            return
        self._open = True
        self._started.set()
        pump = asyncio.create_task(self._pump())
        await stopping
        pump.cancel()
        await self._bus.close()

    async def _pump(self) -> None:
        """Give the client what threads put into the outbox, in order."""
        link, driver = self._bus._link, self._bus._driver
        while True:
            entries = self._outbox.take()
            for entry in entries:
                if type(entry) is Call:
                    entry.start()
                elif type(entry) is not tuple:
                    entry()  # type: ignore[operator]
                elif link.publish(*entry):
                    driver.send()
                    if link.room <= 0:
                        await self._bus._room()
            if entries:
                driver.send()
                if link.room <= 0:
                    await self._bus._room()
                await asyncio.sleep(0)  # the calls that were started, and the sockets, come first
            else:
                await self._filled.wait()
                self._filled.clear()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._filled.set)

    async def _take_no_more(self) -> None:
        """End what brings work for handlers; they still finish what has come."""
        handled = {id(each._registered) for each in self._subscriptions if each._thread is not None}
        for registered in list(self._bus._registered.values()):
            if isinstance(registered, client.Responder) or id(registered) in handled:
                await registered.close()

    async def _nothing(self) -> None:
        """What is waited for when only the order matters."""

    def _post(self, what: Callable[[], None]) -> None:
        self._check()
        self._outbox.post(what)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError("this Bus belongs to the process that was forked: connect anew in the child")

    def _check(self) -> None:
        self._check_process()
        if not self._open:
            raise Disconnected("the bus is closed")
        if threading.current_thread() is self._thread:
            raise UsageError("on_state cannot use the Bus: its thread would wait for itself")

    def _do(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None, *, ordered: bool = True) -> Any:
        """Run a coroutine in the loop, `ordered` after everything published before; returns its result.

        Raises DeadlineExceeded when the loop has none `timeout` and GRACE seconds later.
        """
        self._check()
        call = Call(make)
        try:
            self._outbox.call(call, ordered=ordered)
            if not ordered:
                self._loop.call_soon_threadsafe(call.start)
            return call.answer.wait(None if timeout is None else timeout + GRACE)
        except BaseException as error:  # a deadline, or Ctrl-C while waiting
            if call.answer.done or self._loop.is_closed():
                raise
            self._loop.call_soon_threadsafe(call.abandon)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"the hub did not get to it within {timeout:g} s") from None
            raise
        finally:
            self._outbox.forget(call)


def _check_handler(handler: Handler | None) -> None:
    if inspect.iscoroutinefunction(handler):
        raise UsageError("the blocking Bus calls plain functions; for coroutines use qulo.connect")


def _connecting(make: Callable[P, client.Bus]) -> Callable[P, Bus]:
    """`connect` of the client, with its arguments, for here."""

    @wraps(make)
    def connect(*args: P.args, **kwargs: P.kwargs) -> Bus:
        return Bus(make(*args, **kwargs))

    connect.__doc__ = (make.__doc__ or "").replace(
        "A Bus, to be entered with `async with`.", "A Bus that is connected: close it, or use it in a `with`."
    )
    return connect


connect = _connecting(client.connect)
