"""Exit codes: what became of a command line, for scripts. `qulo --help` lists them; they never change."""

from __future__ import annotations

from qulo.daemon import exits
from qulo.errors import (
    DeadlineExceeded,
    Disconnected,
    HandlerError,
    NoResponders,
    NoStream,
    OutcomeUnknown,
    ResponderLost,
)

OK = exits.OK
FAILED = exits.FAILED
TIMED_OUT = 3
NOBODY = 4  # no responder, or no stream that stores it
USAGE = exits.USAGE
UNAVAILABLE = exits.UNAVAILABLE
DENIED = exits.DENIED
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended

# What a verb can meet beyond what `daemon.exits` knows.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (DeadlineExceeded, TIMED_OUT),
    (NoResponders, NOBODY),
    (NoStream, NOBODY),
    (HandlerError, FAILED),
    (ResponderLost, FAILED),
    (Disconnected, UNAVAILABLE),
    (OutcomeUnknown, UNAVAILABLE),
)


def code_of(error: BaseException) -> int:
    """The exit code for `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), exits.code_of(error))


def text_of(error: BaseException) -> str:
    """One line: what another program sent may have more, or try to move the terminal's cursor."""
    text = exits.text_of(error)
    return "".join(char if char.isprintable() else " " for char in text)
