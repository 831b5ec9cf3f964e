"""What others chose is shown without anything that a terminal, or a reader, would be led astray by."""

from __future__ import annotations

import json
import logging

import pytest

from qulo import plain
from qulo.cli import body
from qulo.daemon.logs import _Text

# Controls, C1, zero-width, bidirectional, separators, an unassigned one and half a surrogate.
BAD = [
    "\0",
    "\33",
    "\x7f",
    "\x9b",
    "\u200b",
    "\u202e",
    "\u2066",
    "\u2028",
    "\ufeff",
    "\U000e0041",
    "\udc80",
    "\n",
    "\t",
]


@pytest.mark.parametrize("char", BAD)
def test_what_is_not_printable_is_shown_as_its_escape(char: str) -> None:
    shown = plain.shown(f"a{char}b")
    assert shown.isprintable()
    assert shown == f"a{char.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize("text", ["", "web1", "naïve café", "日本語", "עברית", "🙂"])
def test_what_is_printable_stays(text: str) -> None:
    assert plain.shown(text) == text


def test_what_is_asked_to_stay_stays() -> None:
    assert plain.shown("a\tb\33", "\t") == "a\tb\\x1b"


@pytest.mark.parametrize("char", BAD)
def test_json_is_fit_for_a_terminal_and_reads_back_the_same(char: str) -> None:
    text = body.to_json({"name": f"a{char}é"})
    assert text.isprintable()
    assert json.loads(text) == {"name": f"a{char}é"}


@pytest.mark.parametrize("char", BAD)
def test_a_line_of_the_log_has_nothing_in_it_but_text(char: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "client %s is here", (f"a{char}b",), None)
    assert _Text().format(record).isprintable()
