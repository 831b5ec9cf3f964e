"""Who may connect: the decisions, the handler that nothing stops, and every port probed from outside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

import qulo
from qulo.errors import ConfigError, EndpointError
from qulo.net import curve, link, zap
from qulo.net.hub import Address, HubServer
from qulo.net.service import Service
from qulo.net.socket import make_context
from qulo.protocol import wire
from qulo.protocol.hub import Hub
from qulo.protocol.link import Link
from qulo.protocol.ports import Limits
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.garbage import HELLO
from tests.unit.qulo.site import Site, until

PUBLIC, _ = zmq.curve_keypair()
RAW_KEY = z85.decode(PUBLIC)
UNKNOWN = z85.decode(zmq.curve_keypair()[0])


@contextlib.asynccontextmanager
async def handler() -> AsyncIterator[tuple[zap.ZapHandler, zmq.Socket[bytes]]]:
    """A ZAP handler that accepts one key, and libzmq's end of the questions."""
    context = make_context()
    zapper = zap.ZapHandler(context)
    zapper.principal = lambda key, _address: {PUBLIC: "web-1"}.get(key)
    asker = zmq.Context(context).socket(zmq.DEALER)
    asker.connect("inproc://zeromq.zap.01")
    try:
        yield zapper, asker
    finally:
        asker.close(0)
        zapper.close()
        context.term()


def question(domain: bytes, mechanism: bytes, *credentials: bytes) -> list[bytes]:
    """What libzmq sends, from the version on."""
    return [b"1.0", b"7", domain, b"10.0.0.1", b"", mechanism, *credentials]


async def answer(asker: zmq.Socket[bytes], *parts: bytes) -> list[bytes]:
    """Ask, and wait for the answer."""
    asker.send_multipart([b"", *parts])
    await until(lambda: asker.poll(0))
    return asker.recv_multipart()


# -- decisions

DECISIONS: list[tuple[str, bytes, tuple[bytes, ...], str | None]] = [
    ("qulo.local", b"NULL", (), "uid:unknown"),
    ("qulo.plain", b"NULL", (), "plain:"),
    ("qulo.curve", b"CURVE", (RAW_KEY,), "web-1"),
    ("qulo.curve", b"CURVE", (UNKNOWN,), None),
    ("qulo.curve", b"NULL", (), None),
    ("qulo.curve", b"PLAIN", (b"user", b"password"), None),
    ("qulo.curve", b"GSSAPI", (b"principal",), None),
    ("qulo.curve", b"CURVE", (), None),
    ("qulo.curve", b"CURVE", (RAW_KEY, RAW_KEY), None),
    ("qulo.local", b"CURVE", (RAW_KEY,), None),
    ("qulo.plain", b"CURVE", (RAW_KEY,), None),
    ("qulo.local", b"NULL", (b"",), None),
    ("qulo.local", b"PLAIN", (b"user", b"password"), None),
    ("", b"NULL", (), None),
    ("global", b"NULL", (), None),
    ("qulo.CURVE", b"CURVE", (RAW_KEY,), None),
    ("qulo.curve", b"curve", (RAW_KEY,), None),
]


@pytest.mark.parametrize(("domain", "mechanism", "credentials", "principal"), DECISIONS)
def test_a_domain_takes_its_own_mechanism_and_nothing_else(
    domain: str, mechanism: bytes, credentials: tuple[bytes, ...], principal: str | None
) -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            assert zapper.decide([domain.encode(), b"", b"", mechanism, *credentials]) == principal

    _run(story())


def test_an_answer_names_the_principal_and_numbers_the_connection() -> None:
    async def story() -> None:
        async with handler() as (_, asker):
            for number in (1, 2):
                got = await answer(asker, *question(b"qulo.curve", b"CURVE", RAW_KEY))
                assert got == [b"", b"1.0", b"7", b"200", b"OK", b"web-1#%d" % number, b""]

    _run(story())


