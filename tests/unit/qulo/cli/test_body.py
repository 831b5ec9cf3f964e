"""Bodies and headers, to the wire and to the terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qulo.cli import body
from qulo.errors import UsageError


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b"text", "text"),
        ("größer", "größer"),
        (b"two\nlines\33[2J", "two\\nlines\\x1b[2J"),
        (b"\xff\x00", "\\xff\\x00"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (21.5, "21.5"),
        ("\u202edeceives", "\\u202edeceives"),
    ],
)
def test_a_body_on_a_terminal_is_one_line_of_text(value: Any, line: str) -> None:
    assert body.to_line(value) == line


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        (b"text", "text"),
        (b"\xff", {"base64": "/w=="}),
        ({1: b"a", b"k": (2,)}, {"1": "a", "k": [2]}),
        ([object], ["<class 'object'>"]),
    ],
)
def test_any_value_has_a_form_in_json(value: Any, as_json: Any) -> None:
    assert json.loads(body.to_json(value)) == as_json


def test_a_value_nested_without_end_is_named_not_raised() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    assert json.loads(body.to_json(value)) == {"undecodable": "nested too deeply"}


def test_raw_is_what_was_sent() -> None:
    assert [body.to_bytes(value) for value in (b"\xff", "ü", {"a": 1})] == [
        b"\xff",
        b"\xc3\xbc",
        b'{"a": 1}',
    ]


def test_headers_are_split_at_the_first_colon() -> None:
    assert body.parse_header("at: 12:30") == ("at", "12:30")
    for wrong in ("none", ": value"):
        with pytest.raises(UsageError):
            body.parse_header(wrong)


def test_what_is_not_json_is_refused() -> None:
    assert body.parse_json('{"a": 1}') == {"a": 1}
    for wrong in ("{", b"\xff", "[" * 100_000):
        with pytest.raises(UsageError, match="not JSON"):
            body.parse_json(wrong)
