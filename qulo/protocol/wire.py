"""The wire grammar: frames, records, the verb table, and the one bounded decoder.

A frame on DEALER/ROUTER is one msgpack array, `[number, ack, [record, ...]]`. `number` counts the session's
frames from 1 in each direction and is 0 on frames that are not kept for resending; `ack` is the highest number
received so far. A record is `[verb, field, ...]`; VERBS says which fields each verb has.

A frame on PUB is `key \\0 msgpack`. For messages the rest is a bundle, `[epoch, [run, ...]]`, a run being
`[topic, seq, prev, origin, kind, [body, ...]]`; `key` is the longest prefix that all subscriptions matching its
runs have in common (one topic, or `a.b.` of a subscription to `a.b.>`), so that PUB's filter works on it. For one
session's own channel `key` is `session_key(token)` and the rest is `[record, ...]`.

This module never looks inside a body, and never trusts a frame: what does not fit raises ProtocolError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import msgpack

from qulo.errors import ProtocolError

VERSION: Final = 1

# Body kinds; the third holds msgpack [headers, kind, body] so that only messages with headers pay for them.
RAW: Final = 0
PACKED: Final = 1
HEADED: Final = 2

# A batch is closed at this size: large enough that a frame's fixed cost vanishes among 500 small messages,
# small enough to stay in cache and to bound memory at high_water * 64 KiB a peer.
BATCH: Final = 60_000

# Frames up to this size are decoded whole; at most 64 Ki objects can be in one. Larger ones may only be one
# record whose last field is one body, and only their head is decoded: a bomb of 1 MB of empty arrays costs 61 MB.
SMALL: Final = 65_536
_HEAD = 4096  # topic (255) + token fields + msgpack headers fit many times over
_LENGTHS = {
    b"\xc5": 2,
    b"\xc6": 4,
}  # bin 16 (a body just below SMALL has that) and bin 32: bytes of their length

# What one body costs beyond its bytes: its msgpack header (5), and a run's or record's own fields.
BODY_OVERHEAD: Final = 5
RECORD_OVERHEAD: Final = 48

# Link to hub.
HELLO: Final = 1
BYE: Final = 2
BEAT: Final = 3
ECHO: Final = 4
PUBLISH: Final = 5
SUBSCRIBE: Final = 6
UNSUBSCRIBE: Final = 7
REPAIR: Final = 8
RESPOND: Final = 9
REQUEST: Final = 10
REPLY: Final = 11
LOST: Final = 12
PUT: Final = 13
CONSUME: Final = 14
ACK: Final = 15
NAK: Final = 16
EXTEND: Final = 17
REJECT: Final = 18
# Hub to link.
WELCOME: Final = 32
REFUSED: Final = 33
PULSE: Final = 34
TIED: Final = 35
GRANTED: Final = 36
READY: Final = 37
DENIED: Final = 38
RUN: Final = 39
REPAIRED: Final = 40
GAP: Final = 41
WORK: Final = 42
CALL: Final = 43
ANSWER: Final = 44
ASKED: Final = 45
FORBIDDEN: Final = 46
NEWKEY: Final = 47
STORED: Final = 48
UNSTORED: Final = 49
DELIVER: Final = 50
ACKED: Final = 51
EXPIRED: Final = 52

# What may come in frames without a number: what is not worth sending twice.
UNNUMBERED: Final = frozenset((BYE, BEAT, ECHO))

Record = list[Any]

_INT = (int,)
_STR = (str,)
_BIN = (bytes,)
_MAP = (dict,)
_LIST = (list,)
_BOOL = (bool,)
_OPT_INT = (int, type(None))
_OPT_STR = (str, type(None))
_OPT_BIN = (bytes, type(None))
_OPT_MAP = (dict, type(None))


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of the verb table: who may send it, its fields with their types, and the permission it needs."""

    name: str
    direction: str  # "up": link to hub, "down": hub to link
    fields: tuple[tuple[str, tuple[type, ...]], ...]
    permission: str | None = None


