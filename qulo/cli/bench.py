"""`qulo bench`: how fast the hub in use is, for messages and for requests, with every message counted."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qulo.cli import body, exits, hub
from qulo.cli.colour import red
from qulo.cli.options import Verb, count

if TYPE_CHECKING:
    from types import FrameType

    from qulo.client import Message
    from qulo.protocol.tracker import Gap
    from qulo.sync import Bus

# Bytes of bodies that the publisher may be ahead of the slowest subscriber: enough to keep every buffer on the way
# busy, and a fraction of what a subscriber takes in before it would drop something.
_AHEAD = 8 * 1024 * 1024

# Messages between two looks at how far ahead that is.
_STEP = 256

# Seconds without any message, without --timeout, after which the rest is missing; and for one answer.
_STALLED = 5.0

# Seconds that requests are measured for, at most, with each number of them in flight.
_REQUESTS = 2.0
_IN_FLIGHT = (1, 100)

# Bytes of requests in flight, at most: half of the default `link_buffer`. A responder for whom more is under way
# than that gets no other request, whoever asks is told `overloaded`.
_ASKED = 2 * 1024 * 1024

# Seconds between two looks at whether messages have arrived. When the last one did is noted by its subscriber.
_LOOK = 0.002

# Each subscriber is a connection with two threads: more of them measure this program's threads, not the hub.
_MOST_SUBSCRIBERS = 64


_MANUAL = """\
Publishes --count messages on --topics topics in turn and counts them at each
of --subscribers subscribers, which all get all of them. Then asks for --size
bytes back, for 2 s or --count requests, with 1 request in flight, and with 100
(of large bodies fewer: 2 MB). All in this one process, with the blocking
client, one connection per subscriber: what is measured is the hub and Python
at both ends of it. The publisher stays within 8 MB of the slowest subscriber.
The topics are below qulo.bench.PID.

  published    until the hub has acknowledged the last message
  received     from the first publish to the last message, of all subscribers
               together; what is missing, and gaps that were reported
  in flight    round trips: how many, the median and the 99th percentile

After --timeout (5 s) without any message the rest is called missing. The load
is real: others who use the hub will feel it. --json: one object per line;
"type" is publish, receive or request, a rate is per second, p50 and p99 are
in ms.

exit status:
  0    nothing is missing
  1    messages are missing or came twice, or there were gaps
  130  ended by Ctrl-C, with what was measured until then
`qulo --help` has the rest.

examples:
  qulo bench
  qulo bench --size 10000 --count 20000 --subscribers 4
  qulo bench --topics 100 --json
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", metavar="BYTES", type=count, default=100, help="of a body; 100 by default")
    add("-C", "--count", metavar="N", type=count, default=200_000, help="messages to publish; 200000 by default")
    add("--topics", metavar="N", type=count, default=1, help="topics to publish on in turn; 1 by default")
    add("--subscribers", metavar="N", type=_subscribers, default=1, help="subscribers to all topics; 1 by default")
    add("--json", action="store_true", help="one object per line")


def _subscribers(text: str) -> int:
    value = count(text)
    if value > _MOST_SUBSCRIBERS:
        raise argparse.ArgumentTypeError(f"{text} are too many, {_MOST_SUBSCRIBERS} is the most")
    return value


