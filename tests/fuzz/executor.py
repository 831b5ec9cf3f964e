"""The executor's decoder: whatever the network process sends is answered, or counted; nothing is raised, and only
what is in its table is carried out."""

from __future__ import annotations

import socket

import msgpack

from qulo.fleet.executor import IDS, LIMIT, Server

_HERE, _THERE = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_SERVER = Server(_HERE)
_HERE.close()  # questions are given to it directly
_THERE.close()


def check(data: bytes) -> None:
    """One message, without the socket; and one that calls a verb with it."""
    for message in (data, b"\x93\x01\xa4ping" + data, data * (1 + LIMIT // max(1, len(data)))):
        answer = _SERVER._answer(message)
        if answer is None:
            continue
        assert len(answer) <= LIMIT
        number, code, value = msgpack.unpackb(answer)
        assert 0 <= number < IDS
        assert type(code) is str
        assert type(value) is str if code else value["pid"] > 0
