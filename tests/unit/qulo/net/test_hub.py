"""A hub on real sockets: who may open them, what it makes of bad messages, and how it treats one that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import qulo
from qulo.config.kinds import is_loopback
from qulo.errors import ConfigError, EndpointError, FileError
from qulo.net.hub import Address, HubServer
from qulo.net.service import Service
from qulo.net.socket import make_context
from qulo.protocol.hub import Hub
from qulo.protocol.ports import Limits
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until

TCP = "tcp://127.0.0.1:0"


@contextlib.asynccontextmanager
async def bare_hub() -> AsyncIterator[HubServer]:
    """A hub that listens nowhere yet."""
    context = make_context()
    server = HubServer(Hub("m", 1, Limits(), lambda: os.urandom(16), "0"), context)
    try:
        yield server
    finally:
        server.close()
        context.term()


def modes_of(path: Path) -> list[str]:
    """The modes of an ipc listener's two sockets."""
    return [stat.filemode(Path(each).stat().st_mode) for each in (path, f"{path}.pub")]


# -- listening


@pytest.mark.parametrize(("mode", "shown"), [(0o600, "srw-------"), (0o660, "srw-rw----"), (0o666, "srw-rw-rw-")])
def test_ipc_sockets_have_the_mode_that_was_asked_for(mode: int, shown: str) -> None:
    async def story() -> None:
        async with Site() as site, bare_hub() as server:
            path = site.path / "sub" / "x.sock"
            before = os.umask(0)
            try:
                assert server.listen(Address(f"ipc://{path}", mode=mode)) == (f"ipc://{path}", f"ipc://{path}.pub")
            finally:
                assert os.umask(before) == 0
            assert modes_of(path) == [shown, shown]

    _run(story())


def test_ipc_sockets_have_the_group_that_was_asked_for() -> None:
    group = grp.getgrgid(os.getgid()).gr_name

    async def story() -> None:
        async with Site() as site, bare_hub() as server:
            path = site.path / "x.sock"
            server.listen(Address(f"ipc://{path}", group=group))
            assert {os.stat(each).st_gid for each in (path, f"{path}.pub")} == {os.getgid()}
            with pytest.raises(EndpointError, match="to group no-such-group"):
                server.listen(Address(f"ipc://{site.path}/y.sock", group="no-such-group"))
            assert len(server.addresses) == len(server.hub.listeners) == 1

    _run(story())


def test_closing_takes_the_ipc_sockets_away_and_a_stale_one_is_replaced() -> None:
    async def story() -> None:
        async with Site() as site:
            paths = [site.path / "x.sock", site.path / "x.sock.pub"]
            for path in paths:
                with socket.socket(socket.AF_UNIX) as left_by_a_hub_that_was_killed:
                    left_by_a_hub_that_was_killed.bind(str(path))
            async with bare_hub() as server:
                server.listen(Address(f"ipc://{paths[0]}"))
                async with qulo.connect(f"ipc://{paths[0]}") as bus:
                    await bus.flush()
            assert not any(path.exists() for path in paths)

    _run(story())


def test_a_directory_that_cannot_be_made_is_named() -> None:
    async def story() -> None:
        async with Site() as site, bare_hub() as server:
            (site.path / "file").touch()
            with pytest.raises(FileError, match=f"cannot make {site.path}/file/sub: Not a directory"):
                server.listen(Address(f"ipc://{site.path}/file/sub/x.sock"))

    _run(story())


def test_an_address_that_is_taken_leaves_the_hub_as_it_was() -> None:
    async def story() -> None:
        async with bare_hub() as one, bare_hub() as two:
            listen, publish = one.listen(Address(TCP, TCP))
            for address in (Address(listen, TCP), Address(TCP, publish)):
                with pytest.raises(EndpointError, match="is in use: is another hub running there"):
                    two.listen(address)
            assert not two.addresses
            assert not two.hub.listeners
            two.listen(Address(TCP, TCP))

    _run(story())


def test_a_tcp_listener_needs_both_halves() -> None:
    async def story() -> None:
        async with bare_hub() as server:
            with pytest.raises(ConfigError, match="needs a publish address beside it"):
                server.listen(Address(TCP))

    _run(story())


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1"])
def test_loopback_is_this_host(endpoint: str) -> None:
    assert is_loopback(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://eth0:1", "tcp://localhost.evil:1", ""],
)
def test_everything_else_is_not(endpoint: str) -> None:
    assert not is_loopback(endpoint)


# -- what comes in


def test_messages_of_several_parts_are_counted_as_bad_and_dropped() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m")
            with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
                dealer.connect(site.url("m"))
                for number in range(1000):
                    dealer.send_multipart([b"x"] * (2 + number % 3))
                async with site.bus("m") as bus:
                    assert [await bus.request("$qulo.list") for _ in range(100)]
                    counters = service.hub.counters
                    await until(lambda: counters.bad_frames + counters.ignored == 1000)
                    assert counters.ignored
                    assert len(service.hub.sessions) == 1
                assert not dealer.poll(0)  # nobody has a session there, so nobody is answered

    _run(story())


def test_subscriptions_that_nobody_granted_get_nothing() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m")
            with zmq.Context() as context, context.socket(zmq.SUB) as sub:
                sub.connect(service.addresses["publish"])
                for prefix in (b"", b".", b".t\0", b"$qulo.s.", b"x" * 1000):
                    sub.set(zmq.SUBSCRIBE, prefix)
                await until(lambda: service.hub.counters.bad_frames >= 5)
                async with site.bus("m") as bus, bus.subscribe("t") as mine:
                    await bus.publish("t", 1)
                    await mine.next(5)
                assert not sub.poll(0)

    _run(story())


