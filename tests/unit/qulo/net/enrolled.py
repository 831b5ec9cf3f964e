"""A master with keys inside the test's own loop: its operator, hosts and programs that get in, and a raw peer.

async with Site() as site:
    await start_master(site)
    async with site.bus("m", local=True) as operator:
        await let_in(site, operator, "web1")
        async with bus_of(site, "web1") as bus: ...
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

import qulo
from qulo.net import curve, join, token
from qulo.net.service import Service
from qulo.net.socket import make_context
from qulo.protocol import wire
from tests.unit.qulo.site import Site, until

ADMIN = "$qulo.local.admin"


async def start_master(site: Site, **keys: str) -> Service:
    """The hub `m`, with CURVE as by default."""
    return await site.start("m", curve="on", **keys)


async def ask(operator: qulo.Bus, what: str, /, **argument: Any) -> dict[str, Any]:
    """What `qulo keys`, `qulo token` and `qulo auth` do."""
    answer: dict[str, Any] = await operator.request(f"{ADMIN}.{what}", argument)
    return answer


async def new_token(operator: qulo.Bus, name: str | None = None, expires: float = 60, uses: int = 1) -> str:
    """The string that `qulo token new` prints."""
    return str((await ask(operator, "token.new", name=name, expires=expires, uses=uses))["token"])


async def enrol(text: str, key: curve.Key, wanted: str = "anybody") -> str:
    """What `--join` and `qulo join` do; the name."""
    context = make_context()
    try:
        return await join.enrol(token.decode(text), key.public, wanted, context)
    finally:
        context.term()


def key_file(site: Site, name: str) -> Path:
    """Where the key of the program `name` is; made when it is first asked for."""
    path = site.path / "clients" / f"{name}.key"
    curve.load_or_make(path)
    return path


async def let_in(site: Site, operator: qulo.Bus, *names: str) -> None:
    """Make keys for programs, and enrol them."""
    for name in names:
        text = await new_token(operator, name)
        assert await enrol(text, curve.load_key(key_file(site, name))) == name


def bus_of(site: Site, name: str, **options: Any) -> qulo.Bus:
    """The program `name`, over TCP."""
    return site.bus("m", server_key=site.path / "m" / "master.pub", key=key_file(site, name), **options)


async def keys_of(operator: qulo.Bus) -> dict[str, str]:
    """Name, or fingerprint where there is none, → state."""
    rows = (await ask(operator, "keys.ls"))["keys"]
    return {row["name"] or row["fingerprint"]: row["state"] for row in rows}


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines of the audit log."""
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "qulo.audit"]


@contextlib.contextmanager
def auditing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep the lines of the audit log, whatever else is logged."""
    with caplog.at_level(logging.INFO, "qulo.audit"):
        yield


class Raw:
    """A peer made of bare sockets: it keeps what it has, and its SUB stays when its session is over."""

    def __init__(self, service: Service, key: curve.Key, server: bytes, name: str = "raw") -> None:
        self._context = zmq.Context()
        self._options: dict[int, int | bytes] = {
            zmq.LINGER: 0,
            zmq.CURVE_SERVERKEY: server,
            zmq.CURVE_PUBLICKEY: key.public,
            zmq.CURVE_SECRETKEY: key.secret,
        }
        self._service = service
        self.dealer = self._open(zmq.DEALER, "listen")
        self.sub: zmq.Socket[bytes] | None = None
        self.name = name
        self._number = 0

    def _open(self, kind: int, what: str) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        for option, value in self._options.items():
            sock.set(option, value)
        sock.connect(self._service.addresses[what])
        return sock

    def close(self) -> None:
        """Close everything."""
        self._context.destroy(0)

    def send(self, *records: wire.Record) -> None:
        """One numbered frame."""
        self._number += 1
        self.dealer.send(wire.encode(self._number, 0, list(records)))

    async def said(self, verb: int) -> wire.Record:
        """The next record with this verb on DEALER."""
        while True:
            await until(lambda: self.dealer.poll(0))
            for record in wire.decode(self.dealer.recv())[2]:
                if record[0] == verb:
                    return record

    async def hello(self, kind: str = "client") -> wire.Record:
        """The answer to HELLO: WELCOME or REFUSED."""
        hello = [wire.HELLO, wire.VERSION, b"raw peer", self.name, kind, None, 0, 0, {}]
        self.dealer.send(wire.encode(0, 0, [hello]))
        await until(lambda: self.dealer.poll(0))
        record: wire.Record = wire.decode(self.dealer.recv())[2][0]
        return record

    async def subscribe(self, pattern: str) -> None:
        """Get in, and subscribe to a pattern as the protocol says."""
        welcome = await self.hello()
        assert welcome[0] == wire.WELCOME
        self.sub = self._open(zmq.SUB, "publish")
        self.sub.subscribe(wire.session_key(welcome[3]))
        await until(lambda: self.sub is not None and self.sub.poll(0))
        self.sub.recv()  # TIED
        self.send([wire.SUBSCRIBE, 1, pattern, None])
        for prefix in (await self.said(wire.GRANTED))[2]:
            self.sub.subscribe(prefix)

    def bodies(self) -> list[bytes]:
        """The bodies of all messages that have come over SUB and were not asked for yet."""
        found: list[bytes] = []
        while self.sub is not None and self.sub.poll(0):
            key, _, bundle = self.sub.recv().partition(b"\0")
            if not key.startswith(b"$qulo.s."):
                found += [bytes(body) for run in msgpack.unpackb(bundle)[1] for body in run[5]]
        return found