def _run(arguments: argparse.Namespace) -> int:
    table = _Table(arguments)
    with contextlib.ExitStack() as stack:
        buses = [stack.enter_context(hub.connect(arguments)) for _ in range(1 + arguments.subscribers)]
        stop = stack.enter_context(_ctrl_c())
        bench = _Bench(arguments, buses[0], buses[1:], stop)
        table.head(bench.bus.url)
        complete = bench.messages(table)
        for in_flight in sorted({min(each, max(_ASKED // arguments.size, 1)) for each in _IN_FLIGHT}):
            bench.requests(in_flight, table)
        if not complete:
            return exits.FAILED
        return exits.INTERRUPTED if stop.is_set() else exits.OK


@contextlib.contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that nothing is torn apart while it is counted; a second one interrupts."""
    pressed = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as a shell's background job: Ctrl-C is not meant for us
        yield pressed
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


class _Counter:
    """Counts what one subscription gets, in its own thread."""

    def __init__(self) -> None:
        self.messages = 0
        self.gaps = 0
        self.latest = time.monotonic()

    def message(self, _message: Message) -> None:
        """One has come."""
        self.messages += 1
        self.latest = time.monotonic()

    def gap(self, _gap: Gap) -> None:
        """Some will not come."""
        self.gaps += 1


@dataclass(slots=True)
class _Trips:
    """Round trips of some threads that ask at the same time."""

    ask: Callable[[], object]
    left: Iterator[int]
    stop: threading.Event
    until: float
    times: list[float] = field(default_factory=list)
    """In ms."""
    errors: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        """One of the threads."""
        try:
            while not self.stop.is_set() and not self.errors and next(self.left, None) is not None:
                started = time.monotonic()
                if started >= self.until:
                    return
                self.ask()
                self.times.append((time.monotonic() - started) * 1000)
        except BaseException as error:  # noqa: BLE001 - raised where the threads are waited for
            self.errors.append(error)


class _Bench:
    """The measurements: one publisher, who also asks, and subscribers, the first of which also answers."""

    def __init__(self, arguments: argparse.Namespace, bus: Bus, others: Sequence[Bus], stop: threading.Event) -> None:
        self.bus = bus
        self._arguments = arguments
        self._others = others
        self._stop = stop
        self._body = bytes(arguments.size)
        self._patience: float = arguments.timeout or _STALLED
        # PIDs are one host's; somebody on another may measure the same hub just now.
        self._prefix = f"qulo.bench.{os.getpid()}.{os.urandom(4).hex()}"

    # -- messages

    def messages(self, table: _Table) -> bool:
        """Publish and count; was everything there, once?"""
        counters = [_Counter() for _ in self._others]
        subscriptions = [
            bus.subscribe(f"{self._prefix}.topic.*", counter.message, on_gap=counter.gap)
            for bus, counter in zip(self._others, counters, strict=True)
        ]
        started = time.monotonic()
        sent = self._publish(counters)
        self.bus.flush(self._patience)
        published = time.monotonic() - started
        self._wait_for(counters, sent)
        received = max(counter.latest for counter in counters) - started
        for subscription in subscriptions:
            subscription.close()  # what comes twice has come by now
        table.published(sent, published)
        return table.received(sent, counters, received)

    def _publish(self, counters: Sequence[_Counter]) -> int:
        """How many were sent: fewer than --count after Ctrl-C, or when a subscriber gets nothing any more."""
        topics = [f"{self._prefix}.topic.{number}" for number in range(self._arguments.topics)]
        ahead = max(_AHEAD // self._arguments.size, 1)
        step = min(_STEP, ahead)
        for number, topic in zip(range(self._arguments.count), itertools.cycle(topics), strict=False):
            if number % step == 0 and (self._stop.is_set() or not self._wait_for(counters, number - ahead)):
                return number
            self.bus.publish(topic, self._body)
        return int(self._arguments.count)

    def _wait_for(self, counters: Sequence[_Counter], messages: int) -> bool:
        """Until each has so many; False: the slowest gets nothing any more."""
        before, since = -1, time.monotonic()
        while (least := min(counter.messages for counter in counters)) < messages:
            if least != before:
                before, since = least, time.monotonic()
            elif time.monotonic() - since > self._patience:
                return False
            time.sleep(_LOOK)
        return True

    # -- requests

    def requests(self, in_flight: int, table: _Table) -> None:
        """Round trips with so many under way at a time."""
        topic = f"{self._prefix}.request"
        with self._others[0].respond(topic, lambda message: message.body):
            started = time.monotonic()
            left = iter(range(self._arguments.count))
            trips = _Trips(
                lambda: self.bus.request(topic, self._body, timeout=self._patience),
                left,
                self._stop,
                started + _REQUESTS,
            )
            threads = [threading.Thread(target=trips.work, daemon=True) for _ in range(in_flight)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - started
        if trips.times:
            table.requests(in_flight, trips.times, seconds)
        if trips.errors:
            raise trips.errors[0]


class _Table:
    """Shows each measurement as soon as there is one."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments

    def head(self, url: str) -> None:
        """What is measured."""
        if not self._arguments.json:
            numbers = self._arguments
            messages = f"{_plural(numbers.count, 'message')} of {_plural(numbers.size, 'byte')}"
            ways = f"on {_plural(numbers.topics, 'topic')} to {_plural(numbers.subscribers, 'subscriber')}"
            _print(f"{messages} {ways} by {url}")

    def published(self, sent: int, seconds: float) -> None:
        """All that was sent is acknowledged."""
        if self._arguments.json:
            self._print_json("publish", seconds, sent, size=self._arguments.size, topics=self._arguments.topics)
        else:
            self._print_rate("published", sent / seconds, f"{self._megabytes(sent / seconds)}, {sent} sent")

    def received(self, sent: int, counters: Sequence[_Counter], seconds: float) -> bool:
        """Nothing comes any more; is everything there, once?"""
        missing = sum(max(sent - counter.messages, 0) for counter in counters)
        extra = sum(max(counter.messages - sent, 0) for counter in counters)
        gaps = sum(counter.gaps for counter in counters)
        messages = sum(counter.messages for counter in counters)
        rate = messages / seconds if messages else 0.0
        if self._arguments.json:
            found = {"missing": missing, "extra": extra, "gaps": gaps}
            self._print_json("receive", seconds, messages, subscribers=len(counters), **found)
        else:
            losses = f"{missing} missing, {_plural(gaps, 'gap')}" + (f", {extra} too many" if extra else "")
            if missing or gaps or extra:
                losses = red(losses)
            self._print_rate("received", rate, f"{self._megabytes(rate)}, {losses}")
        return not (missing or gaps or extra)

    def requests(self, in_flight: int, times: Sequence[float], seconds: float) -> None:
        """Round trips, in ms."""
        ordered = sorted(times)
        p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        if self._arguments.json:
            each = {"in_flight": in_flight, "size": self._arguments.size, "p50": round(p50, 3), "p99": round(p99, 3)}
            self._print_json("request", seconds, len(times), **each)
        else:
            self._print_rate(
                f"{in_flight} in flight", len(times) / seconds, f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", "req"
            )

    def _megabytes(self, rate: float) -> str:
        return f"{rate * self._arguments.size / 1e6:.1f} MB/s"

    @staticmethod
    def _print_rate(what: str, rate: float, more: str, unit: str = "msg") -> None:
        _print(f"{what:<14} {rate:>9.0f} {unit}/s   {more}")

    @staticmethod
    def _print_json(kind: str, seconds: float, number: int, **fields: Any) -> None:
        rate = round(number / seconds, 1) if number else 0.0
        what = {"type": kind, "count": number, "seconds": round(seconds, 4), "rate": rate}
        _print(body.to_json({**what, **fields}))


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print(line: str) -> None:
    print(line, flush=True)  # the next measurement takes a while


VERB = Verb("bench", "measure the hub in use", _MANUAL, _add_options, _run, exits.INTERRUPTED)