VERBS: Final[dict[int, Verb]] = {
    HELLO: Verb(
        "hello",
        "up",
        (
            ("version", _INT),
            ("instance", _BIN),
            ("name", _STR),
            ("kind", _STR),
            ("token", _OPT_BIN),
            ("epoch", _INT),
            ("received", _INT),
            ("info", _MAP),
        ),
    ),
    BYE: Verb("bye", "up", ()),
    BEAT: Verb("beat", "up", (("time", _INT), ("rtt", _INT), ("reached", _INT), ("pulse", _INT))),
    ECHO: Verb("echo", "up", (("reached", _INT),)),
    PUBLISH: Verb("publish", "up", (("topic", _STR), ("kind", _INT), ("bodies", _LIST)), "publish"),
    SUBSCRIBE: Verb(
        "subscribe",
        "up",
        (("sid", _INT), ("pattern", _STR), ("group", _OPT_STR)),
        "subscribe",
    ),
    UNSUBSCRIBE: Verb("unsubscribe", "up", (("sid", _INT),)),
    REPAIR: Verb("repair", "up", (("sid", _INT), ("verified", _INT), ("newer", _MAP))),
    RESPOND: Verb("respond", "up", (("sid", _INT), ("pattern", _STR)), "respond"),
    REQUEST: Verb(
        "request",
        "up",
        (("rid", _INT), ("topic", _STR), ("ttl", _INT), ("many", _BOOL), ("kind", _INT), ("body", _BIN)),
        "request",
    ),
    REPLY: Verb("reply", "up", (("rid", _INT), ("code", _STR), ("kind", _INT), ("body", _BIN))),
    LOST: Verb("lost", "up", (("pattern", _STR), ("reason", _STR)), "publish"),
    PUT: Verb(
        "put",
        "up",
        (("rid", _INT), ("topic", _STR), ("kind", _INT), ("extra", _OPT_MAP), ("bodies", _LIST)),
        "publish",
    ),
    CONSUME: Verb(
        "consume",
        "up",
        (("sid", _INT), ("stream", _STR), ("group", _STR), ("prefetch", _INT), ("lease", _INT), ("start", _STR)),
        "stream",
    ),
    ACK: Verb("ack", "up", (("sid", _INT), ("record", _INT), ("spans", _LIST))),
    NAK: Verb("nak", "up", (("sid", _INT), ("record", _INT), ("spans", _LIST), ("delay", _INT), ("tried", _BOOL))),
    EXTEND: Verb("extend", "up", (("sid", _INT), ("spans", _LIST), ("lease", _INT))),
    REJECT: Verb("reject", "up", (("sid", _INT), ("record", _INT), ("seq", _INT), ("reason", _STR))),
    WELCOME: Verb(
        "welcome",
        "down",
        (
            ("version", _INT),
            ("epoch", _INT),
            ("token", _BIN),
            ("resumed", _BOOL),
            ("received", _INT),
            ("publish", _INT),
            ("limits", _MAP),
            ("info", _MAP),
        ),
    ),
    REFUSED: Verb("refused", "down", (("code", _STR), ("text", _STR))),
    PULSE: Verb("pulse", "down", (("time", _INT), ("at", _INT), ("reached", _INT), ("counts", _LIST))),
    TIED: Verb("tied", "down", ()),
    GRANTED: Verb("granted", "down", (("sid", _INT), ("prefixes", _LIST))),
    READY: Verb("ready", "down", (("sid", _INT), ("at", _INT), ("count", _INT))),
    DENIED: Verb("denied", "down", (("sid", _INT), ("code", _STR), ("text", _STR))),
    RUN: Verb("run", "down", (("sid", _INT), ("frame", _BIN))),
    REPAIRED: Verb("repaired", "down", (("sid", _INT), ("at", _INT), ("count", _INT))),
    GAP: Verb(
        "gap",
        "down",
        (
            ("sid", _INT),
            ("pattern", _STR),
            ("epoch", _INT),
            ("first", _OPT_INT),
            ("last", _OPT_INT),
            ("reason", _STR),
        ),
    ),
    WORK: Verb("work", "down", (("sid", _INT), ("topic", _STR), ("kind", _INT), ("bodies", _LIST))),
    CALL: Verb(
        "call",
        "down",
        (("rid", _INT), ("sid", _INT), ("topic", _STR), ("ttl", _INT), ("kind", _INT), ("body", _BIN)),
    ),
    ANSWER: Verb("answer", "down", (("rid", _INT), ("code", _STR), ("kind", _INT), ("body", _BIN))),
    FORBIDDEN: Verb("forbidden", "down", (("topic", _STR), ("code", _STR), ("text", _STR))),
    NEWKEY: Verb("newkey", "down", (("key", _BIN),)),
    ASKED: Verb("asked", "down", (("rid", _INT), ("responders", _INT))),
    STORED: Verb(
        "stored",
        "down",
        (("rid", _INT), ("amount", _INT), ("stream", _STR), ("seq", _INT), ("duplicate", _BOOL), ("at", _STR)),
    ),
    UNSTORED: Verb("unstored", "down", (("rid", _INT), ("amount", _INT), ("code", _STR), ("text", _STR))),
    DELIVER: Verb(
        "deliver",
        "down",
        (
            ("sid", _INT),
            ("seq", _INT),
            ("tries", _INT),
            ("redelivered", _BOOL),
            ("time", _INT),
            ("topic", _STR),
            ("kind", _INT),
            ("bodies", _LIST),
        ),
    ),
    ACKED: Verb("acked", "down", (("sid", _INT), ("record", _INT))),
    EXPIRED: Verb("expired", "down", (("sid", _INT), ("spans", _LIST))),
}

