"""wire.decode, check and check_bodies: any bytes give checked records or ProtocolError; good ones survive a copy."""

from __future__ import annotations

import contextlib

from qulo.errors import ProtocolError
from qulo.protocol import wire


def check(data: bytes) -> None:
    """Decode as a frame, in both directions, and as an argument."""
    with contextlib.suppress(ValueError):
        wire.unpack_value(data)
    try:
        number, ack, records = wire.decode(data)
    except ProtocolError:
        return
    assert type(number) is int
    assert number >= 0
    assert type(ack) is int
    assert type(records) is list
    assert len(records) <= len(data)
    for record in records:
        for direction in ("up", "down"):
            _check_record(record, direction)


def _check_record(record: object, direction: str) -> None:
    try:
        verb = wire.check(record, direction)
    except ProtocolError:
        return
    assert isinstance(record, list)
    row = wire.VERBS[verb]
    assert row.direction == direction
    assert len(record) == 1 + len(row.fields)
    if verb in (wire.PUBLISH, wire.WORK):
        try:
            wire.check_bodies(record[-2], record[-1])
        except ProtocolError:
            return
        assert all(type(body) is bytes for body in record[-1])
        assert wire.decode(wire.encode(1, 0, [record])) == (1, 0, [record])
