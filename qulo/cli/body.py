"""Bodies and headers: out of what the user gave, and back into what can be shown.

Text goes out as its UTF-8 bytes, --json as the value. What comes may be anything that another program sent:
it must never reach the terminal raw, unless the user asked for --raw.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from qulo import plain
from qulo.errors import UsageError


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON body. Raises UsageError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from None


def parse_header(text: str) -> tuple[str, str]:
    """`KEY: VALUE` of -H. Raises UsageError."""
    key, colon, value = text.partition(":")
    if not colon or not key.strip():
        raise UsageError(f"-H {text!r} is not KEY:VALUE")
    return key.strip(), value.strip()


def to_bytes(body: Any) -> bytes:
    """A body as bytes: bytes as they are, text in UTF-8, any other value as JSON."""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return body.encode() if isinstance(body, str) else to_json(body).encode()


def to_line(body: Any) -> str:
    """A body on one line, with nothing a terminal would obey."""
    return plain.shown(_text(body), "\t")


def to_lines(body: Any) -> str:
    """A body with its own lines, the last one ended, and nothing else a terminal would obey."""
    lines = _text(body).removesuffix("\n").split("\n")
    return "".join(plain.shown(line, "\t") + "\n" for line in lines)


def to_json(value: Any) -> str:
    """Any value as JSON on one line; see `_plain` for what JSON does not have."""
    try:
        return plain.shown_json(json.dumps(_plain(value), ensure_ascii=False, separators=(", ", ": ")))
    except RecursionError:
        return json.dumps({"undecodable": "nested too deeply"})


def _text(body: Any) -> str:
    return to_bytes(body).decode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    """The value with bytes as text, or as {"base64": …} if they are none; keys and strangers as text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else to_line(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