# Per verb: direction and every allowed tuple of the record's types. One lookup checks a record.
_SHAPES = {
    number: (verb.direction, frozenset((int, *types) for types in product(*(t for _, t in verb.fields))))
    for number, verb in VERBS.items()
}
_ONLY_BYTES = {bytes}

# What a record needs a permission for, and in which of its fields that is: (permission, index, what the field is).
NEEDS: Final[dict[int, tuple[str, int, str]]] = {
    number: (verb.permission, 1 + index, name)
    for number, verb in VERBS.items()
    if verb.permission is not None
    for index, (name, _) in enumerate(verb.fields)
    if name in ("topic", "pattern", "stream")
}

# One packer: its buffer is reused, and C code that never calls back cannot be re-entered on one thread.
pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack


def encode(number: int, ack: int, records: list[Record]) -> bytes:
    """One frame for DEALER or ROUTER."""
    data: bytes = pack((number, ack, records))
    return data


def decode(data: bytes) -> tuple[int, int, list[Record]]:
    """Take a frame apart: (number, ack, records); the records are lists, still to be checked by `check`.

    Raises ProtocolError for anything that is not a frame, at a cost bounded by the frame's size.
    """
    try:
        frame = _unpack_small(data) if len(data) <= SMALL else _unpack_large(data)
        number, ack, records = frame
    except ProtocolError:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises several families
        raise ProtocolError(f"not a frame: {type(error).__name__}") from None
    if type(number) is not int or type(ack) is not int or type(records) is not list or number < 0:
        raise ProtocolError("not a frame: wrong types")
    return number, ack, records


def _unpack_small(data: bytes) -> Any:
    return msgpack.unpackb(data)


