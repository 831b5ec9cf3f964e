"""Messages, and bodies on their way to and from the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgpack

from qulo.errors import (
    BadBody,
)
from qulo.protocol.wire import HEADED, PACKED, RAW

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


class Message:
    """What a subscriber or responder gets: topic, body (bytes as published, or the value), headers."""

    __slots__ = ("body", "headers", "topic")

    def __init__(self, topic: str, body: Any, headers: Mapping[str, Any] = NO_HEADERS) -> None:
        self.topic = topic
        self.body = body
        self.headers = headers

    def __repr__(self) -> str:
        return f"Message({self.topic!r}, {self.body!r}, {dict(self.headers)!r})"


Handler = Callable[[Message], Any]


def encode_body(body: Any, headers: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    """(kind, bytes) of a body; raises BadBody when msgpack cannot hold it."""
    try:
        if headers:
            kind, data = encode_body(body)
            return HEADED, msgpack.packb([dict(headers), kind, data])
        if isinstance(body, (bytes, bytearray, memoryview)):
            return RAW, bytes(body)
        return PACKED, msgpack.packb(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadBody(f"msgpack cannot hold this body: {error}") from None


def decode_body(topic: str, kind: int, data: bytes) -> Message:
    """The message that a peer encoded; what cannot be decoded comes as its bytes, with a header that says so."""
    try:
        if kind == RAW:
            return Message(topic, data)
        value = msgpack.unpackb(data, strict_map_key=False)
        if kind == PACKED:
            return Message(topic, value)
        headers, inner, body = value
        if type(headers) is not dict or type(body) is not bytes or inner not in (RAW, PACKED):
            raise TypeError("headers are a map, and what has them is a body without")
        inside = decode_body(topic, inner, body)
        return Message(topic, inside.body, {**headers, **inside.headers})
    except Exception as error:  # noqa: BLE001 - another program's bytes: nothing of them may end this one
        return Message(topic, data, {"qulo-error": f"undecodable body: {type(error).__name__}"})