def test_a_denial_is_logged_with_where_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with handler() as (_, asker):
            got = await answer(asker, *question(b"qulo.curve", b"CURVE", UNKNOWN))
            assert got == [b"", b"1.0", b"7", b"400", b"denied", b"", b""]

    _run(story())
    assert "denied a connection from 10.0.0.1 (CURVE): its key is not accepted here" in caplog.text


def garbage() -> Iterator[list[bytes]]:
    """Questions that libzmq would never ask."""
    dice = random.Random(1)
    yield question(b"\xff\xfe", b"NULL")
    yield question(b"qulo.curve", b"CURVE", b"short")
    yield question(b"qulo.curve", b"CURVE", b"")
    yield question(b"qulo.curve", b"CURVE", b"x" * 1000)
    yield question(b"qulo.curve", b"CURVE", *[RAW_KEY] * 100)
    yield [b"1.0", b"7", b"qulo.curve", b"\xff", b"\xff", b"\xff", b"\xff"]
    for size in itertools.chain(range(1, 12), [1000]):
        yield [dice.randbytes(dice.randrange(40)) for _ in range(size)]


@pytest.mark.parametrize("number", range(len(list(garbage()))))
def test_garbage_is_denied_or_left_unanswered_and_stops_nothing(number: int) -> None:
    async def story() -> None:
        async with handler() as (_, asker):
            asker.send_multipart([b"", *list(garbage())[number]])
            asker.send_multipart([b"", *question(b"qulo.curve", b"CURVE", RAW_KEY)])
            got: list[list[bytes]] = []
            while not got or got[-1][3] != b"200":
                await until(lambda: asker.poll(0))
                got.append(asker.recv_multipart())
            assert [each[3] for each in got] in ([b"200"], [b"400", b"200"])
            assert got[-1][3:6] == [b"200", b"OK", b"web-1#1"]

    _run(story())


# -- from outside


async def start_secure(site: Site, *names: str) -> Service:
    """A master with curve on and a key file for each of `names`, all of them accepted."""
    accepted = site.path / "accepted"
    accepted.mkdir(exist_ok=True)
    for name in names:
        accept(site, name)
    return await site.start("m", curve="on", accepted_keys=str(accepted), max_message="64K")


def make_client(site: Site, name: str) -> Path:
    """A key pair of a program."""
    path = site.path / "clients" / f"{name}.key"
    curve.make_key(path)
    return path


def accept(site: Site, name: str) -> Path:
    """Make a program's key and put its public half where the hub looks."""
    path = make_client(site, name)
    (site.path / "accepted" / f"{name}.pub").write_bytes(curve.public_path(path).read_bytes())
    return path


def secure_bus(site: Site, name: str, **options: Any) -> qulo.Bus:
    """The program with the key `name`."""
    keys = {"server_key": site.path / "m" / "master.pub", "key": site.path / "clients" / f"{name}.key"}
    return site.bus("m", **(keys | options))