def _unpack_large(data: bytes) -> Any:
    """Decode a frame that holds one record ending in one large body, reading only its head."""
    reader = msgpack.Unpacker(max_buffer_size=_HEAD)
    reader.feed(data[:_HEAD])
    if reader.read_array_header() != 3:
        raise ProtocolError("not a frame: three fields are expected")
    number, ack = reader.unpack(), reader.unpack()
    if reader.read_array_header() != 1:
        raise ProtocolError(f"a frame over {SMALL} bytes may hold one record only")
    record = [reader.unpack() for _ in range(reader.read_array_header() - 1)]
    at = reader.tell()
    in_list = data[at : at + 1] == b"\x91"
    at += in_list
    start = at + 1 + _LENGTHS.get(data[at : at + 1], 0)
    if start == at + 1 or int.from_bytes(data[at + 1 : start], "big") != len(data) - start:
        raise ProtocolError(f"a frame over {SMALL} bytes must end in one body")
    body = data[start:]
    record.append([body] if in_list else body)
    return number, ack, [record]


def check(record: Any, direction: str) -> int:
    """Hold a record against its row of the table and return its verb; raises ProtocolError."""
    if type(record) is not list or not record or type(record[0]) is not int:
        raise ProtocolError("a record is a list that starts with a verb")
    verb: int = record[0]
    shape = _SHAPES.get(verb)
    if shape is None or shape[0] != direction:
        raise ProtocolError(f"unknown verb {verb}")
    if tuple(map(type, record)) not in shape[1]:
        raise ProtocolError(f"wrong fields for {VERBS[verb].name}")
    return verb


def check_kind(kind: int) -> None:
    """Is this the kind of a body? Raises ProtocolError."""
    if not RAW <= kind <= HEADED:
        raise ProtocolError("unknown body kind")


def check_bodies(kind: Any, bodies: Any) -> None:
    """Is this a run's kind and bodies? Raises ProtocolError."""
    if type(kind) is not int or not RAW <= kind <= HEADED:
        raise ProtocolError("unknown body kind")
    if type(bodies) is not list or set(map(type, bodies)) != _ONLY_BYTES:
        raise ProtocolError("a run has one or more bodies, all of them bytes")


Run = list[Any]  # [topic, seq, prev, origin, kind, [body, …]]


def encode_bundle(key: bytes, epoch: int, runs: Sequence[Any]) -> bytes:
    """One PUB frame: consecutive runs that the same subscriptions match. `key` is what PUB filters by."""
    data: bytes = key + pack((epoch, runs))
    return data


def decode_bundle(data: bytes, start: int) -> tuple[int, list[Run]]:
    """(epoch, runs) of a PUB frame whose key ended before `start`; raises ProtocolError."""
    try:
        epoch, runs = msgpack.unpackb(data[start:])
        if type(runs) is not list or not runs or type(runs[0]) is not list or not runs[0]:
            raise ProtocolError("not a bundle: runs are a list")
    except ProtocolError:
        raise
    except Exception as error:  # noqa: BLE001 - as in decode
        raise ProtocolError(f"not a bundle: {type(error).__name__}") from None
    return epoch, runs


def session_key(token: bytes) -> bytes:
    """What a session's own PUB frames begin with, and what its SUB subscribes to first: it proves the session."""
    return b"$qulo.s." + token.hex().encode() + b"\0"


def encode_own(token: bytes, records: list[Record]) -> bytes:
    """One PUB frame for one session."""
    data: bytes = session_key(token) + pack(records)
    return data


def decode_own(data: bytes, start: int) -> list[Record]:
    """The records of a session's own PUB frame; raises ProtocolError."""
    try:
        records = msgpack.unpackb(data[start:])
    except Exception as error:  # noqa: BLE001 - as in decode
        raise ProtocolError(f"not a frame: {type(error).__name__}") from None
    if type(records) is not list:
        raise ProtocolError("not a frame: records are a list")
    return records


def unpack_value(body: bytes) -> Any:
    """A PACKED body as a value, for the few requests that a hub answers itself; raises ValueError."""
    if len(body) > _HEAD:
        raise ValueError("too large for an argument")
    try:
        return msgpack.unpackb(body)
    except Exception as error:  # noqa: BLE001 - as in decode
        raise ValueError(f"not msgpack: {type(error).__name__}") from None
