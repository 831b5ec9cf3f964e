"""A small mutator: deterministic, and needs nothing. Atheris finds more; this runs everywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# Bytes with a meaning in msgpack, YAML or a Chooser.
_TELLING = (
    bytes((0, 1, 2, 0x7F, 0x80, 0x90, 0x91, 0x93, 0xA0, 0xC0, 0xC4, 0xCF, 0xD9, 0xDC, 0xDD, 0xDF, 0xFF)) + b":-{[*&>."
)

LONGEST = 4096


def inputs(corpus: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs, each made of one or two of the corpus."""
    dice = random.Random(seed)
    known = list(corpus) or [b""]
    for _ in range(count):
        data = bytearray(dice.choice(known))
        for _ in range(1 << dice.randrange(5)):
            _change(dice, data, known)
        yield bytes(data[:LONGEST])


def _change(dice: random.Random, data: bytearray, known: Sequence[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    match dice.randrange(7):
        case 0:
            data[at:at] = dice.randbytes(dice.randrange(1, 9))
        case 1:
            del data[at : at + dice.randrange(1, 9)]
        case 2 if data:
            data[at % len(data)] = dice.choice(_TELLING)
        case 3 if data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        case 4:
            piece = data[at : at + dice.randrange(1, 33)]
            data[at:at] = piece * dice.choice((1, 2, 30))
        case 5:
            other = dice.choice(known)
            cut = dice.randrange(len(other) + 1)
            data[at:] = other[cut:]
        case _:
            data += dice.randbytes(dice.randrange(1, 17))
