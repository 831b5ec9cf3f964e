"""The tree of errors: its codes are the wire's and never change, its texts help."""

from __future__ import annotations

import pytest

from qulo import errors
from qulo.errors import BY_CODE, ConfigError, QuloError, from_wire

# What travels between versions: a line here is never changed, only added.
CODES = {
    "bad-body": "BadBody",
    "bad-topic": "BadTopic",
    "deadline": "DeadlineExceeded",
    "denied": "Denied",
    "disconnected": "Disconnected",
    "endpoint": "EndpointError",
    "error": "QuloError",
    "file": "FileError",
    "handler": "HandlerError",
    "no-responders": "NoResponders",
    "no-stream": "NoStream",
    "overloaded": "Overloaded",
    "protocol": "ProtocolError",
    "refused": "Refused",
    "request": "RequestError",
    "responder-lost": "ResponderLost",
    "store-failed": "StoreFailed",
    "store-full": "StoreFull",
    "too-large": "TooLarge",
    "unknown": "OutcomeUnknown",
    "usage": "UsageError",
    "version": "BadVersion",
}


def test_the_codes_of_the_wire_are_what_they_always_were() -> None:
    assert {code: cls.__name__ for code, cls in BY_CODE.items()} == CODES


def drawn_parents() -> dict[str, str]:
    """The tree in the module's docstring: each error's parent."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").split("\n\n")[1].splitlines():
        text = line.lstrip(" │├└─")
        depth = (len(line) - len(text)) // 4 - 1
        path = [*path[:depth], text.split()[0]]
        parents[path[-1]] = path[-2] if depth else "Exception"
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, QuloError)]
    assert drawn_parents() == {cls.__name__: cls.__bases__[0].__name__ for cls in classes}


@pytest.mark.parametrize("cls", BY_CODE.values())
def test_an_errors_default_text_is_its_docstring(cls: type[QuloError]) -> None:
    assert str(cls()) == (cls.__doc__ or "").splitlines()[0]
    assert str(cls("more")) == "more"


@pytest.mark.parametrize("code", CODES)
def test_an_error_comes_back_from_the_wire(code: str) -> None:
    error = from_wire(code, "why")
    assert (type(error).__name__, error.code, str(error)) == (CODES[code], code, "why")


def test_an_unknown_code_is_a_plain_error_that_names_it() -> None:
    error = from_wire("quota", "too much")
    assert type(error) is QuloError
    assert str(error) == "quota: too much"


def test_a_deadline_is_a_timeout_to_programs_that_know_nothing_of_qulo() -> None:
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "bad"),
        ({"key": "listen"}, "listen: bad"),
        ({"file": "/f"}, "/f: bad"),
        ({"file": "/f", "line": 3}, "/f:3: bad"),
        ({"file": "/f", "line": 3, "column": 0, "key": "listen"}, "/f:3:0: listen: bad"),
    ],
)
def test_a_configuration_error_begins_with_its_place(place: dict[str, object], text: str) -> None:
    error = ConfigError("bad", **place)  # type: ignore[arg-type]
    assert str(error) == text
    assert error.message == "bad"
