"""A peer that was let in and turns on us, with raw sockets: what it may not read it does not get."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

import qulo
from qulo.net import curve
from qulo.net.service import Service
from qulo.protocol import wire
from qulo.protocol.offenders import BAD_FRAMES
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until

RULES = """
  - {allow: [publish, subscribe], names: [boss], topics: [">"]}
  - {allow: [subscribe], names: [spy], topics: [open.>, "a.*.public"]}
"""


class Raw:
    """DEALER and SUB of one key, without the link's manners."""

    def __init__(self, context: zmq.asyncio.Context, site: Site, hub: curve.Key, key: curve.Key) -> None:
        self.dealer, self.sub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        for sock in (self.dealer, self.sub):
            sock.set(zmq.LINGER, 0)
            sock.curve_serverkey, sock.curve_publickey, sock.curve_secretkey = hub.public, key.public, key.secret
        addresses = site.services["m"].addresses
        self.dealer.connect(addresses["listen"])
        self.sub.connect(addresses["publish"])
        self.number = 0

    async def greet(self, **changes: Any) -> bytes:
        """Say HELLO; the session's token."""
        fields = {"version": wire.VERSION, "instance": b"spy-spy-", "name": "spy", "kind": "client", "token": None}
        fields |= {"epoch": 0, "received": 0, "info": {}} | changes
        await self.dealer.send(wire.encode(0, 0, [[wire.HELLO, *fields.values()]]))
        while True:
            for record in await self.records():
                if record[0] == wire.WELCOME:
                    token: bytes = record[3]
                    return token

    async def say(self, *records: wire.Record) -> None:
        self.number += 1
        await self.dealer.send(wire.encode(self.number, 0, list(records)))

    async def records(self) -> list[wire.Record]:
        """Of the next frame from the ROUTER."""
        assert await self.dealer.poll(5000)
        return wire.decode(await self.dealer.recv())[2]

    async def heard(self, quiet: float = 0.3) -> list[bytes]:
        """Everything that comes over SUB, until it is quiet."""
        frames = []
        while await self.sub.poll(int(quiet * 1000)):
            frames.append(await self.sub.recv())
        return frames


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Site, Service, Raw, qulo.Bus]]:
    """A hub with CURVE and RULES; a spy with raw sockets, and a boss with a bus."""
    context = zmq.asyncio.Context()
    async with Site() as site:
        keys = {name: curve.make_key(site.path / f"{name}.key") for name in ("spy", "boss")}
        accepted = site.path / "accepted"
        accepted.mkdir()
        for name, key in keys.items():
            (accepted / f"{name}.pub").write_bytes(key.public)
        service = await site.start("m", curve="on", accepted_keys=str(accepted), permissions=RULES)
        hub = curve.load_key(site.path / "m" / "master.key")
        raw = Raw(context, site, hub, keys["spy"])
        try:
            async with site.bus("m", server_key=site.path / "m" / "master.pub", key=site.path / "boss.key") as boss:
                yield site, service, raw, boss
        finally:
            raw.dealer.close()
            raw.sub.close()
            context.term()


async def publish_secrets(boss: qulo.Bus) -> None:
    for number in range(20):
        for topic in ("secret.plan", "a.1.secret", "a.1.public", "open.news"):
            await boss.publish(topic, f"{topic} {number}".encode())
    await boss.flush()


@pytest.mark.parametrize("tied", [False, True])
def test_a_raw_sub_gets_nothing_that_was_not_granted(tied: bool) -> None:
    async def story() -> None:
        async with world() as (_, service, raw, boss):
            token = await raw.greet()
            prefixes = [b"", b".", b".a.", b".s", b".secret.plan\0", b"$", b"$qulo", b"$qulo.s.", b".open"]
            for prefix in prefixes:
                raw.sub.setsockopt(zmq.SUBSCRIBE, prefix)
            if tied:
                raw.sub.setsockopt(zmq.SUBSCRIBE, wire.session_key(token))
                await until(lambda: any(session.tied for session in service.hub.sessions.values()))
                for prefix in prefixes:  # asked for once more, now that it is known whose SUB it is
                    raw.sub.setsockopt(zmq.UNSUBSCRIBE, prefix)
                    raw.sub.setsockopt(zmq.SUBSCRIBE, prefix)
            await raw.say([wire.SUBSCRIBE, 1, ">", None], [wire.SUBSCRIBE, 2, "secret.>", None])
            await publish_secrets(boss)
            frames = await raw.heard()
            assert not [frame for frame in frames if b"secret" in frame or b"open" in frame]
            assert all(frame.startswith(wire.session_key(token)) for frame in frames)

    _run(story())


