"""A daemon's bad days: reloads and rotations under load, an end under load, a kill -9 in mid-flow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import qulo
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import until as until_now
from tests.unit.qulo.site import until
from tests.unit.qulo.test_roles import Role, free_port

MANY = 20_000


@pytest.fixture
def qulod(short_place: Path) -> Iterator[Role]:
    role = Role(short_place, "qulod")
    role.configure()
    yield role
    role.end()


def took_over(log: str) -> list[tuple[str, str]]:
    """What `slow_after` was and became, by every line of `log` that says so."""
    return re.findall(r"reloaded slow_after: (\S+) -> (\S+)", log)


def is_unbroken(changes: list[tuple[str, str]]) -> bool:
    """Does every line begin where the one before it ended? Then none is missing between them."""
    return all(before[1] == after[0] for before, after in pairwise(changes))


def has_taken_over(role: Role, count: int) -> bool:
    """Does the log tell of that many changes?"""
    return len(took_over(role.log)) == count


# -- reloads and rotations under load


def test_a_hundred_reloads_under_load_lose_nothing_and_are_all_in_the_log(qulod: Role) -> None:
    pid = qulod.start()

    async def reload() -> None:
        for number in range(100):
            qulod.configure(slow_after=f"{100 + number}s")
            os.kill(pid, signal.SIGHUP)
            await until(partial(has_taken_over, qulod, number + 1))

    async def story() -> None:
        got: list[Any] = []
        async with qulo.connect(qulod.url) as here, qulo.connect(qulod.addresses["listen"]) as there:
            await there.subscribe("t.>", lambda m: got.append(m.body), on_gap=got.append)
            await there.flush()
            reloading = asyncio.create_task(reload())
            sent = 0
            while sent < MANY or not reloading.done():
                await here.publish(f"t.{sent % 10}", sent)
                sent += 1
                if sent % 200 == 0:
                    await here.flush()
            await reloading
            await until(lambda: len(got) >= sent)
            assert got == list(range(sent))
            assert here.connected
            assert there.connected

    _run(story(), timeout=40)
    assert len(took_over(qulod.log)) == 100
    assert is_unbroken(took_over(qulod.log))
    assert qulod.pid == pid
    assert "ERROR" not in qulod.log


async def rotate_by_rename(qulod: Role, log: Path, number: int) -> None:
    os.rename(log, log.with_suffix(f".{number}"))
    assert (await asyncio.to_thread(qulod.run, "-s", "reopen"))[0] == 0
    await until(lambda: "log reopened" in qulod.log)


async def rotate_by_copy(qulod: Role, log: Path, number: int) -> None:
    shutil.copyfile(log, log.with_suffix(f".{number}"))
    os.truncate(log, 0)
    await until(lambda: took_over(qulod.log))


@pytest.mark.parametrize("rotate", [rotate_by_rename, rotate_by_copy])
def test_a_log_that_is_rotated_while_it_is_written_keeps_every_line(qulod: Role, rotate: Any) -> None:
    pid = qulod.start()
    log = qulod.place / "qulod.log"
    rotated = asyncio.Event()
    last = ""

    async def write() -> None:
        nonlocal last
        async with qulo.connect(qulod.url) as bus:
            number = 101
            while not rotated.is_set():
                number = 101 + (number - 99) % 2000
                last = f"{number}s"  # odd, so that the log does not call it minutes
                qulod.configure(slow_after=last)
                os.kill(pid, signal.SIGHUP)
                await bus.flush()

    async def story() -> None:
        writing = asyncio.create_task(write())
        await until(lambda: took_over(qulod.log))
        for number in range(1, 4):
            await rotate(qulod, log, number)
        rotated.set()
        await writing
        await until(lambda: took_over(qulod.log)[-1][1] == last)

    _run(story())
    pieces = [log.with_suffix(f".{number}").read_text() for number in range(1, 4)] + [log.read_text()]
    assert not [piece for piece in pieces if "\0" in piece]
    assert [piece for piece in pieces if piece and not piece.endswith("\n")] == []
    # What is written between the copy and the truncation is lost with every daemon there is; nothing else may be.
    for piece in pieces if rotate is rotate_by_copy else ["".join(pieces)]:
        assert took_over(piece)
        assert is_unbroken(took_over(piece))
    assert qulod.pid == pid


# -- the end, ordered and not


def test_term_under_load_loses_nothing_that_was_acknowledged(qulod: Role) -> None:
    pid = qulod.start()

    async def story() -> None:
        got: list[Any] = []
        acknowledged = 0
        async with qulo.connect(qulod.url) as here, qulo.connect(qulod.addresses["listen"]) as there:
            await there.subscribe("t", lambda m: got.append(m.body), on_gap=got.append)
            await there.flush()

            async def publish() -> None:
                nonlocal acknowledged
                sent = 0
                while True:
                    for _ in range(500):
                        await here.publish("t", sent)
                        sent += 1
                    await here.flush()
                    acknowledged = sent

            publishing = asyncio.create_task(publish())
            await until(lambda: acknowledged >= 2000)
            os.kill(pid, signal.SIGTERM)
            await until(lambda: not qulod.pid)
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError, qulo.QuloError):
                await publishing
            numbers = [item for item in got if isinstance(item, int)]
            assert len(numbers) >= acknowledged
            assert numbers == list(range(len(numbers)))

    _run(story())
    until_now(lambda: qulod.log.rstrip().endswith("stopped"))
    assert "not every peer has acknowledged" not in qulod.log


@pytest.mark.parametrize("victim", ["publisher", "subscriber"])
def test_after_kill_9_of_an_agent_in_mid_flow_only_what_a_gap_announced_is_missing(
    short_place: Path, victim: str
) -> None:
    ports = [free_port(), free_port()]
    master = Role(short_place, "qmaster")
    master.configure(listen=f"tcp://127.0.0.1:{ports[0]}", publish=f"tcp://127.0.0.1:{ports[1]}", session_timeout="1s")
    agents = {}
    for name in ("publisher", "subscriber"):
        (short_place / name).mkdir()
        agents[name] = Role(short_place / name, "qagent", {"name": name, "master": f"tcp://127.0.0.1:{ports[0]}"})
        agents[name].configure()
    killed = agents[victim]

    async def story() -> None:
        got: list[Any] = []
        over = asyncio.Event()
        async with qulo.connect(agents["publisher"].url) as here, qulo.connect(agents["subscriber"].url) as there:
            await there.subscribe("t", lambda m: got.append(m.body), on_gap=got.append)

            async def publish() -> int:
                sent = 0
                while not over.is_set():
                    with contextlib.suppress(qulo.Disconnected):
                        await here.publish("t", sent)
                        sent += 1
                    await asyncio.sleep(0)
                return sent

            publishing = asyncio.create_task(publish())
            await until(lambda: len(got) > 1000)
            os.kill(killed.pid, signal.SIGKILL)
            await until(lambda: not (here if victim == "publisher" else there).connected)
            await asyncio.to_thread(killed.start)
            await until(lambda: any(isinstance(item, qulo.Gap) for item in got))
            flowing = len(got)
            await until(lambda: len(got) > flowing + 1000)
            over.set()
            sent = await publishing
            await until(lambda: got[-1] == sent - 1)

        numbers = [item for item in got if isinstance(item, int)]
        assert numbers == sorted(set(numbers))
        if victim == "subscriber":  # its own hub knows where; the master learns of a publisher's loss by silence
            jumps = [(one, two) for one, two in pairwise(got) if isinstance(one, int) and isinstance(two, int)]
            assert [(one, two) for one, two in jumps if two != one + 1] == []

    try:
        for role in (master, *agents.values()):
            role.start()
        _run(story(), timeout=60)
        assert "Traceback" not in master.log + "".join(role.log for role in agents.values())
    finally:
        for role in (master, *agents.values()):
            role.end()
