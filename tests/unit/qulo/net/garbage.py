"""Frames that are not the protocol: random bytes, and mutations of good frames. Seeded; run it against a live hub.

python -m tests.unit.qulo.net.garbage tcp://127.0.0.1:PORT 1000000
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

import msgpack
import zmq

from qulo.errors import BadVersion
from qulo.protocol import wire
from qulo.protocol.offenders import BAD_FRAMES

HELLO: wire.Record = [wire.HELLO, wire.VERSION, b"garbage!", "garbage", "client", None, 0, 0, {}]

# A HELLO that no hub takes: its answer is like no other.
LAST: wire.Record = [wire.HELLO, 0, *HELLO[2:]]

PATIENCE = 20_000  # ms

# Frames of one connection: more, and the hub would not look at them any more.
EACH = BAD_FRAMES - 50


def frames(count: int, seed: int) -> Iterator[bytes]:
    """`count` frames, each hopeless in its own way, or nearly good."""
    dice = random.Random(seed)
    makers = (_noise, _mutated, _wrong_types, _deep, _wide, _wrong_verb, _truncated, _numbers)
    for _ in range(count):
        yield dice.choice(makers)(dice)


def _good(dice: random.Random) -> bytes:
    records: list[wire.Record] = [
        [wire.PUBLISH, "g.x", 0, [b"x" * dice.randrange(50)]],
        [wire.SUBSCRIBE, dice.randrange(9), dice.choice(("g.>", "g.*", "x")), None],
        [wire.REPAIR, 1, 0, {"g.x": 1}],
        [wire.REQUEST, 1, "g.y", 100, False, 0, b""],
        [wire.BEAT, 0, 0, 0, 0],
        [wire.REPLY, 7, "", 0, b""],
    ]
    return wire.encode(dice.randrange(3), dice.randrange(3), dice.sample(records, 2))


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(200))


def _mutated(dice: random.Random) -> bytes:
    data = bytearray(_good(dice))
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def _truncated(dice: random.Random) -> bytes:
    data = _good(dice)
    return data[: dice.randrange(len(data))]


def _wrong_types(dice: random.Random) -> bytes:
    values: tuple[object, ...] = (None, -1, 1 << 63, "x", b"x", [], {}, 1.5, True, [[]], float("nan"))
    record = [dice.randrange(50), *(dice.choice(values) for _ in range(dice.randrange(8)))]
    if record == [wire.BYE]:
        record.append(None)  # alone it would be right, and end the session that the rest is meant for
    packed: bytes = msgpack.packb([dice.choice((0, 1, "1", None)), 0, [record]])
    return packed


def _deep(dice: random.Random) -> bytes:
    return b"\x93\x00\x00" + b"\x91" * dice.randrange(2000) + b"\xc0"


def _wide(dice: random.Random) -> bytes:
    return b"\x93\x00\x00\xdd" + dice.randrange(1 << 32).to_bytes(4, "big") + b"\x90" * dice.randrange(500)


def _wrong_verb(dice: random.Random) -> bytes:
    return wire.encode(dice.randrange(2), 0, [[dice.randrange(1000), "x"]])


def _numbers(dice: random.Random) -> bytes:
    return wire.encode(dice.choice((1 << 62, 5, 99)), dice.choice((0, 1 << 62)), [[wire.UNSUBSCRIBE, 1]])


def throw(url: str, count: int, seed: int, greet: bool) -> None:
    """Send garbage to a hub, after a proper HELLO or without, and return when the hub has taken it all in.

    What comes back is read, so that nothing piles up; the answer to the last frame tells that the rest was read.
    Each connection sends so many that every one of them is looked at.
    """
    garbage = frames(count, seed)
    with zmq.Context() as context:
        for number in range(0, count, EACH):
            with context.socket(zmq.DEALER) as dealer:
                _throw_some(dealer, url, islice(garbage, EACH), number.to_bytes(8, "big") if greet else b"")


def _throw_some(dealer: zmq.Socket[bytes], url: str, garbage: Iterable[bytes], instance: bytes) -> None:
    dealer.set(zmq.LINGER, 0)
    dealer.connect(url)
    if instance:
        dealer.send(wire.encode(0, 0, [[*HELLO[:2], instance, *HELLO[3:]]]))
    for number, frame in enumerate(garbage):
        dealer.send(frame)
        if number % 100 == 0:
            while dealer.poll(0):
                dealer.recv()
    dealer.send(wire.encode(0, 0, [LAST]))
    while not any(record[:2] == [wire.REFUSED, BadVersion.code] for record in wire.decode(_answer(dealer))[2]):
        pass


def flood(url: str, count: int) -> None:
    """Send garbage, beginning with a session, and look at no answer; returns when all has been sent.

    A hub cuts that off again and again; libzmq connects anew each time.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.RECONNECT_IVL, 10)
        dealer.set(zmq.SNDTIMEO, PATIENCE)
        dealer.set(zmq.LINGER, 0)
        dealer.connect(url)
        dealer.send(wire.encode(0, 0, [HELLO]))
        dealer.recv()
        for frame in frames(count, 3):
            dealer.send(frame)


def _answer(dealer: zmq.Socket[bytes]) -> bytes:
    if not dealer.poll(PATIENCE):
        raise TimeoutError("the hub answers no more")
    return dealer.recv()


if __name__ == "__main__":
    throw(sys.argv[1], int(sys.argv[2]), seed=1, greet=len(sys.argv) > 3)
