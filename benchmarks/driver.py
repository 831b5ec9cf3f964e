"""One measurement: a fresh server, its peers, one go, and what they counted added up."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Consume, FanOut, Flood, IdleAgent, Puts, Requests, Return, Side, Startup, Work
from benchmarks.errors import MeasureFailed
from benchmarks.idle import idle_agent, startup
from benchmarks.jobs import Job
from benchmarks.returning import returning
from benchmarks.servers import Server, flooders_key, jetstream_server, nats_server, qulod, stop

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
        case Return():
            return Outcome(await returning(work.links, work.processes))
        case Flood():
            async with qulod(curve=True) as server:
                return await _flood(work, server, work.counts[side])
        case FanOut():
            async with _server(side, secure=work.secure) as server:
                outcome = await _fan_out(work, server, work.counts[side])
            return await _beside_plain(work, outcome) if work.secure and side == "qulo" else outcome
        case Puts():
            count, in_flight = work.counts[side], work.in_flight
            return await _alone(
                "putter", side, lambda server: Job(server.endpoint, count, in_flight=in_flight), fsync=work.fsync
            )
        case Consume():
            count, push = work.counts[side], work.push
            return await _alone("consumer", side, lambda server: Job(server.endpoint, count, push=push), fsync=False)
        case Requests():
            async with _server(side) as server:
                return await _requests(work, server, work.counts[side])


async def _alone(role: str, side: Side, job: Callable[[Server], Job], *, fsync: bool) -> Outcome:
    """One peer and a server with streams."""
    async with qulod(curve=False) if side == "qulo" else jetstream_server(fsync=fsync) as server:
        wanted = job(server)
        async with _peers([(role, wanted)]) as (peer,):
            peer.go()
            report = await peer.heard(_DONE_WITHIN)
    return Outcome(report, wanted.count - report["count"])


def _server(side: Side, *, secure: bool = False) -> AbstractAsyncContextManager[Server]:
    return qulod(curve=secure) if side == "qulo" else nats_server(tls=secure)


async def _beside_plain(work: FanOut, secure: Outcome) -> Outcome:
    """The outcome with CURVE, and what that is of one without."""
    async with qulod(curve=False) as server:
        plain = await _fan_out(work, server, work.counts["qulo"])
    figures = dict(secure.figures)
    if "rate" in figures and "rate" in plain.figures:
        figures["of_plain"] = 100 * figures["rate"] / plain.figures["rate"]
    return Outcome(figures, secure.missing + plain.missing, secure.gaps + plain.gaps)


async def _flood(work: Flood, server: Server, count: int) -> Outcome:
    """The maximum; a share of it in peace; the same while another accepted peer sends nothing but garbage."""
    top = await _fan_out(FanOut(work.counts), server, count)
    rate = work.share * top.figures["rate"]
    job = Job(server.endpoint, int(rate * work.seconds), rate=rate)
    calm, calm_missing = await _paced(job)
    own = None if job.endpoint.key is None else str(flooders_key(Path(job.endpoint.key)))
    flooding = replace(job, count=0, endpoint=replace(job.endpoint, key=own))
    async with _peers([("flooder", flooding)]) as (flooder,):
        flooder.go()
        await flooder.heard(_DONE_WITHIN)  # it is ignored by now
        loud, loud_missing = await _paced(job)
        flooder.go()  # and stop
        flood = (await flooder.heard(_DONE_WITHIN))["rate"]
    figures = {
        "rate": loud["rate"],
        "of_calm": 100 * loud["rate"] / calm["rate"],
        "p99_ms": loud["p99_ns"] / 1e6,
        "p99_times": loud["p99_ns"] / calm["p99_ns"],
        "flood": flood,
    }
    return Outcome(figures, top.missing + calm_missing + loud_missing, top.gaps)


async def _paced(job: Job) -> tuple[dict[str, float], int]:
    """A publisher with a clock, and what its subscriber saw: its figures, and how many messages are missing."""
    async with _peers([("timed_subscriber", job), ("paced_publisher", job)]) as (subscriber, publisher):
        subscriber.go()
        publisher.go()
        started = (await publisher.heard(_DONE_WITHIN))["started_ns"]
        report = await subscriber.heard(_DONE_WITHIN)
    if not report["last_ns"]:
        raise MeasureFailed(f"{report['count']} of {job.count} messages came")
    rate = report["count"] * 1e9 / (report["last_ns"] - started)
    return {"rate": rate, "p99_ns": report["p99_ns"]}, job.count - report["count"]


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
    module = "benchmarks.flooding" if role == "flooder" else "benchmarks.peers"
    argv = [sys.executable, "-m", module, role, job.to_json()]
    return _Peer(role, await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE))