class Probe:
    """A stranger's socket: what came over it, and how its handshake ended."""

    def __init__(self, kind: int, endpoint: str, key: curve.Key | None, server: bytes) -> None:
        self.events: list[int] = []
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.set(zmq.RECONNECT_IVL, 20)
        self.socket.set(zmq.LINGER, 0)
        if key is not None:
            self.socket.set(zmq.CURVE_SERVERKEY, server)
            self.socket.set(zmq.CURVE_PUBLICKEY, key.public)
            self.socket.set(zmq.CURVE_SECRETKEY, key.secret)
        self._monitor = self.socket.get_monitor_socket()
        self.socket.connect(endpoint)
        if kind == zmq.SUB:
            for prefix in (b"", b".", b"$qulo.s."):
                self.socket.set(zmq.SUBSCRIBE, prefix)
        else:
            self.socket.send(wire.encode(0, 0, [HELLO]), zmq.NOBLOCK)

    def is_denied(self) -> bool:
        """Has a handshake failed? Never has one succeeded, and nothing has come."""
        while self._monitor.poll(0):
            self.events.append(recv_monitor_message(self._monitor)["event"])
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in self.events
        assert not self.socket.poll(0)
        failures = (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED)
        return any(event in self.events for event in failures)

    def close(self) -> None:
        """Close it."""
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)
        self._context.term()


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.SUB], ids=["router", "pub"])
@pytest.mark.parametrize("stranger", ["null", "unknown key", "accepted key of another hub"])
def test_a_stranger_gets_nothing_from_any_port(kind: int, stranger: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site, "web-1")
            server, key = curve.load_public(site.path / "m" / "master.pub"), None
            if stranger == "unknown key":
                key = curve.load_key(make_client(site, "stranger"))
            elif stranger == "accepted key of another hub":
                key, server = curve.load_key(site.path / "clients" / "web-1.key"), zmq.curve_keypair()[0]
            probe = Probe(kind, service.addresses["listen" if kind == zmq.DEALER else "publish"], key, server)
            try:
                await until(probe.is_denied)
                async with secure_bus(site, "web-1") as bus, bus.subscribe(">") as sub:
                    for number in range(100):
                        await bus.publish("t", number)
                    for _ in range(100):
                        await sub.next(5)
                    assert probe.is_denied()
                    assert [session.principal for session in service.hub.sessions.values()] == ["web-1"]
            finally:
                probe.close()

    with caplog.at_level(logging.CRITICAL):
        _run(story())


def test_an_accepted_key_is_all_it_takes() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site, "web-1", "web-2")
            async with secure_bus(site, "web-1") as here, secure_bus(site, "web-2") as there:
                async with there.subscribe("a.*.c") as sub, there.subscribe("a.>") as other:
                    await here.publish("a.b.c", b"x" * 60_000)
                    assert len((await sub.next(5)).body) == len((await other.next(5)).body) == 60_000  # type: ignore[union-attr]
                async with there.respond("double", lambda m: 2 * m.body):
                    assert await here.request("double", 21) == 42
                assert sorted(s.principal for s in service.hub.sessions.values()) == ["web-1", "web-2"]

    _run(story())


def test_an_agent_and_its_master_know_each_other_by_key() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_secure(site, "web-1")
            (site.path / "a").mkdir(mode=0o700)
            agent = curve.make_key(site.path / "a" / "agent.key")
            (site.path / "accepted" / "host-a.pub").write_bytes(agent.public)
            await obey_reload(site.services["m"])
            await site.start("a", "m", curve="on", master_key=f"{site.path}/m/master.pub")
            async with secure_bus(site, "web-1") as there, site.bus("a") as here, there.subscribe("up") as sub:
                await here.publish("up", 1)
                assert (await sub.next(5)).body == 1  # type: ignore[union-attr]
            assert "host-a" in [s.principal for s in site.services["m"].hub.sessions.values()]

    _run(story())


async def obey_reload(service: Service) -> None:
    """What HUP does."""
    assert await service.obey("reload", service.settings)


def test_a_key_accepted_later_gets_in_without_restarting_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DENIED_PAUSE", 0.1)

    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site)
            key = make_client(site, "late")
            async with secure_bus(site, "late", timeout=None) as bus:
                await until(lambda: bus._driver.attempts >= 2)
                assert not bus.connected
                (site.path / "accepted" / "late.pub").write_bytes(curve.public_path(key).read_bytes())
                await obey_reload(service)
                await until(lambda: bus.connected)
                async with bus.respond("who", lambda m: "late"):
                    assert await bus.request("who") == "late"

    _run(story())


def test_a_key_that_is_accepted_no_longer_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DENIED_PAUSE", 0.1)

    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site, "web-1")
            (site.path / "accepted" / "web-1.pub").unlink()
            await obey_reload(service)
            with pytest.raises(qulo.Denied, match="does not accept our key"):
                await secure_bus(site, "web-1").open()

    _run(story())


def test_a_bad_file_among_the_accepted_keys_keeps_nobody_else_out(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site, "web-1")
            (site.path / "accepted" / "bad.pub").write_text("nonsense")
            late = make_client(site, "late")
            (site.path / "accepted" / "late.pub").write_bytes(curve.public_path(late).read_bytes())
            await obey_reload(service)
            for name in ("web-1", "late"):
                async with secure_bus(site, name) as bus:
                    await bus.flush()

    _run(story())
    assert "bad.pub: not a public key" in caplog.text


