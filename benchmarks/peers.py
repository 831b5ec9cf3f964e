"""The processes at the ends: publisher, subscriber, requester and responder.

    python -m benchmarks.peers ROLE JOB

The same code for both systems; only the `Client` differs. A peer speaks JSON lines with the driver: it says
"ready" when it is connected and, where it subscribes, the server has confirmed that; it does its work on
"go", says what came of it, and ends when its stdin does. Times are CLOCK_MONOTONIC in ns, which all processes
of a machine share. Anything that goes wrong ends the process with a traceback: a peer never reports a figure
it did not measure.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import cycle, islice
from typing import Any, cast

from benchmarks.cases import BODY, Side
from benchmarks.client import Client, ClientModule, StreamClient, Tally
from benchmarks.jobs import Job

_ECHO = "bench.echo"

# Between bursts a client may wait for its server. 1,000 messages are some milliseconds of work for either.
_BURST = 1_000

# A subscriber that has counted nothing new for so long gives up; a healthy loopback never stalls that long.
_QUIET = 5.0

# After the last message, so that one delivered twice is noticed.
_SETTLE = 0.1

# Connections are warm and inboxes exist before requests are timed.
_WARM_UP = 200

_REQUEST_TIMEOUT = 10.0

# Puts in flight while a stream is filled for a consumer.
_FILLING = 1_000

# A paced publisher looks at the clock so often (seconds); one message in so many is timed.
_TICK = 0.001
_EVERY = 16


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def _hear() -> None:
    """Wait for the driver's next line, or its end, while the connection stays served."""
    await asyncio.to_thread(sys.stdin.readline)


async def _publisher(client: Client, job: Job) -> None:
    _say(ready=True)
    await _hear()
    started = time.monotonic_ns()
    await _publish_all(client, job)
    await client.flush()
    _say(started_ns=started)
    await _hear()


async def _publish_all(client: Client, job: Job) -> None:
    publish, topics = client.publish, cycle(job.topics)
    for sent in range(0, job.count, _BURST):
        for topic in islice(topics, min(_BURST, job.count - sent)):
            await publish(topic, BODY)
        await client.pause()


async def _subscriber(client: Client, job: Job) -> None:
    tally = Tally(job.count)
    async with client.counting(job.pattern, job.style, tally):
        _say(ready=True)
        await _hear()
        await _all_counted(tally)
        _say(count=tally.count, gaps=tally.gaps, last_ns=tally.last_ns)
        await _hear()


async def _all_counted(tally: Tally) -> None:
    """Return when the count is complete, or when nothing more comes."""
    seen = -1
    while not tally.done.is_set() and tally.count > seen:
        seen = tally.count
        with suppress(TimeoutError):
            await asyncio.wait_for(tally.done.wait(), _QUIET)
    await asyncio.sleep(_SETTLE)


async def _responder(client: Client, _job: Job) -> None:
    async with client.echoing(_ECHO):
        _say(ready=True)
        await _hear()


async def _requester(client: Client, job: Job) -> None:
    await _ask_each(client, iter(range(_WARM_UP)))
    _say(ready=True)
    await _hear()
    started = time.monotonic_ns()
    tickets = iter(range(job.count))
    asked = await asyncio.gather(*(_ask_each(client, tickets) for _ in range(job.in_flight)))
    seconds = (time.monotonic_ns() - started) / 1e9
    percentiles = statistics.quantiles([took for worker in asked for took in worker], n=100)
    answered = sum(map(len, asked))
    _say(count=answered, rate=answered / seconds, p50_us=percentiles[49] / 1e3, p99_us=percentiles[98] / 1e3)
    await _hear()


async def _ask_each(client: Client, tickets: Iterator[int]) -> list[int]:
    """One request after another while there are tickets; the ns of each that was answered with its body."""
    took = []
    for _ in tickets:
        before = time.monotonic_ns()
        answer = await client.request(_ECHO, BODY, timeout=_REQUEST_TIMEOUT)
        if client.body_of(answer) == BODY:
            took.append(time.monotonic_ns() - before)
    return took


async def _putter(client: StreamClient, job: Job) -> None:
    topic = job.topics[0]
    await client.make_stream(topic)
    await client.put_all(topic, BODY, _WARM_UP, job.in_flight)
    _say(ready=True)
    await _hear()
    started = time.monotonic_ns()
    await client.put_all(topic, BODY, job.count, job.in_flight)
    _say(count=job.count, rate=job.count * 1e9 / (time.monotonic_ns() - started))
    await _hear()


async def _consumer(client: StreamClient, job: Job) -> None:
    topic = job.topics[0]
    await client.make_stream(topic)
    await client.put_all(topic, BODY, job.count, _FILLING)
    _say(ready=True)
    await _hear()
    started = time.monotonic_ns()
    await client.consume_all(topic, job.count, job.push)
    _say(count=job.count, rate=job.count * 1e9 / (time.monotonic_ns() - started))
    await _hear()


async def _paced_publisher(client: Client, job: Job) -> None:
    """As many messages as the clock says, each with its time in it, in bursts of a millisecond."""
    _say(ready=True)
    await _hear()
    publish, topic, fill = client.publish, job.topics[0], BODY[8:]
    started = time.monotonic_ns()
    sent = 0
    while sent < job.count:
        now = time.monotonic_ns()
        due = min(job.count, int((now - started) * job.rate / 1e9))
        for _ in range(sent, due):
            await publish(topic, time.monotonic_ns().to_bytes(8, "big") + fill)
        sent = max(sent, due)
        await asyncio.sleep(_TICK)
    await client.flush()
    _say(started_ns=started)
    await _hear()


class _Timed(Tally):
    """Takes the age of every `_EVERY`th message: enough for a p99, too few to be the bottleneck."""

    def __init__(self, expected: int) -> None:
        super().__init__(expected)
        self.ages: list[int] = []

    def add(self, message: Any) -> None:
        """Count one message."""
        if self.count % _EVERY == 0:
            self.ages.append(time.monotonic_ns() - int.from_bytes(message.body[:8], "big"))
        super().add(message)


async def _timed_subscriber(client: Client, job: Job) -> None:
    tally = _Timed(job.count)
    async with client.counting(job.pattern, "callback", tally):
        _say(ready=True)
        await _hear()
        await _all_counted(tally)
        p99 = statistics.quantiles(tally.ages, n=100)[98] if len(tally.ages) > 1 else 0
        _say(count=tally.count, gaps=tally.gaps, last_ns=tally.last_ns, p99_ns=p99)
        await _hear()


_ROLES: dict[str, Callable[[StreamClient, Job], Coroutine[Any, Any, None]]] = {
    "publisher": _publisher,
    "subscriber": _subscriber,
    "requester": _requester,
    "responder": _responder,
    "putter": _putter,
    "consumer": _consumer,
    "paced_publisher": _paced_publisher,
    "timed_subscriber": _timed_subscriber,
}

# Imported by name, so that a peer loads one system's library only.
_MODULES: dict[Side, str] = {"qulo": "benchmarks.qulo_side", "nats": "benchmarks.nats_side"}


async def _work(role: str, job: Job) -> None:
    module = cast(ClientModule, importlib.import_module(_MODULES[job.endpoint.side]))
    async with module.connect(job.endpoint) as client:
        await _ROLES[role](client, job)


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], Job.from_json(sys.argv[2])))
