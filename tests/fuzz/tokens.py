"""token.decode: any text gives a token or UsageError, also behind a check that is right; and a token reads back."""

from __future__ import annotations

import base64
import hashlib

from qulo.errors import UsageError
from qulo.net import token


def check(data: bytes) -> None:
    """As text, as what is in the text, and as what the check is over."""
    _decode(data.decode("utf-8", "replace"))
    _decode(_text(data))
    _decode(_text(data + hashlib.sha256(data).digest()[:4]))


def _text(content: bytes) -> str:
    return "qulo1_" + base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> None:
    try:
        found = token.decode(text)
    except UsageError:
        return
    assert found.addresses
    assert len(found.master) == len(found.key.public) == len(found.key.secret) == 40
    assert token.decode(token.encode(found)) == found
    assert found.key.secret.decode() not in repr(found)
