"""A crowd of connections over TCP uses up no descriptor that this host's programs need, and costs nobody who is in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import pytest
import zmq.asyncio

import qulo
from qulo.net import crowd
from qulo.net.socket import open_socket
from qulo.protocol.report import LOCAL_LIST
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import running_qulod
from tests.unit.qulo.net.test_accepting import FILES, few_files, limit
from tests.unit.qulo.site import Site, until

__all__ = ["few_files"]

# Connections that come between two requests: few enough that the hub has looked before the last fifth is gone.
AT_ONCE = 20


class Crowd:
    """Connections that say nothing."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        self._where = (host, int(port))
        self._stack = contextlib.ExitStack()

    def come(self, count: int) -> None:
        for _ in range(count):
            sock = self._stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(self._where)

    def leave(self) -> None:
        self._stack.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A limit as the looks see it: [0] can be changed."""
    files = [1_000_000]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files[0], files[0]))
    return files


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_crowd_waits_outside_and_whoever_is_in_goes_on(short_place: Path, few_files: None) -> None:
    with running_qulod(short_place) as (process, addresses):
        limit(process)
        log = short_place / "qulod.log"
        outside = Crowd(addresses["listen"])
        with qulo.sync.connect(addresses["listen"], name="before") as before:
            deadline = time.monotonic() + 30
            for _ in range(2 * FILES // AT_ONCE):
                outside.come(AT_ONCE)
                with qulo.sync.connect(addresses["local"]) as new:  # each is an accept on ipc
                    new.request(LOCAL_LIST)
                before.request(LOCAL_LIST)
                assert time.monotonic() < deadline
                assert process.poll() is None
            assert open_files(process.pid) < FILES
            lines = [line for line in log.read_text().splitlines() if "new connections over TCP wait" in line]
            assert len(lines) == 1
            assert f"of {FILES} files are open" in lines[0]
            assert "LimitNOFILE=" in lines[0]
            outside.leave()
            with qulo.sync.connect(addresses["listen"], name="after", timeout=30) as after:  # there is room again
                deadline = time.monotonic() + 5  # a list is good for LISTED seconds, it can be older than `after`
                while not {"before", "after"} <= {peer["name"] for peer in after.request(LOCAL_LIST)["peers"]}:
                    assert time.monotonic() < deadline
            before.request(LOCAL_LIST)
        assert "new connections over TCP are taken again" in log.read_text()


async def comes_in(site: Site, timeout: float) -> bool:
    """Is a new connection over TCP taken?"""
    host, _, port = site.url("m").removeprefix("tcp://").rpartition(":")
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return False
    writer.close()
    return True


def test_what_is_shut_is_opened_again_when_there_are_fewer(small: list[int]) -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m")
            async with site.bus("m") as old:
                assert await comes_in(site, 5)
                small[0] = 1
                await until(lambda: service._server._crowd.shut)
                assert not await comes_in(site, 0.3)
                await old.request(LOCAL_LIST)
                async with site.bus("m", local=True) as local:
                    await local.request(LOCAL_LIST)
                small[0] = 1_000_000
                await until(lambda: not service._server._crowd.shut)
                assert await comes_in(site, 5)
                await old.request(LOCAL_LIST)

    _run(story())


def test_a_listener_that_is_bound_anew_meanwhile_is_shut_as_well(small: list[int]) -> None:
    async def story() -> None:
        async with Site() as site:
            server = (await site.start("m"))._server
            small[0] = 1
            await until(lambda: server._crowd.shut)
            await server.rebind(local=False)
            assert len(server._listening()) == 2
            port = int(server.addresses[1][1].rpartition(":")[2])
            with socket.socket() as sock:
                sock.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    sock.connect(("127.0.0.1", port))

    _run(story())


def test_it_is_said_once_in_a_while_however_often_it_comes_and_goes(
    small: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    watch = crowd.Crowd(list, lambda: now[0])
    try:
        for _ in range(5):
            small[0] = 1
            watch.look()
            now[0] += 1
            small[0] = 1_000_000
            watch.look()
        now[0] += crowd.TOLD
        small[0] = 1
        watch.look()
    finally:
        watch.close()
    assert sum("new connections over TCP wait" in text for text in caplog.messages) == 2


def test_descriptors_are_kept_and_given_free_for_what_accept_has_found_used_up() -> None:
    watch = crowd.Crowd(list, time.monotonic)
    before = open_files(os.getpid())
    watch.run_out()
    assert watch.shut
    assert open_files(os.getpid()) == before - crowd.SPARE
    watch.close()


def test_a_number_that_is_another_files_by_now_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        watch = crowd.Crowd(lambda: [one.fileno(), 10_000], time.monotonic)
        watch.run_out()
        watch.close()


def test_libzmq_says_where_a_socket_listens() -> None:
    async def story() -> None:
        context = zmq.asyncio.Context()
        sock = open_socket(context, zmq.ROUTER, 10, -1)
        finder = crowd.Finder(sock)
        bound = sock.bind_or_explain("tcp://127.0.0.1:0")
        number = finder.found()
        assert number is not None
        with socket.socket(fileno=os.dup(number)) as listener:
            assert listener.getsockname()[1] == int(bound.rpartition(":")[2])
        sock.close(0)
        context.term()

    _run(story())
