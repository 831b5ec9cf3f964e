"""Exit codes are an interface."""

from __future__ import annotations

import pytest

from qulo.daemon import exits
from qulo.errors import ConfigError, Denied, EndpointError, FileError, QuloError, UsageError


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("bad", file="f", line=1, column=2, key="k"), 78, "f:1:2: k: bad"),
        (EndpointError("taken"), 69, "taken"),
        (FileError("no"), 73, "no"),
        (Denied("no"), 77, "no"),
        (PermissionError("no"), 77, "no"),
        (UsageError("no"), 64, "no"),
        (QuloError("no"), 1, "no"),
        (ValueError("no"), 1, "ValueError: no"),
        (ExceptionGroup("g", [ExceptionGroup("h", [EndpointError("taken")])]), 69, "taken"),
        (
            ExceptionGroup("g", [EndpointError("a"), EndpointError("b")]),
            1,
            "ExceptionGroup: g (2 sub-exceptions)",
        ),
    ],
)
def test_an_error_has_a_code_and_a_line(error: Exception, code: int, text: str) -> None:
    assert (exits.code_of(error), exits.text_of(error)) == (code, text)
