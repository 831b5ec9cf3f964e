"""Enrolment tokens: one string with all that a new host needs to get in, once.

    qulo1_ + base64url(msgpack [[address, …], master's public key, one-time secret key] + check)

The secret key's public half is what the hub remembers; its holder may enrol one key and nothing else. The check is
the beginning of a SHA-256, against typing and pasting mistakes: what makes a token good is that the hub knows it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

import msgpack
import zmq
from zmq.utils import z85

from qulo.errors import UsageError
from qulo.net.curve import Key

_PREFIX = "qulo1_"
_CHECK = 4  # bytes: one mistake in 4 billion goes unnoticed, and is then merely denied
_KEY = 32

# Addresses of one master and their length; together they keep a token shorter than any terminal's paste limit.
MAX_ADDRESSES = 8
MAX_ADDRESS = 255

_ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([1-9][0-9]{0,4})")
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Token:
    """A token, taken apart. Keys are Z85, as everywhere else."""

    addresses: tuple[str, ...]
    master: bytes
    key: Key = field(repr=False)


def is_address(text: str) -> bool:
    """Has it the form of an address that can be dialled?"""
    found = _ADDRESS.fullmatch(text)
    return found is not None and int(found[2]) <= _LAST_PORT and len(text) <= MAX_ADDRESS


def encode(token: Token) -> str:
    """The string to hand over."""
    content: bytes = msgpack.packb([list(token.addresses), z85.decode(token.master), z85.decode(token.key.secret)])
    check = hashlib.sha256(content).digest()[:_CHECK]
    return _PREFIX + base64.urlsafe_b64encode(content + check).decode().rstrip("=")


def decode(text: str) -> Token:
    """Raises UsageError for whatever is not a whole token."""
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise UsageError(f"this is not a token: one begins with {_PREFIX} (`qulo token new` on the master prints one)")
    try:
        packed = text[len(_PREFIX) :].encode("ascii")
        content = base64.b64decode(packed + b"=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _damaged() from None
    if base64.urlsafe_b64encode(content).decode().rstrip("=") != text[len(_PREFIX) :]:
        raise _damaged()  # bits that nothing depends on: a token has one spelling
    content, check = content[:-_CHECK], content[-_CHECK:]
    if hashlib.sha256(content).digest()[:_CHECK] != check:
        raise _damaged()
    try:
        addresses, master, secret = msgpack.unpackb(content)
    except Exception:  # noqa: BLE001 - msgpack raises several families
        raise _damaged() from None
    if not _is_sound(addresses, master, secret):
        raise _damaged()
    packed_secret = z85.encode(secret)
    return Token(tuple(addresses), z85.encode(master), Key(zmq.curve_public(packed_secret), packed_secret))


def _is_sound(addresses: object, master: object, secret: object) -> bool:
    return (
        isinstance(addresses, list)
        and 0 < len(addresses) <= MAX_ADDRESSES
        and all(isinstance(each, str) and is_address(each) for each in addresses)
        and all(isinstance(key, bytes) and len(key) == _KEY for key in (master, secret))
    )


def _damaged() -> UsageError:
    return UsageError("this token is damaged: copy it whole, or make another one (`qulo token new` on the master)")