def test_drain_waits_until_every_peer_has_acknowledged() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m")
            got: list[Any] = []
            async with site.bus("m") as bus, bus.subscribe("w", lambda m: got.append(m.body), group="g"):
                for number in range(5000):
                    await bus.publish("w", number)
                await bus.flush()
                assert not await service.obey("drain", None)
                assert got == list(range(5000))

    _run(story())


def test_a_peer_that_never_acknowledges_holds_drain_up_for_its_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qulo.client.bus.CLOSE_TIMEOUT", 0.1)

    async def story() -> None:
        async with Site() as site:
            service = await site.start("m", drain_timeout="200ms")
            async with site.bus("m") as bus, bus.subscribe("w", group="g"):
                assert bus._driver._sockets is not None
                bus._driver._sockets.dealer._handler = lambda data: None  # from now on it is deaf
                async with site.bus("m") as other:
                    await other.publish("w", 1)
                    await other.flush()
                begin = time.monotonic()
                assert not await service.obey("drain", None)
                assert 0.15 < time.monotonic() - begin < 3

    _run(story())


# -- a subscriber that is slow

SUBSCRIBER = """
import asyncio, sys
import qulo

async def main():
    async with qulo.connect(sys.argv[1], name="the-slow-one") as bus, bus.subscribe("t.>") as sub:
        print("ready", flush=True)
        expected = 0
        async for item in sub:
            if isinstance(item, qulo.Gap):
                print("gap", item.reason, flush=True)
                expected = None
                continue
            number = int.from_bytes(item.body[:4], "big")
            if expected is not None and number != expected:
                print("lost", expected, number, flush=True)
            expected = number + 1
            if item.topic == "t.end":
                print("end", number, flush=True)
                return

asyncio.run(main())
"""

SLOW_AFTER = 1.0
BODY = 1000
MESSAGES = 60_000  # 60 MB: far more than every buffer between the two


@contextlib.asynccontextmanager
async def subscriber(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of its own that subscribes, and tells what it sees."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUBSCRIBER, url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def publish_past(bus: qulo.Bus, count: int) -> float:
    """Publish `count` messages; returns the longest time that one of them took."""
    longest = 0.0
    for number in range(count):
        begin = time.monotonic()
        await bus.publish("t.x", number.to_bytes(4) + b"x" * (BODY - 4))
        longest = max(longest, time.monotonic() - begin)
        if number % 1000 == 0:
            await asyncio.sleep(0)
    return longest


def memory() -> int:
    """The most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("window", ["128M", "1M"])
def test_a_stopped_subscriber_holds_publishers_up_once_and_is_named(
    window: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def story() -> None:
        async with Site() as site:
            # The heartbeat is long, so that the hub still takes the stopped one for healthy.
            keys = {"high_water": "64", "slow_after": f"{SLOW_AFTER:g}s", "heartbeat": "1s", "replay_window": window}
            service = await site.start("m", **keys)
            async with subscriber(site.url("m")) as process, site.bus("m") as bus:
                process.send_signal(signal.SIGSTOP)
                before = memory()
                longest = await publish_past(bus, MESSAGES)
                await bus.flush()
                assert SLOW_AFTER * 0.8 < longest < SLOW_AFTER + 1.5
                assert "the-slow-one (127.0.0.1) is slow:" in caplog.text
                (peer,) = [p for p in (await bus.request("$qulo.list"))["peers"] if p["name"] == "the-slow-one"]
                assert peer["slow"]
                held = int(window[:-1]) * 1024 * 1024 + 2 * 64 * 65_536
                assert memory() - before < min(held, MESSAGES * BODY) + 30 * 1024 * 1024
                process.send_signal(signal.SIGCONT)
                await until(lambda: not is_slow(service))
                await bus.publish("t.end", MESSAGES.to_bytes(4))
                assert process.stdout is not None
                told = (await asyncio.wait_for(process.stdout.read(), 20)).decode().splitlines()
                assert told[-1] == f"end {MESSAGES}"
                assert told[:-1] == ([] if window == "128M" else ["gap window"])
                assert "the-slow-one keeps up again" in caplog.text

    _run(story(), timeout=60)


def is_slow(service: Service) -> bool:
    """Does the hub hold the subscriber for slow?"""
    return any(session.slow for session in service.hub.sessions.values())


def test_a_stopped_subscriber_that_is_killed_is_forgotten() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m", high_water="64", slow_after="300ms", session_timeout="1s")
            async with site.bus("m") as bus:
                async with subscriber(site.url("m")) as process:
                    process.send_signal(signal.SIGSTOP)
                    assert await publish_past(bus, 20_000) < 3
                await until(lambda: len(service.hub.sessions) == 1)
                assert await publish_past(bus, 1000) < 1
                await bus.flush()

    _run(story(), timeout=60)


def test_hubs_and_links_speak_ipv6() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m", listen='"tcp://[::1]:0"', publish='"tcp://[::1]:0"')
            await site.start("a", under="m")
            async with site.bus("m") as master, site.bus("a") as agent, agent.subscribe("x") as sub:
                await master.publish("x", 6)
                assert (await sub.next(10)).body == 6  # type: ignore[union-attr]

    _run(story())
