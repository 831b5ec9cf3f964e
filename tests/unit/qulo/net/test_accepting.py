"""A listener that cannot take connections says so once, with what to do; and limits that hold on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import qulo
from qulo.net import accepting
from qulo.net.socket import open_socket
from qulo.protocol.report import LOCAL_LIST
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import running_qulod
from tests.unit.qulo.net import garbage
from tests.unit.qulo.site import Site, until

# Of a hub: the least that it starts with.
FILES = 1024


@contextlib.contextmanager
def connections(url: str, count: int) -> Iterator[None]:
    """So many TCP connections that say nothing."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, int(port)))
        yield


@pytest.fixture
def few_files() -> Iterator[None]:
    """Programs that are started get a limit of FILES, this process keeps its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * FILES:
        pytest.skip("this host allows too few files for the test itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit(process: subprocess.Popen[bytes]) -> None:
    """Lower the limit of a hub that runs, as if it had been started with less."""
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))


def test_a_hub_without_files_left_says_so_once_and_goes_on(short_place: Path, few_files: None) -> None:
    with running_qulod(short_place) as (process, addresses):
        limit(process)
        log = short_place / "qulod.log"
        with (
            qulo.sync.connect(addresses["local"]) as bus,
            connections(addresses["listen"], 2 * FILES),
        ):
            deadline = time.monotonic() + 15
            while "no connection can be taken" not in log.read_text():
                assert time.monotonic() < deadline
                bus.request(LOCAL_LIST)  # it works for those who are in
            for _ in range(100):
                bus.request(LOCAL_LIST)
        lines = [line for line in log.read_text().splitlines() if "no connection can be taken" in line]
        assert len(lines) == 1
        assert f"ERROR qulo.net.hub: no connection can be taken: {FILES} files are open, and no more may be" in lines[0]
        assert "LimitNOFILE=" in lines[0]
        with qulo.sync.connect(addresses["listen"], timeout=15) as bus:  # there is room again
            bus.request(LOCAL_LIST)


def test_the_watch_is_closed_after_the_first_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PAUSE", 0.05)

    async def story() -> None:
        context = zmq.asyncio.Context()
        sock = open_socket(context, zmq.ROUTER, 10, -1)
        sock.bind("tcp://127.0.0.1:0")
        told: list[int] = []
        watch = accepting.AcceptWatch(context, sock, told.append)
        notice = (zmq.EVENT_ACCEPT_FAILED).to_bytes(2, "little") + errno.EMFILE.to_bytes(4, "little")
        for _ in range(5):
            watch._noticed([notice, b"tcp://x"])  # those behind the first are of the monitor that was closed
        assert told == [errno.EMFILE]
        await until(lambda: watch._monitor is not None)
        watch._noticed([notice, b"tcp://x"])
        assert told == [errno.EMFILE] * 2
        reset = (zmq.EVENT_ACCEPT_FAILED).to_bytes(2, "little") + errno.ECONNABORTED.to_bytes(4, "little")
        await until(lambda: watch._monitor is not None)
        watch._noticed([reset, b"tcp://x"])
        assert len(told) == 2
        watch.close()
        watch.close()
        await asyncio.sleep(0)
        sock.close(0)
        context.term()

    _run(story())


def test_a_rebound_pub_is_watched_and_the_old_one_no_more() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m")
            pair = service._server._pairs[1]
            before = list(pair.watches)
            await service._server.rebind(local=True)
            assert len(pair.watches) == 2
            assert pair.watches[0] is before[0]
            assert before[1]._monitor is None
            assert not service._server._pairs[0].watches

    _run(story())


def test_a_fast_publisher_gets_its_rate_and_others_theirs() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m", max_rate="1000", heartbeat="20s", session_timeout="60s")
            async with site.bus("m") as fast, site.bus("m") as other, other.subscribe("t.*") as sub:
                began = time.monotonic()
                for number in range(3000):
                    await fast.publish("t.fast", number)
                    if number % 50 == 0:
                        await fast.flush()
                await fast.flush()
                took = time.monotonic() - began
                assert 1.9 < took < 6
                await asyncio.wait_for(other.publish("t.other", "x"), 1)
                await asyncio.wait_for(other.flush(), 1)
                got = [(await sub.next(5)).body for _ in range(3001)]  # type: ignore[union-attr]
                assert [body for body in got if body != "x"] == list(range(3000))
                assert service.hub.counters.dropped == service.hub.counters.gaps == 0

    _run(story())


def test_a_flood_of_bad_frames_is_cut_off_and_disturbs_nobody(short_place: Path) -> None:
    with running_qulod(short_place) as (_, addresses):

        async def story() -> None:
            url = addresses["listen"]
            async with (
                qulo.connect(url, name="here") as here,
                qulo.connect(url, name="there") as there,
                there.respond("double", lambda m: 2 * m.body),
            ):
                flooding = asyncio.create_task(asyncio.to_thread(garbage.flood, url, 20_000))
                while not flooding.done():
                    assert await here.request("double", 21, timeout=5) == 42
                await flooding

        _run(story(), timeout=60)
        log = (short_place / "qulod.log").read_text()
        assert log.count("garbage (") < 40
        assert 0 < log.count("is ignored: more than") < 20
        audit = (short_place / "qulod.audit.log").read_text()
        assert '"why":"bad frames"' in audit
