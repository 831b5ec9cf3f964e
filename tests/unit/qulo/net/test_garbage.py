"""Garbage costs its sender something and nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import qulo
from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.report import LOCAL_LIST
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import running_qulod
from tests.unit.qulo.net import garbage

FRAMES = 30_000
SEED = 1
REQUESTS = 2_000
GROWTH = 20 * 1024 * 1024


@pytest.fixture
def qulod(short_place: Path) -> Iterator[tuple[int, str]]:
    """A hub in a process of its own: its PID and address."""
    with running_qulod(short_place) as (process, addresses):
        yield process.pid, addresses["listen"]


def memory_of(pid: int) -> int:
    """Bytes that a process holds."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096


async def ask_and_answer(here: qulo.Bus, there: qulo.Bus, count: int) -> None:
    """Requests, a few at a time, all of which succeed."""
    async with there.respond("double", lambda m: 2 * m.body):
        for start in range(0, count, 20):
            batch = range(start, start + 20)
            assert await asyncio.gather(*(here.request("double", n, timeout=20) for n in batch)) == [
                2 * n for n in batch
            ]


@pytest.mark.parametrize("greet", [False, True], ids=["a stranger's", "a session's"])
def test_garbage_disturbs_nobody(qulod: tuple[int, str], greet: bool) -> None:
    pid, url = qulod

    async def story() -> None:
        async with qulo.connect(url, name="here") as here, qulo.connect(url, name="there") as there:
            await ask_and_answer(here, there, 200)
            before = memory_of(pid)
            throwing = asyncio.create_task(asyncio.to_thread(garbage.throw, url, FRAMES, SEED, greet))
            await ask_and_answer(here, there, REQUESTS)
            await throwing
            listed = await here.request(LOCAL_LIST)
            assert listed["hub"]["counters"]["frames_in"] > FRAMES
            assert listed["hub"]["counters"]["bad_frames"] > FRAMES * 2 / 3
            assert ("garbage" in [peer["name"] for peer in listed["peers"]]) == greet
            async with there.subscribe("g.*") as sub:
                await here.publish("g.x", "after")
                item = await sub.next(5)
                assert isinstance(item, qulo.Message)
                assert item.body == "after"
            await ask_and_answer(here, there, 200)
            assert memory_of(pid) - before < GROWTH

    _run(story(), timeout=60)


def test_every_kind_of_garbage_is_refused_by_the_decoder_or_harmless() -> None:
    refused = 0
    for frame in garbage.frames(5000, seed=2):
        try:
            _, _, records = wire.decode(frame)
            for record in records:
                wire.check(record, "up")
        except ProtocolError:
            refused += 1
    assert refused > 2500


def test_no_garbage_says_goodbye() -> None:
    for frame in garbage.frames(FRAMES, seed=SEED):
        try:
            records = wire.decode(frame)[2]
        except ProtocolError:
            continue
        assert [wire.BYE] not in records
