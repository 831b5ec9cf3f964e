"""Records and frames out of a Chooser: right in their shape, with values that somebody might get wrong."""

from __future__ import annotations

from typing import Any

from qulo.protocol import wire
from tests.fuzz.chooser import Chooser

NUMBERS = (0, 1, 2, 3, 7, 255, 2**31, 2**32 + 1, 2**63 - 1, 2**64 - 1, -1, -2, -(2**63))
WORDS = (
    *("a", "a.b", "a.*", "a.>", ">", "*", "", "a..b", "local.a", "local.>", "local", "$qulo.ping", "$qulo.list"),
    *("$qulo.>", "$qulo.local.admin.x", "$qulo.s.0", "client", "agent", "g", "peer", "$", ".", "x" * 256, "é.ü", "a b"),
    *("a.b.c.d.e", "*.b", "$qulo", "0", "none", "protocol"),
    *("S", "first", "new", "master", "no such customer"),
)
BYTES = (b"", b"x", b"instance", b"instanc2", b"t" * 16, b"\0", b".a\0", b".", b"\x93\x01\x00\x90", b"x" * 5000)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, float("nan"), "x", b"x", [], {}, [[]], {"a": 1}, [b"x"], [0, 1])
KEYS = (
    *("a", "b", "a.b", "max_message", "link_buffer", "version", "name"),
    *("ids", "delay", "ttl", "agent", "number", "age", "require"),
)


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def value(chooser: Chooser, kinds: tuple[type, ...]) -> Any:
    """Something of one of these types, or now and then of none."""
    if chooser.below(32) == 31:
        return chooser.pick(VALUES)
    kind = chooser.pick(kinds)
    if kind is int:
        return chooser.pick(NUMBERS)
    if kind is str:
        return chooser.pick(WORDS) if chooser.below(8) else chooser.some(40).decode("utf-8", "replace")
    if kind is bytes:
        return chooser.pick(BYTES) if chooser.below(4) else chooser.some()
    if kind is bool:
        return bool(chooser.below(2))
    if kind is dict:
        return {chooser.pick(KEYS): _leaf(chooser) for _ in range(chooser.below(4))}
    if kind is list:
        return [_leaf(chooser) for _ in range(chooser.below(5))]
    return None


def _leaf(chooser: Chooser) -> Any:
    which = chooser.below(8)
    if which == 0:
        return deep(min(1015, 4 * chooser.byte()))
    if which == 1:
        return chooser.pick(VALUES)
    return chooser.pick(NUMBERS) if which < 4 else chooser.pick(BYTES)


def record(chooser: Chooser, direction: str) -> wire.Record:
    """One record of a verb that goes this way."""
    verbs = [number for number, row in wire.VERBS.items() if row.direction == direction]
    verb = chooser.pick(verbs)
    return [verb, *(value(chooser, kinds) for _, kinds in wire.VERBS[verb].fields)]


def frame(chooser: Chooser, number: int, ack: int, direction: str) -> bytes:
    """A frame of some records, with the number that is expected, or another."""
    numbers = (number, 0, *NUMBERS)
    records = [record(chooser, direction) for _ in range(1 + chooser.below(3))]
    return wire.encode(*_header(chooser, numbers, (ack, *NUMBERS)), records)


def raw_frame(chooser: Chooser, number: int) -> bytes:
    """Any bytes as the records of a frame whose head is right."""
    head: bytes = wire.pack(number)
    return b"\x93" + head + b"\x00" + chooser.some()


def _header(chooser: Chooser, numbers: tuple[int, ...], acks: tuple[int, ...]) -> tuple[int, int]:
    which = chooser.byte()
    return numbers[0 if which & 1 else which % len(numbers)], acks[0 if which & 2 else which % len(acks)]
