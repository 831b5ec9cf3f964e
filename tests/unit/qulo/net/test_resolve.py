"""Looking up names: a resolver that hangs makes its own link wait, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from qulo.net.resolve import resolve
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert _run(resolve("127.0.0.1")) == ["127.0.0.1"]
    assert _run(resolve("fe80::1%eth0")) == ["fe80::1%eth0"]


def test_a_name_gives_its_addresses_those_of_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [
        (socket.AF_INET6, 0, 0, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, 0, 0, "", ("10.0.0.1", 0)),
        (socket.AF_INET, 0, 0, "", ("10.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert _run(resolve("hub.example.net")) == ["10.0.0.1", "10.0.0.2", "::1"]


def test_what_the_resolver_says_is_raised() -> None:
    with pytest.raises(OSError, match=r"\w"):
        _run(resolve("no.such.host.invalid"))
    with pytest.raises(OSError, match="label"):
        _run(resolve("a" * 64 + ".example.net"))


def test_an_agent_whose_resolver_hangs_serves_its_host_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        asked.set()
        over.wait(20)
        raise socket.gaierror("too late")

    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            agent = await site.start("a", under="m")
            monkeypatch.setattr(socket, "getaddrinfo", hang)
            driver = agent._driver
            assert driver is not None
            driver.urls = ("tcp://hub.example.net:7370",)
            await site.stop("m")
            await until(asked.is_set)
            async with site.bus("a") as bus, bus.subscribe("local.x") as sub:
                await bus.publish("local.x", 1)
                await sub.next(2)
            started = time.monotonic()
            await site.stop("a")
            assert time.monotonic() - started < 5
            over.set()

    _run(story())
    for thread in threading.enumerate():
        if thread.name.startswith("resolve "):
            thread.join(5)


def test_nobody_waits_for_a_lookup_when_the_loop_has_ended() -> None:
    async def story() -> None:
        task = asyncio.ensure_future(resolve("localhost"))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(story())
    until_gone = time.monotonic() + 5
    while any(thread.name == "resolve localhost" for thread in threading.enumerate()):
        assert time.monotonic() < until_gone
        time.sleep(0.01)