def test_what_is_granted_comes_and_nothing_beside_it() -> None:
    async def story() -> None:
        async with world() as (_, service, raw, boss):
            token = await raw.greet()
            raw.sub.setsockopt(zmq.SUBSCRIBE, wire.session_key(token))
            await until(lambda: any(session.tied for session in service.hub.sessions.values()))
            await raw.say(
                [wire.SUBSCRIBE, 1, "open.>", None],
                [wire.SUBSCRIBE, 2, "a.*.public", None],
                [wire.SUBSCRIBE, 3, "a.>", None],
            )
            seen: list[wire.Record] = []
            while not {wire.DENIED, wire.GRANTED} <= {record[0] for record in seen}:
                seen += await raw.records()
            assert [record[1] for record in seen if record[0] == wire.DENIED] == [3]
            for prefix in (b".open.", b".a.", b".a.1.secret\0", b"."):
                raw.sub.setsockopt(zmq.SUBSCRIBE, prefix)
            session = next(s for s in service.hub.sessions.values() if s.name == "spy")
            await until(lambda: session.subscriptions[1].path == "pub")
            await publish_secrets(boss)
            frames = b"".join(await raw.heard())
            assert frames.count(b"open.news 19") == 1
            assert b"secret" not in frames
            assert b"a.1.public" not in frames  # that pattern is no prefix: its messages go over ROUTER
            direct = b""
            while b"a.1.public 19" not in direct:
                direct += await asyncio.wait_for(raw.dealer.recv(), 5)
            assert b"secret" not in direct

    _run(story())


def test_a_revoked_key_is_gone_from_pub_within_a_second_and_the_others_lose_nothing() -> None:
    async def story() -> None:
        async with world() as (site, service, raw, boss):
            token = await raw.greet()
            raw.sub.setsockopt(zmq.SUBSCRIBE, wire.session_key(token))
            await until(lambda: any(session.tied for session in service.hub.sessions.values()))
            await raw.say([wire.SUBSCRIBE, 1, "open.>", None])
            while wire.GRANTED not in {record[0] for record in await raw.records()}:
                pass
            raw.sub.setsockopt(zmq.SUBSCRIBE, b".open.")
            spying = next(s for s in service.hub.sessions.values() if s.name == "spy")
            await until(lambda: spying.subscriptions[1].path == "pub")
            async with boss.subscribe("open.>") as sub, site.bus("m", local=True) as admin:
                await boss.publish("open.news", b"before")
                assert b"before" in b"".join(await raw.heard())
                sent = asyncio.ensure_future(_stream(boss))
                started = time.monotonic()
                await admin.request("$qulo.local.admin.keys.revoke", {"key": "spy"})
                last = started
                while time.monotonic() < started + 1.5:
                    if await raw.sub.poll(50):
                        await raw.sub.recv()
                        last = time.monotonic()
                assert last - started < 1
                count = await sent
                got = [await sub.next(5) for _ in range(count + 1)]
                bodies = [item.body for item in got if isinstance(item, qulo.Message)]
                assert bodies == [b"before", *(b"%d" % number for number in range(count))]
                await raw.say([wire.PUBLISH, "open.news", 0, [b"forged"]])
                await raw.dealer.send(wire.encode(0, 0, [[wire.HELLO, 1, b"again-12", "x", "client", None, 0, 0, {}]]))
                await boss.publish("open.news", b"after")
                item = await sub.next(5)
                assert isinstance(item, qulo.Message)
                assert item.body == b"after"
            assert "spy" not in {session.principal for session in service.hub.sessions.values()}

    _run(story())


async def _stream(boss: qulo.Bus) -> int:
    """Messages for a second, one after the other."""
    count = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        await boss.publish("open.news", b"%d" % count)
        count += 1
        await asyncio.sleep(0.002)
    await boss.flush()
    return count


@pytest.mark.parametrize("tied", [False, True])
def test_a_sub_that_asks_for_what_nobody_granted_is_cut_and_the_others_go_on(tied: bool) -> None:
    async def story() -> None:
        async with world() as (_, service, raw, boss), boss.subscribe("open.>") as sub:
            events = raw.sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            token = await raw.greet()
            if tied:
                raw.sub.setsockopt(zmq.SUBSCRIBE, wire.session_key(token))
                await until(lambda: any(session.tied for session in service.hub.sessions.values()))
            for number in range(2 * BAD_FRAMES):
                raw.sub.setsockopt(zmq.SUBSCRIBE, b"none.%d" % number)
            assert await events.poll(5000)
            raw.sub.disable_monitor()
            events.close()
            assert service.hub.counters.bad_frames <= BAD_FRAMES + 1
            await boss.publish("open.news", b"still here")
            item = await sub.next(5)
            assert isinstance(item, qulo.Message)
            assert item.body == b"still here"

    _run(story())


def test_every_port_denies_whoever_has_no_key_or_an_unknown_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with world() as (site, service, _, _boss):
            context = zmq.asyncio.Context()
            stranger = curve.make_key(tmp_path / "stranger.key")
            hub = curve.load_key(site.path / "m" / "master.key")
            for endpoint in (service.addresses["listen"], service.addresses["publish"]):
                for kind in (zmq.DEALER, zmq.SUB, zmq.REQ, zmq.XSUB):
                    for keys in (None, stranger):
                        sock = context.socket(kind)
                        sock.set(zmq.LINGER, 0)
                        if keys is not None:
                            sock.curve_serverkey = hub.public
                            sock.curve_publickey, sock.curve_secretkey = keys.public, keys.secret
                        events = sock.get_monitor_socket()
                        sock.connect(endpoint)
                        assert not await _handshakes(events), (endpoint, kind, keys)
                        sock.disable_monitor()
                        sock.close()
                        events.close()
            context.term()

    _run(story())


async def _handshakes(events: Any) -> bool:
    """Does the connection come up? False as soon as it is known that it does not."""
    while await events.poll(2000):
        event = int.from_bytes((await events.recv_multipart())[0][:2], "little")
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return True
        if event in (
            zmq.EVENT_HANDSHAKE_FAILED_AUTH,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_DISCONNECTED,
        ):
            return False
    return False
