"""wire.decode_bundle and decode_own: any bytes give lists or ProtocolError, whatever stands before them."""

from __future__ import annotations

import contextlib

from qulo.errors import ProtocolError
from qulo.protocol import wire
from tests.fuzz.chooser import Chooser


def check(data: bytes) -> None:
    """Decode what a SUB got, from any place in it."""
    chooser = Chooser(data)
    start = chooser.byte()
    rest = chooser.rest()
    for at in (start, rest.find(b"\0") + 1):
        with contextlib.suppress(ProtocolError):
            _, runs = wire.decode_bundle(rest, at)
            assert type(runs) is list
            assert type(runs[0]) is list
        with contextlib.suppress(ProtocolError):
            assert type(wire.decode_own(rest, at)) is list
