"""The state file beside the PID file: what only the running daemon knows, for `-s status` and for tests.

It must never be taken for proof that the daemon runs: the PID file's lock is.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from qulo.errors import FileError

_MODE = 0o644  # like the PID file: anybody may ask


def path_of(pid_file: str) -> str:
    """Where the state file of the daemon with this PID file is."""
    return f"{pid_file.removesuffix('.pid')}.state"


def write(pid_file: str, addresses: Mapping[str, str]) -> None:
    """Replace the state file whole, so that no reader ever sees half of one. Raises FileError."""
    path = Path(path_of(pid_file))
    beside = Path(f"{path}.new")  # one name is enough, the lock of the PID file keeps others away
    try:
        beside.write_text(json.dumps({"pid": os.getpid(), "addresses": dict(addresses)}) + "\n", encoding="utf-8")
        beside.chmod(_MODE)
        beside.replace(path)
    except OSError as error:
        raise FileError(f"{path} cannot be made: {error.strerror}") from error


def read(pid_file: str, pid: int) -> dict[str, str] | None:
    """The addresses that the daemon with `pid` wrote; None: it has not written any yet."""
    try:
        found = json.loads(Path(path_of(pid_file)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    # A PID of 0 is a daemon that we can see the lock of, but not the number (another PID namespace).
    return dict(found["addresses"]) if pid in (0, found["pid"]) else None


def remove(pid_file: str) -> None:
    """Remove it, at the end and before a new start; nothing is left to do when it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path_of(pid_file))
