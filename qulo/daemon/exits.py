"""What an error becomes at the edge of a program: an exit code of sysexits.h and one line of text."""

from __future__ import annotations

from qulo.errors import ConfigError, Denied, EndpointError, FileError, QuloError, UsageError

OK = 0
FAILED = 1  # whatever has no code of its own
NOT_RUNNING = 3  # what init scripts answer to `status`
USAGE = 64  # EX_USAGE
UNAVAILABLE = 69  # EX_UNAVAILABLE: an address or the PID file's lock is taken
CANNOT_CREATE = 73  # EX_CANTCREAT
DENIED = 77  # EX_NOPERM
CONFIG = 78  # EX_CONFIG

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, CONFIG),
    (EndpointError, UNAVAILABLE),
    (FileError, CANNOT_CREATE),
    (Denied, DENIED),
    (PermissionError, DENIED),
    (UsageError, USAGE),
)


def code_of(error: BaseException) -> int:
    """The exit code for `error`."""
    cause = cause_of(error)
    return next((code for kind, code in _CODES if isinstance(cause, kind)), FAILED)


def text_of(error: BaseException) -> str:
    """One line for the operator; the type is named only where the text was not written for operators."""
    cause = cause_of(error)
    if isinstance(cause, (QuloError, OSError)):
        return str(cause)
    return f"{type(cause).__name__}: {cause}"


def cause_of(error: BaseException) -> BaseException:
    """The one error that says what happened; a task group wraps it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
