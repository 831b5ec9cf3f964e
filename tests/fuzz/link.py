"""A pure Link in a session: any frame on either socket raises ProtocolError or nothing; what it gives can be sent."""

from __future__ import annotations

import contextlib
from typing import Any

from qulo.client.message import decode_body
from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Gap
from tests.fuzz.chooser import Chooser
from tests.fuzz.records import BYTES, NUMBERS, VALUES, WORDS, frame, raw_frame

EPOCH = 7
TOKEN = b"t" * 16
STEPS = 200


def _begin(link: Link, epoch: int) -> None:
    link.hello(b"instance")
    limits = {"max_message": 100_000, "link_buffer": 100_000, "high_water": 8, "heartbeat": 2000}
    welcome = [wire.WELCOME, wire.VERSION, epoch, TOKEN, False, 0, 5555, limits, {"name": "hub"}]
    link.frame_received(wire.encode(0, 0, [welcome]))


def _run(chooser: Chooser) -> list[Any]:
    run: list[Any] = [chooser.pick(WORDS), chooser.pick(NUMBERS), chooser.pick(NUMBERS), chooser.pick(BYTES)]
    run += [chooser.pick((0, 1, 2, 3)), [chooser.pick(BYTES) for _ in range(chooser.below(3))]]
    if not chooser.below(6):
        run[chooser.below(6)] = chooser.pick(VALUES)
    return run if chooser.below(12) else run[: chooser.below(6)]


def _pub(chooser: Chooser, link: Link) -> bytes:
    which = chooser.below(4)
    if which == 0:
        return chooser.some()
    if which == 1:
        return chooser.pick((b".a\0", b".\0", b"$qulo.s.\0", wire.session_key(TOKEN))) + chooser.some()
    if which == 2:
        records = [[wire.PULSE, 0, chooser.pick(NUMBERS), 0, [chooser.pick(NUMBERS) for _ in range(chooser.below(5))]]]
        records += [[wire.READY, chooser.below(6), chooser.pick(NUMBERS), chooser.pick(NUMBERS)]]
        return wire.encode_own(TOKEN, records[: 1 + chooser.below(2)])
    return wire.encode_bundle(b".a\0", link.epoch, [_run(chooser) for _ in range(chooser.below(3))])


def _direct(chooser: Chooser, link: Link) -> bytes:
    inner = wire.encode_bundle(b".a\0", link.epoch, [_run(chooser) for _ in range(chooser.below(3))])
    return wire.encode(link.channel.received + 1, 0, [[wire.RUN, chooser.below(6), inner]])


def _step(chooser: Chooser, link: Link) -> None:
    what = chooser.below(10)
    if what < 3:
        link.frame_received(frame(chooser, link.channel.received + 1, link.channel.number, "down"))
    elif what < 4:
        link.frame_received(raw_frame(chooser, link.channel.received + 1))
    elif what < 5:
        link.frame_received(chooser.some())
    elif what < 6:
        link.frame_received(_direct(chooser, link))
    elif what < 9:
        link.pub_received(_pub(chooser, link))
    else:
        link.take()
        link.beat(1)


def _take(link: Link) -> None:
    """What comes out can be sent, and given to a program."""
    for data in link.take():
        for sent in wire.decode(data)[2]:
            wire.check(sent, "up")
    for _, item in link.take_items():
        if isinstance(item, Gap):
            repr(item)
            continue
        topic, kind, bodies = item[:3]
        if type(bodies) is list:
            for body in bodies:
                decode_body(topic, kind, body)
    link.take_events()


def check(data: bytes) -> None:
    """Play one story, made of the input; after a ProtocolError the link connects anew, as its driver does."""
    chooser = Chooser(data)
    link = Link(Identity(b"", "peer"), Limits(link_buffer=100_000))
    link.respond("a.b")
    trackers = [link.subscribe(pattern) for pattern in ("a.>", "*.b", "a")]
    _begin(link, EPOCH)
    for _ in range(STEPS):
        if chooser.is_empty:
            break
        try:
            _step(chooser, link)
        except ProtocolError:
            link.disconnected()
            with contextlib.suppress(ProtocolError):  # its numbers may be nonsense by now: it only must not break
                _begin(link, chooser.pick((EPOCH, EPOCH + 1)))
            if link.phase is not Phase.UP:
                return
        _take(link)
    assert len(link.trackers) <= len(trackers)