def test_an_error_says_what_does_not_match() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_secure(site, "web-1")
            wrong = site.path / "wrong.pub"
            wrong.write_bytes(zmq.curve_keypair()[0])
            make_client(site, "stranger")
            with pytest.raises(EndpointError, match="do curve and the hub's key match"):
                await secure_bus(site, "web-1", server_key=wrong, timeout=0.5).open()
            with pytest.raises(qulo.Denied, match=r"run `qulo keys accept [0-9a-f]{32} --name NAME`"):
                await secure_bus(site, "stranger").open()
            with pytest.raises(EndpointError, match="do curve and the hub's key match"):
                await site.bus("m", timeout=0.5).open()  # no keys at all
            await site.start("plain")
            with pytest.raises(EndpointError, match="do curve and the hub's key match"):
                await qulo.connect(
                    site.url("plain"), timeout=0.5, server_key=wrong, key=site.path / "clients" / "web-1.key"
                ).open()

    _run(story())


def test_who_is_denied_at_one_address_tries_the_next() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_secure(site, "web-1")
            elsewhere = site.path / "elsewhere"
            elsewhere.mkdir()
            key = make_client(site, "web-2")
            (elsewhere / "web-2.pub").write_bytes(curve.load_key(key).public)
            (site.path / "n").mkdir()
            shutil.copy2(site.path / "m" / "master.key", site.path / "n")
            await site.start("n", curve="on", accepted_keys=str(elsewhere))
            server_key = site.path / "m" / "master.pub"
            async with qulo.connect(f"{site.url('m')},{site.url('n')}", server_key=server_key, key=key) as bus:
                assert bus.url == site.url("n")

    _run(story())


def test_a_program_too_busy_to_say_hello_in_time_hears_the_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = Link.hello

    def late(self: Link, instance: bytes) -> bytes:
        busy = time.monotonic() + 0.1
        while time.monotonic() < busy:
            pass  # meanwhile the handshake fails
        return hello(self, instance)

    monkeypatch.setattr(Link, "hello", late)

    async def story() -> None:
        async with Site() as site:
            await start_secure(site)
            with pytest.raises(EndpointError, match="do curve and the hub's key match"):
                await site.bus("m", timeout=0.5).open()

    _run(story())


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.0.2.1:0", "tcp://[::]:0", "tcp://host:0"]
)
@pytest.mark.parametrize("half", ["listen", "publish"])
def test_plain_text_beyond_this_host_is_refused_with_the_reason(endpoint: str, half: str) -> None:
    async def story() -> None:
        context = make_context()
        hub = Hub("m", 1, Limits(), lambda: b"t" * 16, "0")
        server = HubServer(hub, context)
        addresses = {"listen": "tcp://127.0.0.1:0", "publish": "tcp://127.0.0.1:0"} | {half: endpoint}
        with pytest.raises(ConfigError, match=r"can be reached from other hosts: set curve: on, or listen on 127"):
            server.listen(Address(addresses["listen"], addresses["publish"]))
        server.close()
        context.term()

    _run(story())


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://127.0.0.9:0", "tcp://localhost:0"])
def test_plain_text_on_this_host_is_allowed(endpoint: str) -> None:
    async def story() -> None:
        context = make_context()
        server = HubServer(Hub("m", 1, Limits(), lambda: b"t" * 16, "0"), context)
        try:
            server.listen(Address(endpoint, endpoint))
            assert not any(bound.endswith(":0") for bound in server.addresses[0])
        finally:
            server.close()
            context.term()

    _run(story())


def test_reloading_while_programs_come_and_go_keeps_everybody() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await start_secure(site, "web-1")
            for _ in range(5):
                async with secure_bus(site, "web-1") as bus:
                    await asyncio.gather(obey_reload(service), bus.publish("t", 1), bus.flush())

    _run(story())
