"""How long it takes until many enrolled links are back after a restart of their hub; qulo only."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.errors import MeasureFailed
from benchmarks.servers import enrolled, new_directory, restartable_qulod, stop

# A thousand handshakes with CURVE, on two cores.
_READY_WITHIN = 120.0
_BACK_WITHIN = 60.0
_END_WITHIN = 15.0


async def returning(links: int, processes: int) -> dict[str, float]:
    """Seconds from the end of the old hub, and from the moment the new one is ready, until all links are back."""
    with new_directory() as place:
        enrolled(place, links)
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(restartable_qulod(place))
            share = -(-links // processes)
            peers = []
            for first in range(0, links, share):
                count = min(share, links - first)
                arguments = [hub.url, str(place / "data" / "master.pub"), str(place / "keys"), str(first), str(count)]
                peers.append(await _start(arguments))
                stack.push_async_callback(_end, peers[-1])
            await asyncio.gather(*(_heard(peer, _READY_WITHIN) for peer in peers))
            for peer in peers:
                assert peer.stdin
                peer.stdin.write(b"go\n")
            await hub.stop()
            stopped = time.monotonic_ns()
            await hub.start()
            ready = time.monotonic_ns()
            told = await asyncio.gather(*(_heard(peer, _BACK_WITHIN) for peer in peers))
    last = max(each["last_ns"] for each in told)
    return {"seconds": (last - stopped) / 1e9, "after_ready": max(0.0, (last - ready) / 1e9)}


async def _start(arguments: list[str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.links", *arguments, stdin=PIPE, stdout=PIPE, cwd=Path.cwd()
    )


async def _heard(process: Process, within: float) -> dict[str, int]:
    assert process.stdout
    try:
        line = await asyncio.wait_for(process.stdout.readline(), within)
    except TimeoutError:
        raise MeasureFailed(f"not all links were connected within {within:g} s") from None
    if not line:
        raise MeasureFailed("a process of links ended early; its traceback is above")
    fields: dict[str, int] = json.loads(line)
    return fields


async def _end(process: Process) -> None:
    assert process.stdin
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _END_WITHIN)
    except TimeoutError:
        await stop(process, _END_WITHIN)
