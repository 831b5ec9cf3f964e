"""One measurement: a fresh server, its peers, one go, and what they counted added up."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import FanOut, IdleAgent, Requests, Side, Startup, Work
from benchmarks.errors import MeasureFailed
from benchmarks.idle import idle_agent, startup
from benchmarks.jobs import Job
from benchmarks.servers import Server, nats_server, qulod, stop

# Eleven Python processes on two cores take a few seconds to start.
_READY_WITHIN = 60.0

# A measurement is meant to take 2 to 4 s; one that takes this long has failed.
_DONE_WITHIN = 120.0

# A peer ends by itself when its stdin does; then it closes its connection.
_END_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one measurement found; `gaps` are losses that a subscriber was told of.

    `missing` is negative if more came than was sent.
    """

    figures: Mapping[str, float]
    missing: int = 0
    gaps: int = 0


class _Peer:
    """A process of `benchmarks.peers`, spoken to in lines."""

    def __init__(self, role: str, process: Process) -> None:
        self._role = role
        self._process = process

    async def heard(self, within: float) -> dict[str, Any]:
        """The peer's next line. Raises MeasureFailed if there is none."""
        assert self._process.stdout
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), within)
        except TimeoutError:
            raise MeasureFailed(f"the {self._role} was silent for {within:g} s") from None
        if not line:
            raise MeasureFailed(f"the {self._role} ended early; its traceback is above")
        fields: dict[str, Any] = json.loads(line)
        return fields

    def go(self) -> None:
        """Let the peer start its work."""
        assert self._process.stdin
        self._process.stdin.write(b"go\n")

    async def end(self) -> None:
        """Let the peer close its connection and end."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_WITHIN)
        except TimeoutError:
            await stop(self._process, _END_WITHIN)


async def measure(work: Work, side: Side) -> Outcome:
    """Do `work` once with `side`. Raises MeasureFailed if it came to nothing."""
    match work:
        case IdleAgent():
            return Outcome(await idle_agent(work.seconds))
        case Startup():
            return Outcome(await startup(work.runs))
        case FanOut():
            async with _server(side, curve=work.curve) as server:
                return await _fan_out(work, server, work.counts[side])
        case Requests():
            async with _server(side) as server:
                return await _requests(work, server, work.counts[side])


def _server(side: Side, *, curve: bool = False) -> AbstractAsyncContextManager[Server]:
    return qulod(curve=curve) if side == "qulo" else nats_server()


async def _fan_out(work: FanOut, server: Server, count: int) -> Outcome:
    """From the first publish to the moment the last subscriber has counted the last message."""
    topics = tuple(f"bench.{number}" for number in range(work.topics))
    pattern = topics[0] if work.topics == 1 else "bench.>"
    job = Job(server.endpoint, count, topics=topics, pattern=pattern, style=work.style)
    jobs = [("subscriber", job)] * work.subscribers + [("publisher", job)]
    async with _peers(jobs) as (*subscribers, publisher):
        for peer in (*subscribers, publisher):
            peer.go()
        started = (await publisher.heard(_DONE_WITHIN))["started_ns"]
        reports = await asyncio.gather(*(subscriber.heard(_DONE_WITHIN) for subscriber in subscribers))
    counted = sum(report["count"] for report in reports)
    ended = [report["last_ns"] for report in reports]
    figures = {"rate": counted * 1e9 / (max(ended) - started)} if all(ended) else {}
    return Outcome(figures, count * work.subscribers - counted, sum(report["gaps"] for report in reports))


async def _requests(work: Requests, server: Server, count: int) -> Outcome:
    """The requester times itself; its warm-up begins once the responder is ready."""
    job = Job(server.endpoint, count, in_flight=work.in_flight)
    async with _peers([("responder", job)]), _peers([("requester", job)]) as (requester,):
        requester.go()
        report = await requester.heard(_DONE_WITHIN)
    return Outcome(report, count - report["count"])


@asynccontextmanager
async def _peers(jobs: list[tuple[str, Job]]) -> AsyncIterator[list[_Peer]]:
    """Peer processes, all started and ready; they end with the block."""
    async with AsyncExitStack() as stack:
        peers = []
        for role, job in jobs:
            peers.append(await _start(role, job))
            stack.push_async_callback(peers[-1].end)
        await asyncio.gather(*(peer.heard(_READY_WITHIN) for peer in peers))
        yield peers


async def _start(role: str, job: Job) -> _Peer:
    argv = [sys.executable, "-m", "benchmarks.peers", role, job.to_json()]
    return _Peer(role, await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE))
