"""The Bus: one program's session with its hub, and everything a program does over it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from qulo._version import __version__
from qulo.client.message import Handler, decode_body, encode_body
from qulo.client.registered import Responder, Subscription
from qulo.client.streams import Consumer, Stored, StoredMessage, make_extra, read_stream
from qulo.errors import (
    BadTopic,
    DeadlineExceeded,
    Disconnected,
    EndpointError,
    OutcomeUnknown,
    QuloError,
    TooLarge,
    from_wire,
)
from qulo.net.link import LinkDriver, Security
from qulo.net.socket import make_context
from qulo.protocol import events, topics
from qulo.protocol import link as core
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Gap, Item, Tracker
from qulo.protocol.wire import RAW

log = logging.getLogger("qulo")

# Events (calls, answers, work) that are handled before what they led to is sent: with many requests under way asker,
# hub and responder then work at the same time, on one part of the batch each, instead of one after the other.
CHUNK = 32

# Puts that are sent without waiting for the end of the turn: the hub's disk then works at one part while we make the
# next. With all in one batch each waits for the other (a round trip of 256 puts is 2 ms, half of it the disk).
PUT_BURST = 128

# Topics that were refused and that the next `flush` tells of; one is enough to raise, and each was logged.
FORBIDDEN = 100

# Seconds that closing waits for the hub to acknowledge what was published.
CLOSE_TIMEOUT = 5.0


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
    key_changed: Callable[[Security], None] | None = None
    """Told when the hub changes its key; None: whoever gave us the key in a file gives us the next one, too."""


class _Pending:
    """One request under way: a future for one answer, or a queue for many."""

    __slots__ = ("answers", "expected", "future", "topic")

    def __init__(self, future: asyncio.Future[Any], topic: str, many: bool) -> None:
        self.future = future
        self.topic = topic
        self.answers: asyncio.Queue[events.Answer | QuloError | None] | None = asyncio.Queue() if many else None
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
        self._puts: dict[int, asyncio.Future[Stored]] = {}
        self._burst = 0  # puts since some were sent
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[float, deque[tuple[float, int]]] = {}  # by timeout: deadline, request
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._first = True
        self._closed = False
        self._refusal: QuloError | None = None
        self._unknown = 0
        self._forbidden: dict[str, QuloError] = {}  # by topic, what the hub did not take
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
        if options.key_changed is not None:
            self._driver.key_changed = options.key_changed
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
        for registered in list(self._registered.values()):
            if isinstance(registered, Consumer):
                registered._leave()
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
            if isinstance(registered, Subscription | Consumer):
                registered._end()
        for rid in list(self._pending):
            self._finish(rid, error)
        self._fail_puts(OutcomeUnknown("the bus was closed before the put was answered"), self._link.next_id)
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

    async def put(  # noqa: PLR0913 - what can be said of a message
        self,
        topic: str,
        body: Any,
        headers: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - what it is called everywhere
        delay: float | None = None,
        ttl: float | None = None,
        require: str | None = None,
        timeout: float = 30.0,
    ) -> Stored:
        """Put a message into the stream that stores the topic; returns when it is on disk.

        Raises NoStream, StoreFull, Denied, BadTopic, BadBody or TooLarge: it is not stored. OutcomeUnknown (the hub or
        the connection was lost) and DeadlineExceeded after `timeout` seconds: it may be; put it again with the same
        `id`, within the stream's dedupe window it is stored once.

        `delay` and `ttl` in seconds: not delivered before, gone after. While the master is away an agent takes it into
        its spool on disk and answers `at` "agent"; `require="master"` raises Disconnected instead.
        """
        if type(body) is bytes and not headers:
            kind = RAW
        else:
            kind, body = encode_body(body, headers)
        if topic not in self._topics:
            self._check_topic(topic)
        if len(body) > self._link.max_message:
            self._check_size(body)
        extra = make_extra(id, delay, ttl, require)
        if self._link.room <= 0:
            await self._room()
        rid = self._link.put(topic, kind, body, extra)
        future: asyncio.Future[Stored] = self._loop.create_future()
        self._puts[rid] = future
        self._await_deadline(rid, timeout)
        self._burst += 1
        if self._burst >= PUT_BURST or len(self._puts) == 1:  # alone: there is no batch to wait for
            self._burst = 0
            self._driver.send()
        elif not self._driver.scheduled:
            self._driver.wake()
        try:
            return await future
        finally:
            self._puts.pop(rid, None)

    async def flush(self, timeout: float | None = 30.0) -> None:
        """Return when the hub has acknowledged everything published so far.

        Raises DeadlineExceeded; OutcomeUnknown when a hub restarted with messages under way; Denied when the hub
        did not take some of it, since the last flush.
        """
        try:
            await asyncio.wait_for(self._settled(), timeout)
        except TimeoutError:
            raise DeadlineExceeded(f"the hub has not acknowledged everything within {timeout:g} s") from None
        unknown, self._unknown = self._unknown, 0
        forbidden, self._forbidden = self._forbidden, {}
        if unknown:
            raise OutcomeUnknown(f"{unknown} messages were under way when the hub restarted; they may not have arrived")

        for error in forbidden.values():
            raise error

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

    def consume(
        self, stream: str, *, group: str, prefetch: int = 100, lease: float = 30.0, start: str = "first"
    ) -> Consumer:
        """Consume a stream as a member of a group, which the first consumer makes: `async with` it, and iterate.

        Each message goes to one member and is the program's for `lease` seconds, from when it is handed out: `ack` it,
        `nak` it, `reject` it, or `extend` the lease. `prefetch` messages at most are here unsettled. A new group begins
        with the `first` message of the stream, or with what is `new`.
        """
        return Consumer(self, stream, group, prefetch, lease, start)

    def read(
        self,
        stream: str,
        *,
        topic: str = ">",
        seq: int | None = None,
        since: float | None = None,
        last: bool = False,
    ) -> AsyncIterator[StoredMessage]:
        """What a stream has now, without a group: all, from the number `seq`, of the last `since` seconds, or with
        `last` the newest of each topic; on topics that match `topic`.
        """
        return read_stream(self, stream, topic, seq, since, last)

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
        while waiting and not self._is_open(waiting[0][1]):
            waiting.popleft()
        waiting.append((self._loop.time() + timeout, rid))

    def _late(self, timeout: float) -> None:
        waiting = self._deadlines[timeout]
        now = self._loop.time()
        while waiting and (waiting[0][0] <= now or not self._is_open(waiting[0][1])):
            rid = waiting.popleft()[1]
            if rid in self._puts:
                self._put_is_late(rid, timeout)
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

    def _is_open(self, rid: int) -> bool:
        return rid in self._pending or rid in self._puts

    def _put_is_late(self, rid: int, timeout: float) -> None:
        future = self._puts[rid]
        if self._link.give_up(rid):
            error: QuloError = Disconnected(f"no hub within {timeout:g} s; it was not sent, and is not stored")
        else:
            error = DeadlineExceeded(f"no answer within {timeout:g} s; whether it is stored is unknown")
        if not future.done():
            future.set_exception(error)

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

    def _deliver(self, happened: list[events.Event], items: list[tuple[Tracker, Item]]) -> None:
        registered = self._registered
        for tracker, item in items:
            subscription = registered.get(tracker.sid)
            if subscription is not None:
                subscription._take(item)
        for number, event in enumerate(happened, 1):
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
            if number % CHUNK == 0:
                self._driver.send()

    def _answered(self, event: events.Answer) -> None:
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

    def _stored(self, event: events.Stored) -> None:
        rid, count, stream, seq, duplicate, at = event
        puts = self._puts
        step = seq > 0  # 0: not known
        for offset in range(count):
            future = puts.get(rid + offset)
            if future is not None and not future.done():
                future.set_result(Stored(stream, seq + step * offset, duplicate, at))

    def _unstored(self, event: events.Unstored) -> None:
        for rid in range(event.rid, event.rid + event.amount):
            future = self._puts.get(rid)
            if future is not None and not future.done():
                future.set_exception(from_wire(event.code, event.text))

    def _fail_puts(self, error: QuloError, before: int) -> None:
        for rid, future in self._puts.items():
            if rid < before and not future.done():
                future.set_exception(error)

    def _delivered(self, event: events.Deliver) -> None:
        consumer = self._registered.get(event.sid)
        if consumer is not None:
            consumer._take(event)

    def _settled_records(self, event: events.Acked) -> None:
        consumer = self._registered.get(event.sid)
        if consumer is not None:
            consumer._acked(event.record)

    def _lease_ended(self, event: events.Expired) -> None:
        consumer = self._registered.get(event.sid)
        if consumer is not None:
            consumer._expired(event.spans)

    def _asked(self, event: events.Asked) -> None:
        if event.rid in self._pending:
            self._pending[event.rid].expected = event.responders

    def _called(self, event: events.Call) -> None:
        responder = self._registered.get(event.sid)
        if responder is not None:
            responder._call(event)

    def _worked(self, event: events.Work) -> None:
        subscription = self._registered.get(event.sid)
        if subscription is not None:
            subscription._take_run(event.topic, event.kind, event.bodies)

    def _readied(self, event: events.Ready) -> None:
        registered = self._registered.get(event.sid)
        if registered is not None:
            registered._settle(None)

    def _rejected(self, event: events.Rejected) -> None:
        registered = self._registered.pop(event.sid, None)
        if registered is not None:
            registered._settle(event.error)
            if isinstance(registered, Subscription | Consumer):
                registered._end(event.error)

    def _forbade(self, event: events.Forbidden) -> None:
        if event.topic not in self._forbidden and len(self._forbidden) < FORBIDDEN:
            log.warning("not published: %s", event.error)
            self._forbidden[event.topic] = event.error

    def _acknowledged(self, event: events.Acknowledged) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _welcomed(self, event: events.Welcomed) -> None:
        self._up.set()
        lost = sum(event.lost.values())
        self._unknown += lost
        if lost:
            log.warning("the hub restarted; %d messages were not acknowledged", lost)
        if not event.resumed:
            self._fail_sent()
        self._first = False
        self._acknowledged(events.Acknowledged())
        self._tell_state("connected")

    def _fail_sent(self) -> None:
        """A new session knows nothing of the requests that an old one had been given."""
        if self._first:
            return
        self._fail_puts(OutcomeUnknown("the hub lost this put; it may be stored or not"), self._oldest_unsent)
        for registered in self._registered.values():
            if isinstance(registered, Consumer):
                registered._expired([])
        for rid in list(self._pending):
            if rid < self._oldest_unsent:
                self._finish(rid, Disconnected("the hub lost this request; its outcome is unknown"))

    def _was_refused(self, error: QuloError) -> None:
        """The hub said no, and no other address is left to try: `open` need not wait. Later ones show in the log."""
        if not self._up.is_set() and self._driver.failures.keys() >= set(self._options.urls):
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
    events.Answer: Bus._answered,
    events.Asked: Bus._asked,
    events.Stored: Bus._stored,
    events.Unstored: Bus._unstored,
    events.Deliver: Bus._delivered,
    events.Acked: Bus._settled_records,
    events.Expired: Bus._lease_ended,
    events.Call: Bus._called,
    events.Work: Bus._worked,
    events.Ready: Bus._readied,
    events.Rejected: Bus._rejected,
    events.Forbidden: Bus._forbade,
    events.Acknowledged: Bus._acknowledged,
    events.Welcomed: Bus._welcomed,
}
