"""The grammar on the wire: what fits is taken apart, everything else is a ProtocolError and nothing else."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.channel import CEILING

FILLING: dict[type, Any] = {
    int: 7,
    str: "a.b",
    bytes: b"body",
    dict: {},
    list: [],
    bool: True,
    type(None): None,
}


def example(verb: wire.Verb, number: int) -> wire.Record:
    """A record of this verb with the first allowed type in each field."""
    return [number, *(FILLING[types[0]] for _, types in verb.fields)]


@pytest.mark.parametrize("number", wire.VERBS)
def test_each_verb_passes_with_the_fields_of_its_row(number: int) -> None:
    verb = wire.VERBS[number]
    assert wire.check(example(verb, number), verb.direction) == number


@pytest.mark.parametrize("number", wire.VERBS)
def test_each_verb_is_refused_in_the_other_direction(number: int) -> None:
    verb = wire.VERBS[number]
    other = {"up": "down", "down": "up"}[verb.direction]
    with pytest.raises(ProtocolError):
        wire.check(example(verb, number), other)


@pytest.mark.parametrize("number", wire.VERBS)
def test_each_field_is_refused_with_a_type_that_its_row_does_not_name(number: int) -> None:
    verb = wire.VERBS[number]
    for position, (_, types) in enumerate(verb.fields, start=1):
        for kind, value in FILLING.items():
            record = example(verb, number)
            record[position] = value
            if kind not in types:
                with pytest.raises(ProtocolError):
                    wire.check(record, verb.direction)


@pytest.mark.parametrize("number", wire.VERBS)
def test_each_verb_is_refused_with_a_field_too_many_or_too_few(number: int) -> None:
    verb = wire.VERBS[number]
    record = example(verb, number)
    for wrong in ([*record, 1], record[:-1]):
        with pytest.raises(ProtocolError):
            wire.check(wrong, verb.direction)


@pytest.mark.parametrize("record", [None, 5, "x", b"x", {}, [], [None], ["hello"], [[1]], [True], [999], [-1], [1.5]])
def test_what_is_no_record_is_refused(record: object) -> None:
    with pytest.raises(ProtocolError):
        wire.check(record, "up")


def test_unnumbered_verbs_travel_up() -> None:
    assert {wire.VERBS[verb].direction for verb in wire.UNNUMBERED} == {"up"}


def test_a_frame_comes_back_as_it_was() -> None:
    records: list[wire.Record] = [[wire.PUBLISH, "a.b", 0, [b"1", b"2"]], [wire.UNSUBSCRIBE, 3]]
    assert wire.decode(wire.encode(7, 5, records)) == (7, 5, records)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93",
        b"\x93\x01\x02",
        b"\x93\x01\x02\x90x",  # one byte more than the frame
        msgpack.packb([1, 2]),
        msgpack.packb([1, 2, 3]),
        msgpack.packb([1, 2, {}]),
        msgpack.packb([-1, 2, []]),
        msgpack.packb([True, 2, []]),
        msgpack.packb([1, None, []]),
        msgpack.packb({1: 2}),
        msgpack.packb([1, 2, [["\ud800".encode("utf-8", "surrogatepass")]]])[:-2],
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\x91" * 60_000,  # deep
        b"\xa3\xff\xfe\xfd",
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(data)


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_truncated_frame_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(wire.encode(7, 5, [[wire.PUBLISH, "a.b", 0, [b"hello"]]])[:-cut])


SIZES = (65_000, *range(65_440, 65_545), 65_600, 100_000, 1_000_000)


@pytest.mark.parametrize("topic", ["a", "t" * 255])
def test_one_body_of_any_size_can_be_published(topic: str) -> None:
    for size in SIZES:
        record = [wire.PUBLISH, topic, 0, [b"x" * size]]
        assert wire.decode(wire.encode(2**40, 2**40, [record])) == (2**40, 2**40, [record]), size


def test_one_body_of_any_size_can_be_asked_and_answered() -> None:
    for size in SIZES:
        for record in (
            [wire.REQUEST, 2**40, "t" * 255, 5000, False, 0, b"x" * size],
            [wire.REPLY, 2**40, "", 0, b"x" * size],
            [wire.RUN, 3, b"x" * size],
        ):
            assert wire.decode(wire.encode(1, 0, [record]))[2] == [record], size


BIG = b"x" * 100_000


@pytest.mark.parametrize(
    "records",
    [
        [[wire.PUBLISH, "a", 0, [BIG]], [wire.UNSUBSCRIBE, 1]],
        [[wire.PUBLISH, "a", 0, [BIG, b""]]],
        [[wire.PUBLISH, "a", 0, [b"", BIG]]],
        [[wire.PUBLISH, "a" * 100_000, 0, [b""]]],
        [[[] for _ in range(70_000)]],
        [[wire.PUBLISH, "a", 0, [[[]] * 70_000]]],
        [{1: BIG}],
    ],
)
def test_a_large_frame_may_only_hold_one_record_that_ends_in_one_body(records: list[wire.Record]) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(wire.encode(1, 0, records))


def test_a_large_frame_with_a_wrong_length_is_refused() -> None:
    data = wire.encode(1, 0, [[wire.PUBLISH, "a", 0, [BIG]]])
    for wrong in (data[:-1], data + b"x"):
        with pytest.raises(ProtocolError):
            wire.decode(wrong)


@pytest.mark.parametrize("kind", [-1, 3, None, "0", True])
def test_an_unknown_kind_of_body_is_refused(kind: object) -> None:
    with pytest.raises(ProtocolError):
        wire.check_bodies(kind, [b"x"])


@pytest.mark.parametrize("bodies", [None, [], [b"x", "y"], [None], [[b"x"]], b"x"])
def test_bodies_are_bytes_and_at_least_one(bodies: object) -> None:
    with pytest.raises(ProtocolError):
        wire.check_bodies(wire.RAW, bodies)


def test_a_session_frame_comes_back_after_its_key() -> None:
    token = b"\x00\x01\xff"
    key = wire.session_key(token)
    frame = wire.encode_own(token, [[wire.TIED]])
    assert frame.startswith(key)
    assert wire.decode_own(frame, len(key)) == [[wire.TIED]]


@pytest.mark.parametrize("rest", [b"", b"\xc1", b"\x01", b"\x80"])
def test_a_session_frame_that_is_no_list_is_refused(rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_own(b"key\0" + rest, 4)


def test_an_argument_is_bounded_and_typed() -> None:
    assert wire.unpack_value(msgpack.packb({"a": 1})) == {"a": 1}
    for wrong in (b"", b"\xc1", b"\x91" * 4000, msgpack.packb(b"x" * 5000)):
        with pytest.raises(ValueError, match=r"."):
            wire.unpack_value(wrong)


def test_a_batch_stays_below_what_is_decoded_whole() -> None:
    assert wire.BATCH < CEILING < wire.SMALL
