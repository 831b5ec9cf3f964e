"""Where log records go: everything to the log file (or stderr), errors also to syslog, facility daemon.

A log that cannot be written never stops the daemon and never prints a traceback; it says so once, to the
other one. Text from peers cannot forge lines: control characters are escaped.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import logging.handlers
import os
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from qulo import plain
from qulo.config import Settings
from qulo.errors import FileError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from threading import ExceptHookArgs

log = logging.getLogger(__name__)

# Decisions that deny or run something, one JSON object each; whoever makes them knows this name.
AUDIT = logging.getLogger("qulo.audit")

DEV_LOG = "/dev/log"
_MODE = 0o640  # the group may read it (adm, by custom); topics and host names are nobody else's business


class Logs:
    """This process's log handlers. `apply` once at the start, again after a reload and on USR1."""

    def __init__(self, program: str, *, to_stderr: bool) -> None:
        self._program, self.to_stderr = program, to_stderr
        self._handlers: list[logging.Handler] = []
        self.notes: list[str] = []
        """What the operator has to know once, on stderr."""

    def apply(self, settings: Settings) -> None:
        """Open everything anew as `settings` say, then let go of the old.

        Raises FileError when the log file cannot be opened; nothing has changed then.
        """
        main = _Stderr(sys.stderr) if self.to_stderr else _File(self._path(settings))
        main.setFormatter(_Json() if settings.log_format == "json" else _Text())
        audit = self._audit(settings, main)
        faulthandler.enable(main.stream)  # a crash in C leaves a traceback in the log, too
        root = logging.getLogger()
        old, self._handlers = self._handlers, [main, audit]
        for handler in old:
            root.removeHandler(handler)
            AUDIT.removeHandler(handler)
            handler.close()
        root.addHandler(main)
        AUDIT.addHandler(audit)
        AUDIT.setLevel(logging.INFO)
        AUDIT.propagate = False
        root.setLevel(settings.log_level.upper())
        self._add_syslog(root)
        _catch_strays()

    def _path(self, settings: Settings) -> str:
        path = Path(settings.log_file)
        return str(path / f"{self._program}.log" if path.is_dir() else path)

    def _audit(self, settings: Settings, main: logging.Handler) -> logging.Handler:
        """The audit log is its own file, but where everything goes to stderr and nobody has named one."""
        if self.to_stderr and settings.sources["audit_file"] == "default":
            handler: logging.Handler = _Stderr(sys.stderr)
        else:
            try:
                handler = _File(settings.audit_file)
            except FileError:
                main.close()
                raise
        handler.setFormatter(logging.Formatter("%(message)s"))  # a JSON object, with its time
        return handler

    def _add_syslog(self, root: logging.Logger) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(DEV_LOG)  # SysLogHandler itself says nothing when nobody is there
        except OSError as error:
            if not self.notes:
                self.notes.append(f"no syslog at {DEV_LOG} ({error.strerror}): errors are in the log only")
                if not self.to_stderr:  # there it will be told anyway
                    log.info("%s", self.notes[0])
            return
        handler = _Syslog(self._program, DEV_LOG)
        self._handlers.append(handler)
        root.addHandler(handler)


class _Complains(logging.Handler):
    """A handler that cannot deliver says so once, at a level that reaches the other one."""

    complaint = logging.ERROR
    place = ""
    _complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        if not self._complained:
            self._complained = True
            log.log(self.complaint, "cannot log to %s: %s", self.place, sys.exc_info()[1])


class _File(_Complains, logging.StreamHandler[TextIO]):
    """A log file that is opened once and closed; reopening is a new handler."""

    def __init__(self, path: str) -> None:
        self.place = path
        try:
            stream = open(  # noqa: SIM115 - close() closes it
                path, "a", encoding="utf-8", errors="backslashreplace", opener=_open_log
            )
        except OSError as error:
            raise FileError(f"log {path} cannot be opened: {error.strerror}") from error
        super().__init__(stream)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: what was left has been complained of, the file is closed
            self.stream.close()
        super().close()


class _Stderr(_Complains, logging.StreamHandler[TextIO]):
    place = "stderr"


class _Syslog(_Complains, logging.handlers.SysLogHandler):
    """Errors in one line each, without tracebacks: those are in the log file."""

    complaint = logging.WARNING  # below what this handler takes: it reaches the file only
    append_nul = False

    def __init__(self, program: str, address: str) -> None:
        self.place = address
        super().__init__(address, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        self.ident = f"{program}[{os.getpid()}]: "
        self.setLevel(logging.ERROR)
        self.setFormatter(_Line())


class _Line(logging.Formatter):
    """The record in one line; an exception by its type and text."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        cause = f" ({type(error).__name__}: {error})" if error else ""
        return plain.shown(f"{record.name}: {record.getMessage()}{cause}")


class _Text(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE`, and an indented traceback when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {plain.shown(record.getMessage())}"
        trace = _trace(self, record)
        return line if trace is None else "\n  ".join([line, *map(plain.shown, trace.splitlines())])


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = _trace(self, record)
        return json.dumps(fields if trace is None else {**fields, "exception": trace})


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[1] else None


def _open_log(path: str, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_EXCL, _MODE)
    except FileExistsError:
        return os.open(path, flags | os.O_CLOEXEC)  # a rotation's choice of mode, or a device: left as it is
    os.fchmod(fd, _MODE)  # the umask is stricter
    return fd


def _catch_strays() -> None:
    """What Python would print to stderr, which is /dev/null in a daemon, goes to the log."""
    logging.captureWarnings(True)
    sys.unraisablehook = _unraisable
    threading.excepthook = _thread_died


def _unraisable(found: UnraisableHookArgs) -> None:
    log.error("%s %r", found.err_msg or "exception ignored in", found.object, exc_info=found.exc_value)


def _thread_died(found: ExceptHookArgs) -> None:
    name = found.thread.name if found.thread else "?"
    log.error("thread %s died", name, exc_info=found.exc_value)
