"""Getting in with a token: one request to the hub, made with the token's key, enrols the key that is kept.

Used by `qagent --join` and `qulo join`. Nothing is written here; the caller keeps what comes back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import zmq.asyncio

from qulo.errors import Denied, EndpointError, QuloError, UsageError, from_wire
from qulo.net import curve
from qulo.net.link import LinkDriver, Security
from qulo.net.token import Token
from qulo.protocol import events, wire
from qulo.protocol.events import Event
from qulo.protocol.link import Identity, Link
from qulo.protocol.permissions import ENROL
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Item, Tracker

# Seconds for the whole of it: connecting to the right one of several addresses, and the answer.
PATIENCE = 15.0


@dataclass(slots=True)
class _Enrolment:
    """The answer, when it has come."""

    done: asyncio.Future[str]

    def settle(self, error: QuloError | None, name: str = "") -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(name)
        else:
            self.done.set_exception(error)


async def enrol(token: Token, public: bytes, wanted: str, context: zmq.asyncio.Context) -> str:
    """Have the key `public` accepted; returns the name it got.

    Raises UsageError for what is no name, Denied, or EndpointError without a hub.
    """
    if not curve.PRINCIPAL.match(wanted):
        raise UsageError(f"{wanted[:64]!r} is not a name: 1 to 64 of a-z 0-9 . _ -")
    enrolment = _Enrolment(asyncio.get_running_loop().create_future())
    link = Link(Identity(b"", wanted, "client", {"program": "join"}), Limits())

    def deliver(happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        for event in happened:
            if isinstance(event, events.Answer):
                _answered(event, enrolment)

    driver = LinkDriver(link, token.addresses, context, deliver, Security(token.master, token.key))
    driver.refused = lambda error: enrolment.settle(_unknown() if isinstance(error, Denied) else error)
    body = wire.pack({"key": public.decode(), "name": wanted})
    link.request(ENROL, int(PATIENCE * 1000), False, wire.PACKED, body)
    driver.start()
    try:
        return await asyncio.wait_for(enrolment.done, PATIENCE)
    except TimeoutError:
        reasons = "; ".join(driver.failures.values()) or "no answer"
        raise EndpointError(
            f"no hub enrols us at {', '.join(token.addresses)} ({reasons}); is the master running, and can this host "
            "reach it there? If not, `qulo token new --address` on the master makes a token with another address"
        ) from None
    finally:
        await driver.close()


def _unknown() -> Denied:
    return Denied(
        "the master does not know this token: it was used, was removed, or has expired; "
        "make another one (`qulo token new` on the master)"
    )


def _answered(event: events.Answer, enrolment: _Enrolment) -> None:
    if event.code:
        enrolment.settle(from_wire(event.code, event.body.decode("utf-8", "replace")))
        return
    try:
        enrolment.settle(None, str(wire.unpack_value(event.body)["name"]))
    except (ValueError, TypeError, KeyError):
        enrolment.settle(QuloError("the hub's answer is not one: do the versions match?"))
