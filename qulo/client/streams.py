"""What a program does with streams beyond `put`: consuming as a member of a group, and reading. Made by the Bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, Self

from qulo.client.message import decode_body
from qulo.client.registered import Home, Registered
from qulo.errors import Disconnected, OutcomeUnknown, QuloError, UsageError
from qulo.protocol import events
from qulo.protocol.consuming import MOST_LEASE, flat, spans_of

# A consumer's own queue is extended this many times per lease: two that get lost do no harm.
EXTENSIONS = 3

# Seconds that leaving a group waits for what was settled to be on disk.
CLOSE_TIMEOUT = 5.0

# Messages that one request for a part of a stream gets.
PAGE = 500


class Stored(NamedTuple):
    """Where a message was put."""

    stream: str
    seq: int
    """Its number in the stream; 0 where it is not known: in an agent's spool, or sent by it a second time."""
    duplicate: bool
    """It was there already, by its id or by its agent's numbering: nothing was stored now."""
    at: str
    """"master", or "agent": on the agent's disk, for the master when it is back."""


class StoredMessage:
    """A message of a stream."""

    __slots__ = ("_body", "_headers", "_kind", "redelivered", "seq", "stream", "time", "topic", "tries")

    def __init__(self, stream: str, seq: int, run: events.Deliver, body: bytes) -> None:
        """`run` is what it came in."""
        self._kind = run.kind
        self._body: Any = body
        self._headers: Any = None  # decoded with the body, when one of the two is asked for
        self.topic = run.topic
        self.stream = stream
        self.seq = seq
        self.time = run.time / 1000
        """When it was put, in seconds since 1970."""
        self.tries = run.tries
        """Which delivery this is, as far as they are counted against `max_tries`: 1 the first time."""
        self.redelivered = run.redelivered
        """It may have been delivered before."""

    @property
    def body(self) -> Any:
        """Bytes as they were put, or the value."""
        if self._headers is None:
            self._decode()
        return self._body

    @property
    def headers(self) -> Mapping[str, Any]:
        """What was put beside the body."""
        if self._headers is None:
            self._decode()
        headers: Mapping[str, Any] = self._headers
        return headers

    def _decode(self) -> None:
        message = decode_body(self.topic, self._kind, self._body)
        self._body, self._headers = message.body, message.headers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.stream!r}, {self.seq}, {self.topic!r}, {self.body!r})"


class Delivery(StoredMessage):
    """A message that a consumer has, until it is settled by `ack`, `nak` or `reject`, or its lease ends."""

    __slots__ = ("_consumer",)

    def __init__(self, consumer: Consumer, seq: int, run: events.Deliver, body: bytes) -> None:
        super().__init__(consumer.stream, seq, run, body)
        self._consumer = consumer

    async def ack(self) -> None:
        """It is done. Goes out with this turn of the loop; `Consumer.flush` tells when it is on disk."""
        self._consumer._ack(self.seq)

    async def nak(self, delay: float = 0.0) -> None:
        """Deliver it again, to whoever is next, not before `delay` seconds. Counts as a try."""
        self._consumer._nak(self.seq, delay)

    async def extend(self, seconds: float | None = None) -> None:
        """Its lease goes on from now, for `seconds` or as long as the consumer's leases are."""
        self._consumer._extend(self.seq, seconds)

    async def reject(self, reason: str = "") -> None:
        """To the dead letters with it, whatever its tries."""
        self._consumer._reject(self.seq, reason)


