"""The ZAP handler's decision: any question is answered with 200, 300 or 400, and 200 only for what may come in."""

from __future__ import annotations

import asyncio

from zmq.utils import z85

from qulo.net import zap
from qulo.net.socket import make_context
from tests.fuzz.chooser import Chooser

KEY = z85.decode(b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")  # of the documentation of ZeroMQ
DOMAINS = (b"qulo.curve", b"qulo.local", b"qulo.plain", b"", b"\xff")
MECHANISMS = (b"CURVE", b"NULL", b"PLAIN", b"", b"\xff")
ADDRESSES = (b"10.0.0.1", b"localhost:0:0:1", b"::1", b"2001:db8::1", b"\xff", b"fe80::1%eth0", b"")


def _make() -> zap.ZapHandler:
    """A handler without its socket: questions are given to it directly."""

    async def make() -> zap.ZapHandler:
        context = make_context()
        made = zap.ZapHandler(context)
        made.close()
        context.term()
        return made

    made = asyncio.run(make())
    made.principal = lambda key, _address: {z85.encode(KEY): "web1"}.get(key)
    made.max_handshakes = 2
    return made


_HANDLER = _make()


def check(data: bytes) -> None:
    """One question."""
    chooser = Chooser(data)
    domain = chooser.pick(DOMAINS) if chooser.below(8) else chooser.some()
    mechanism = chooser.pick(MECHANISMS) if chooser.below(8) else chooser.some()
    address = chooser.pick(ADDRESSES) if chooser.below(4) else chooser.some()
    credentials = [KEY if chooser.below(2) else chooser.some() for _ in range(chooser.below(3))]
    parts = [b"route", b"", b"1.0", b"1", domain, address, b"", mechanism, *credentials]
    code, _, user = _HANDLER._answer(parts)
    assert code in (b"200", b"300", b"400")
    assert bool(user) == (code == b"200")
    if code == b"200":
        sound = {
            b"qulo.curve": mechanism == b"CURVE" and credentials == [KEY],
            b"qulo.local": mechanism == b"NULL" and not credentials,
            b"qulo.plain": mechanism == b"NULL" and not credentials,
        }
        assert sound[domain]
        assert user.rpartition(b"#")[2].isdigit()
    assert len(_HANDLER._buckets) <= zap.ADDRESSES
