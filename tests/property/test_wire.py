"""Every decoder takes any bytes: what comes back is checked, and what is wrong is a ProtocolError."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.hub import Hub
from qulo.protocol.ports import Limits

numbers = st.integers(0, 2**63)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)

OF_TYPE: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    str: st.sampled_from(["", "a", "a.b", "a.*", ">", "$qulo.list", "local.x", "a..b"]) | st.text(max_size=20),
    bytes: st.binary(max_size=40),
    dict: st.dictionaries(st.text(max_size=5), values, max_size=3),
    list: st.lists(st.binary(max_size=10) | values, max_size=4),
    bool: st.booleans(),
    type(None): st.none(),
}


@st.composite
def records(draw: st.DrawFn, direction: str) -> wire.Record:
    """A record that fits its row of the table."""
    verb = draw(st.sampled_from([n for n, v in wire.VERBS.items() if v.direction == direction]))
    return [verb, *(draw(OF_TYPE[draw(st.sampled_from(types))]) for _, types in wire.VERBS[verb].fields)]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        number, ack, found = wire.decode(data)
        assert (type(number), type(ack), type(found)) == (int, int, list)


@given(st.binary(max_size=300), st.integers(wire.SMALL + 1, wire.SMALL + 500))
def test_any_large_bytes_are_a_frame_of_one_record_or_a_protocol_error(head: bytes, size: int) -> None:
    with contextlib.suppress(ProtocolError):
        _, _, found = wire.decode(head.ljust(size, b"\0"))
        assert len(found) == 1


@given(st.binary(max_size=300), st.integers(0, 20))
def test_any_bytes_on_pub_are_a_bundle_or_a_protocol_error(data: bytes, start: int) -> None:
    for decode in (wire.decode_bundle, wire.decode_own):
        with contextlib.suppress(ProtocolError):
            decode(data, start)


@given(values)
def test_any_value_is_a_record_or_a_protocol_error(value: object) -> None:
    for direction in ("up", "down"):
        with contextlib.suppress(ProtocolError):
            assert wire.check(value, direction) in wire.VERBS


@given(numbers, numbers, st.lists(records("up"), max_size=5))
def test_a_frame_comes_back_as_it_was(number: int, ack: int, sent: list[wire.Record]) -> None:
    assert wire.decode(wire.encode(number, ack, sent)) == (number, ack, sent)
    assert [wire.check(record, "up") for record in sent] == [record[0] for record in sent]


@given(st.integers(0, 300_000), st.integers(0, 255), numbers)
def test_one_body_of_any_size_comes_back(size: int, topic: int, number: int) -> None:
    for record in (
        [wire.PUBLISH, "t" * topic, 0, [bytes(size)]],
        [wire.REQUEST, number, "t" * topic, 5, True, 0, bytes(size)],
        [wire.RUN, number, bytes(size)],
    ):
        assert wire.decode(wire.encode(number, number, [record]))[2] == [record]


@given(st.lists(st.lists(records("up"), max_size=3), max_size=20), st.booleans())
def test_a_hub_takes_any_records_of_a_peer(frames: list[list[wire.Record]], numbered: bool) -> None:
    hub = Hub("hub", 7, Limits(), lambda: b"t" * 16, "0")
    listener = hub.add_listener(False, 0)
    hello: wire.Record = [wire.HELLO, wire.VERSION, b"instance", "p", "client", None, 0, 0, {}]
    for number, sent in enumerate([[hello], *frames]):
        data = wire.encode(number if numbered else 0, 0, sent)
        hub.frame_received(listener, b"r", "me#1", "", data, float(number))
        hub.flush()
        for _, _, frame in hub.take_out():
            for record in wire.decode(frame)[2]:
                wire.check(record, "down")
        hub.take_pub()
    hub.tick(1000.0)
    assert not hub.sessions
    assert not hub.router.sessions