class Consumer(Registered):
    """A member of a group of a stream. Iterate over it, or `fetch`; settle each message.

    Leaving it waits until what was settled is on the hub's disk, and gives back what was not.
    """

    _make: Callable[[Any, int, events.Deliver, bytes], Any] = Delivery

    def __init__(self, bus: Home, stream: str, group: str, prefetch: int, lease: float, start: str) -> None:
        super().__init__(bus, stream)
        self.stream = stream
        self.group = group
        self.prefetch = prefetch
        self.lease = lease
        self._start = start
        self._runs: deque[events.Deliver] = deque()  # what was delivered and not handed out
        self._at = 0  # of the first run, how much was handed out
        self._out: set[int] = set()  # handed out and not settled
        self._readable = asyncio.Event()
        self._closed = False
        self._error: QuloError | None = None
        self._settled = 0  # up to this record it is on disk
        self._lost = 0  # up to this record it may have got lost
        self._flushes: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._left = False
        self._went_on = 0.0  # when the program last took or settled a message, or one came to an empty queue

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._keep_alive()
        return self

    def __await__(self) -> Generator[Any, None, Consumer]:
        return self.__aenter__().__await__()

    def _register(self) -> int:
        # What is handed out just before it would have been extended has its whole lease nevertheless.
        asked = int(self.lease * 1000)
        lease = max(asked, min(asked + asked // EXTENSIONS, MOST_LEASE))
        return self._bus._link.consume(self.stream, self.group, self.prefetch, lease, self._start)

    # -- getting

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self._generate()

    async def _generate(self) -> AsyncIterator[Delivery]:
        while True:
            message = self._pop()
            if message is not None:
                yield message
            elif self._closed and self._error is None:
                return
            else:
                await self._more()

    async def fetch(self, count: int = 100, timeout: float | None = 0.0) -> list[Any]:
        """Up to `count` messages: what is there, or the first that come within `timeout` seconds; [] if none do."""
        got = self._take_many(count)
        if not got:
            try:
                async with asyncio.timeout(timeout):
                    while not got:
                        await self._more()
                        got = self._take_many(count)
            except TimeoutError:
                return []
        return got

    def _take_many(self, count: int) -> list[Any]:
        got: list[Any] = []
        while len(got) < count and (message := self._pop()) is not None:
            got.append(message)
        return got

    def _pop(self) -> Any:
        if not self._runs:
            return None
        run = self._runs[0]
        at = self._at
        if at + 1 == len(run.bodies):
            self._runs.popleft()
            self._at = 0
        else:
            self._at = at + 1
        seq = run.seq + at
        self._out.add(seq)
        self._went_on = self._bus._loop.time()
        return self._make(self, seq, run, run.bodies[at])

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Disconnected("the consumer is closed")
        self._readable.clear()
        await self._readable.wait()

    # -- settling

    def _ack(self, seq: int) -> None:
        self._out.discard(seq)
        self._went_on = self._bus._loop.time()
        self._bus._link.ack(self._sid, seq)
        if not self._bus._driver.scheduled:
            self._bus._driver.wake()

    def _nak(self, seq: int, delay: float) -> None:
        self._out.discard(seq)
        self._bus._link.nak(self._sid, [seq, seq], int(delay * 1000), True)
        self._bus._driver.wake()

    def _reject(self, seq: int, reason: str) -> None:
        self._out.discard(seq)
        self._bus._link.reject(self._sid, seq, reason)
        self._bus._driver.wake()

    def _extend(self, seq: int, seconds: float | None) -> None:
        self._bus._link.extend(self._sid, [seq, seq], int(seconds * 1000) if seconds else 0)
        self._bus._driver.wake()

    async def flush(self, timeout: float | None = 30.0) -> None:
        """Return when everything settled so far is on the hub's disk.

        Raises OutcomeUnknown when the hub restarted meanwhile: what was settled may come again. TimeoutError.
        """
        record = self._bus._link.settled_by(self._sid)
        if record <= self._settled:
            return
        if record <= self._lost:
            self._settled = record  # said once
            raise _unknown()
        self._bus._driver.wake()
        future: asyncio.Future[None] = self._bus._loop.create_future()
        self._flushes.append((record, future))
        await asyncio.wait_for(future, timeout)

    def _acked(self, record: int) -> None:
        self._settled = max(self._settled, record)
        while self._flushes and self._flushes[0][0] <= record:
            wanted, future = self._flushes.popleft()
            if not future.done():
                if wanted <= self._lost:
                    future.set_exception(_unknown())
                else:
                    future.set_result(None)

    # -- what the hub says

    def _take(self, run: events.Deliver) -> None:
        if self._left:  # it was on its way when we gave back the others, and is no failure either
            self._bus._link.nak(self._sid, [run.seq, run.seq + len(run.bodies) - 1], 0, False)
            self._bus._driver.wake()
            return
        if not self._runs:
            self._went_on = self._bus._loop.time()
        self._runs.append(run)
        self._readable.set()

    def _expired(self, spans: list[int]) -> None:
        """Leases have ended: what was not handed out yet is not ours any more."""
        if not spans:  # all, and what was settled on the way is not known to be
            self._runs.clear()
            self._at = 0
            self._out.clear()
            self._lost = self._bus._link.settled_by(self._sid)
            flushes, self._flushes = self._flushes, deque()
            for _, future in flushes:
                if not future.done():
                    future.set_exception(_unknown())
            return
        ended = [(first, last) for first, last in zip(spans[::2], spans[1::2], strict=True)]
        kept: deque[events.Deliver] = deque()
        for run in self._waiting_runs():
            kept.extend(_without(run, ended))
        self._runs, self._at = kept, 0
        self._out = {seq for seq in self._out if not any(first <= seq <= last for first, last in ended)}

    def _waiting_runs(self) -> Iterable[events.Deliver]:
        """What was not handed out."""
        for number, run in enumerate(self._runs):
            skip = self._at if number == 0 else 0
            yield run._replace(seq=run.seq + skip, bodies=run.bodies[skip:]) if skip else run

    def _unseen(self) -> list[int]:
        """First, last, first, last, … of what the program has not been handed yet."""
        return [number for run in self._waiting_runs() for number in (run.seq, run.seq + len(run.bodies) - 1)]

    def _keep_alive(self) -> None:
        """What waits here costs its lease nothing, as long as the program goes on: one that is stuck keeps nothing."""
        self._timer = self._bus._loop.call_later(self.lease / EXTENSIONS, self._keep_alive)
        spans = self._unseen()
        if spans and self._bus._loop.time() - self._went_on <= self.lease:
            self._bus._link.extend(self._sid, spans)
            self._bus._driver.wake()

    # -- the end

    async def close(self) -> None:
        """Wait until what was settled is on disk, give the rest back, and leave the group."""
        self._leave()
        if self._bus._registered.get(self._sid) is self:
            with contextlib.suppress(TimeoutError, QuloError):  # then it is delivered again
                await self.flush(CLOSE_TIMEOUT)
        self._forget()
        self._end()

    def _leave(self) -> None:
        """Give back what is not settled, uncounted: it was no failure."""
        if self._left:
            return
        self._left = True
        held = sorted(self._out.union(*(range(r.seq, r.seq + len(r.bodies)) for r in self._waiting_runs())))
        self._runs.clear()
        self._out.clear()
        self._bus._link.nak(self._sid, flat(spans_of(held)), 0, False)
        self._bus._driver.wake()

    def _end(self, error: QuloError | None = None) -> None:
        self._closed = True
        self._error = self._error or error
        if self._timer is not None:
            self._timer.cancel()
        self._readable.set()
        flushes, self._flushes = self._flushes, deque()
        for _, future in flushes:
            if not future.done():
                future.set_exception(_unknown())


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown(
        "the hub restarted, or the connection to it was lost: what was settled may be delivered again"
    )


def _without(run: events.Deliver, ended: list[tuple[int, int]]) -> list[events.Deliver]:
    """A run without what is in these spans, as several where that is in the middle."""
    kept = [
        seq
        for seq in range(run.seq, run.seq + len(run.bodies))
        if not any(first <= seq <= last for first, last in ended)
    ]
    if len(kept) == len(run.bodies):
        return [run]
    return [
        run._replace(seq=first, bodies=run.bodies[first - run.seq : last - run.seq + 1])
        for first, last in spans_of(kept)
    ]


def make_extra(name: str | None, delay: float | None, ttl: float | None, require: str | None) -> dict[str, Any] | None:
    """What a put says beside topic and body. Raises UsageError."""
    extra: dict[str, Any] = {}
    if name is not None:
        if not 0 < len(name) <= 255:
            raise UsageError(f"an id is text of 1 to 255 characters, not of {len(name)}")
        extra["ids"] = [name]
    for what, seconds in (("delay", delay), ("ttl", ttl)):
        if seconds is not None:
            if seconds < 0:
                raise UsageError(f"{what} is a number of seconds, not {seconds}")
            extra[what] = int(seconds * 1000)
    if require is not None:
        if require != "master":
            raise UsageError(f"a put can require the master, not {require!r}")
        extra["require"] = require
    return extra or None


class Asks(Protocol):
    """A bus, as far as reading needs it."""

    async def request(self, topic: str, body: Any = None, *, timeout: float = 5.0) -> Any:
        """Ask the hub."""


async def read_stream(
    bus: Asks, stream: str, topic: str, seq: int | None, since: float | None, last: bool
) -> AsyncIterator[StoredMessage]:
    """See `Bus.read`."""
    argument: dict[str, Any] = {"stream": stream, "topic": topic, "count": PAGE, "last": last}
    if since is not None:
        argument["since"] = since
    if seq is not None:
        argument["after"] = seq - 1
    while True:
        page = await bus.request("$qulo.stream.read", argument, timeout=30.0)
        for number, on, kind, body, time_ms in page["messages"]:
            run = events.Deliver(0, number, 1, False, time_ms, on, kind, [body])
            yield StoredMessage(stream, number, run, body)
        if page["end"]:
            return
        argument.pop("since", None)
        argument["after"] = page["next"]
