"""What an idle agent takes, and how long the command line takes to say its version; qulo only."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from pathlib import Path

from benchmarks.errors import MeasureFailed
from benchmarks.servers import program, qagent, qulod

# After its start an agent still connects and collects facts; that is not idling.
_CALM_DOWN = 3.0

_VERSION_WITHIN = 10.0

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Fields of /proc/PID/stat counted after "pid (comm) ", see proc_pid_stat(5): 14 utime, 15 stime, 24 rss.
_UTIME, _STIME, _RSS = 11, 12, 21


async def idle_agent(seconds: float) -> dict[str, float]:
    """Resident MB of a qagent and of its executor, and per cent of a core that both take, over `seconds`."""
    async with qulod(curve=False) as master, qagent(master) as agent:
        await asyncio.sleep(_CALM_DOWN)
        before, started = _usage(agent.pid)[0], time.monotonic()
        await asyncio.sleep(seconds)
        after, (resident, *others) = _usage(agent.pid)
        elapsed = time.monotonic() - started
    percent = 100 * (after - before) / elapsed
    return {"rss_mb": resident / 1e6, "executor_mb": sum(others) / 1e6, "cpu_percent": percent}


def _usage(pid: int) -> tuple[float, list[int]]:
    """CPU seconds of a process and its descendants, and the resident bytes of each, its own first."""
    stats = [_stat(each) for each in _family(pid)]
    ticks = sum(int(stat[_UTIME]) + int(stat[_STIME]) for stat in stats)
    return ticks / _TICKS, [int(stat[_RSS]) * _PAGE for stat in stats]


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _stat(pid: int) -> list[str]:
    """The fields after the name, which is in parentheses and may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def startup(runs: int) -> dict[str, float]:
    """Median wall seconds of `qulo --version`. Raises MeasureFailed if it does not exit with 0."""
    return {"seconds": statistics.median([await _version() for _ in range(runs)])}


async def _version() -> float:
    argv = [program("qulo"), "--version"]
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL)
    status = await asyncio.wait_for(process.wait(), _VERSION_WITHIN)
    if status != 0:
        raise MeasureFailed(f"qulo --version exited with {status}")
    return time.monotonic() - started
