"""The hub changes its own key, and nobody has to touch a host."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import qulo
from qulo.errors import UsageError
from qulo.net import curve
from qulo.net.service import Service
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until


async def start(site: Site, *agents: str) -> Service:
    """A master with curve, and agents whose keys it accepts."""
    accepted = site.path / "accepted"
    accepted.mkdir()
    for name in agents:
        key = curve.load_or_make(site.path / name / "agent.key")
        (accepted / f"{name}.pub").write_bytes(key.public)
    return await site.start("m", curve="on", accepted_keys=str(accepted))


async def start_agent(site: Site, name: str) -> Service:
    """The master's key is where `--join` would have put it: the agent keeps the next one there."""
    pinned = site.path / name / "joined.pub"
    if not pinned.exists():
        curve.keep_public(pinned, curve.load_public(site.path / "m" / "master.pub"))
    return await site.start(name, under="m", curve="on")


async def rotate(site: Site, step: str, force: bool = False) -> dict[str, Any]:
    async with site.bus("m", local=True) as admin:
        argument = {"step": step, "force": force}
        answer: dict[str, Any] = await admin.request("$qulo.local.admin.keys.rotate", argument)
        return answer


async def stream(bus: qulo.Bus, over: asyncio.Event) -> int:
    count = 0
    while not over.is_set():
        await bus.publish("x", count)
        count += 1
        await asyncio.sleep(0.005)
    await bus.flush()
    return count


def test_everybody_who_was_told_comes_back_by_themselves_and_nothing_is_lost() -> None:
    async def story() -> None:
        async with Site() as site:
            master = await start(site, "a", "b")
            agents = [await start_agent(site, name) for name in "ab"]
            before = curve.load_public(site.path / "m" / "master.pub")
            async with site.bus("a") as here, site.bus("b") as there, there.subscribe("x") as sub:
                over = asyncio.Event()
                sending = asyncio.ensure_future(stream(here, over))
                begun = await rotate(site, "begin")
                await until(lambda: master.hub.know_key() == {"a", "b"})
                assert (site.path / "a" / "master.next.pub").exists()
                started = time.monotonic()
                await rotate(site, "finish")
                await until(lambda: not any(agent.connected for agent in agents))
                await until(lambda: all(agent.connected for agent in agents))
                assert time.monotonic() - started < 5
                over.set()
                count = await sending
                items = [await sub.next(10) for _ in range(count)]
                assert [item.body for item in items if isinstance(item, qulo.Message)] == list(range(count))
            after = curve.load_public(site.path / "m" / "master.pub")
            assert after != before
            assert begun["next"] == curve.fingerprint(after)
            for name in "ab":  # a restart needs neither the old key nor the announcement
                following = site.path / name / "master.next.pub"
                await until(partial(_is_gone, following))
                assert curve.load_public(site.path / name / "joined.pub") == after
            await site.stop("a")
            await start_agent(site, "a")
            assert not (site.path / "m" / "master.next.key").exists()

    _run(story(), timeout=60)


def test_who_missed_it_is_named_and_has_to_join_again() -> None:
    async def story() -> None:
        async with Site() as site:
            await start(site, "a", "b")
            await start_agent(site, "a")
            await start_agent(site, "b")
            await site.stop("b")
            assert (await rotate(site, "begin"))["accepted"] == 2
            await until_told(site, "a")
            with pytest.raises(UsageError, match=r"not told yet: b; .* --force"):
                await rotate(site, "finish")
            assert (await rotate(site, "status"))["missing"] == ["b"]
            await rotate(site, "finish", force=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(start_agent(site, "b"), 1)
            await until(lambda: site.services["a"].connected)
            assert not site.services["b"].connected

    _run(story())


def _is_gone(path: Path) -> bool:
    return not path.exists()


async def until_told(site: Site, name: str) -> None:
    await until(lambda: name in site.services["m"].hub.know_key())


def test_a_change_that_a_restart_interrupted_goes_on_and_can_be_given_up() -> None:
    async def story() -> None:
        async with Site() as site:
            await start(site, "a")
            await start_agent(site, "a")
            begun = await rotate(site, "begin")
            await until_told(site, "a")
            with pytest.raises(UsageError, match="under way already"):
                await rotate(site, "begin")
            await site.stop("m")
            await site.start("m", curve="on", accepted_keys=str(site.path / "accepted"))
            await until_told(site, "a")
            assert (await rotate(site, "status"))["next"] == begun["next"]
            await rotate(site, "abort")
            assert not list((site.path / "m").glob("*.next.*"))
            with pytest.raises(UsageError, match="no change of keys is under way"):
                await rotate(site, "finish")
            await site.stop("a")
            await start_agent(site, "a")  # with the old key, although it was told of another one

    _run(story(), timeout=60)


def test_a_key_that_is_told_over_ipc_is_not_believed_and_one_that_is_withdrawn_is_forgotten() -> None:
    async def story() -> None:
        async with Site() as site:
            await start(site, "a")
            agent = await start_agent(site, "a")
            driver = agent._driver
            assert driver is not None
            assert driver.security is not None
            before, evil = driver.security, curve.make_key(site.path / "evil.key")
            secure, driver.url = driver.url, f"ipc://{site.path}/a.sock"  # as if somebody else's socket were the hub
            driver._know_key(evil.public)
            assert driver.security == before
            driver.url = secure
            driver._know_key(b"short")
            assert driver.security == before
            await rotate(site, "begin")
            await until(lambda: driver.security is not None and driver.security.next is not None)
            await rotate(site, "abort")
            await until(lambda: driver.security == before)
            assert not (site.path / "a" / "master.next.pub").exists()

    _run(story())
