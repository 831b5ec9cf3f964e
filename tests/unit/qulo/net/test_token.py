"""Tokens: there and back, and whatever is not a whole one is refused with what to do."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgpack
import pytest
import zmq
from zmq.utils import z85

from qulo.errors import UsageError
from qulo.net import token
from qulo.net.curve import Key
from qulo.net.token import Token, decode, encode


def made(*addresses: str) -> Token:
    """A token for a master at `addresses`."""
    return Token(addresses or ("tcp://master.example.net:7370",), zmq.curve_keypair()[0], Key(*zmq.curve_keypair()))


def packed(content: bytes) -> str:
    """Any content with the right check behind it."""
    check = hashlib.sha256(content).digest()[:4]
    return "qulo1_" + base64.urlsafe_b64encode(content + check).decode().rstrip("=")


@pytest.mark.parametrize(
    "addresses",
    [("tcp://10.0.0.1:7370",), ("tcp://[fe80::1]:1",), ("tcp://a:1", "tcp://b_c.d:65535", *["tcp://e:2"] * 6)],
)
def test_a_token_says_all_that_was_put_into_it(addresses: tuple[str, ...]) -> None:
    whole = made(*addresses)
    assert decode(encode(whole)) == whole
    assert decode(f"  {encode(whole)}\n") == whole


def test_a_token_is_one_word_that_a_shell_leaves_alone() -> None:
    text = encode(made())
    assert text.startswith("qulo1_")
    assert text.replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize("addresses", [("tcp://a:1",), ("tcp://ab:1",), ("tcp://abc:1",)])
def test_any_altered_character_is_noticed(addresses: tuple[str, ...]) -> None:
    """The last one too, in which not every bit counts; hence three lengths."""
    text = encode(made(*addresses))
    for place in range(len(text)):
        for other in "AQgw-_":
            if text[place] == other:
                continue
            with pytest.raises(UsageError, match=r"this is not a token|this token is damaged: copy it whole"):
                decode(text[:place] + other + text[place + 1 :])


def test_a_token_that_is_cut_off_anywhere_or_has_more_behind_it_is_noticed() -> None:
    text = encode(made())
    for end in range(len(text)):
        with pytest.raises(UsageError, match="`qulo token new` on the master"):
            decode(text[:end])
    for more in ("A", "AAAA", "=", "=" * 4, text):
        with pytest.raises(UsageError, match="damaged"):
            decode(text + more)


@pytest.mark.parametrize("text", ["", " ", "hello", "QULO1_AAAA", "qulo2_AAAA", "qulo1", "--name", "\0", "€"])
def test_what_is_no_token_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(UsageError, match=r"this is not a token: one begins with qulo1_ \(`qulo token new`"):
        decode(text)


KEY = b"k" * 32


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb([["tcp://a:1"], KEY]),
        msgpack.packb([["tcp://a:1"], KEY, KEY, KEY]),
        msgpack.packb([[], KEY, KEY]),
        msgpack.packb([["tcp://a:1"] * 9, KEY, KEY]),
        msgpack.packb([[f"tcp://{'a' * 255}:1"], KEY, KEY]),
        msgpack.packb([["ipc:///tmp/x"], KEY, KEY]),
        msgpack.packb([["tcp://a:99999"], KEY, KEY]),
        msgpack.packb([["tcp://a:0"], KEY, KEY]),
        msgpack.packb([["tcp://a"], KEY, KEY]),
        msgpack.packb([["tcp://a b:1"], KEY, KEY]),
        msgpack.packb([[7], KEY, KEY]),
        msgpack.packb(["tcp://a:1", KEY, KEY]),
        msgpack.packb([["tcp://a:1"], KEY[1:], KEY]),
        msgpack.packb([["tcp://a:1"], KEY, KEY.decode()]),
        msgpack.packb([["tcp://a:1"], KEY, KEY]) + b"\0",
        b"\x91" * 5000,
        msgpack.packb(msgpack.ExtType(5, b"x")),
    ],
)
def test_hostile_content_with_a_right_check_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match="damaged"):
        decode(packed(content))


def test_a_tokens_secret_shows_in_no_text() -> None:
    whole = made()
    assert whole.key.secret.decode() not in f"{whole} {whole!r} {[whole]}"
    assert z85.decode(whole.key.secret).hex() not in repr(whole)


@pytest.mark.parametrize(
    ("address", "can"),
    [
        ("tcp://host:1", True),
        ("tcp://[::1]:65535", True),
        ("tcp://host:65536", False),
        ("tcp://:1", False),
        ("tcp://*:1", False),
        ("tcp://host:01", False),
        ("host:1", False),
        ("tcp://host:1/", False),
        ("tcp://host:1\n", False),
    ],
)
def test_an_address_is_one_that_can_be_dialled(address: Any, can: bool) -> None:
    assert token.is_address(address) is can
