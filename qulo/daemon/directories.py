"""The directories a daemon needs, made with the right mode and owner before privileges are dropped.

What exists already is never changed: a `pid_file` in /run must not hand /run to the daemon's user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from qulo import config
from qulo.config import Settings
from qulo.errors import FileError

_PRIVATE = 0o700
_READABLE = 0o755  # as root: local programs have to reach the socket, whose own mode decides


def wanted(settings: Settings, *, log_to_file: bool) -> list[str]:
    """The directories that `settings` need."""
    sockets = os.path.dirname(settings.local.removeprefix("ipc://"))
    paths = [settings.data_dir, os.path.dirname(settings.pid_file), sockets]
    if log_to_file:
        is_directory = Path(settings.log_file).is_dir()
        paths.append(settings.log_file if is_directory else os.path.dirname(settings.log_file))
        paths.append(os.path.dirname(settings.audit_file))
    return list(dict.fromkeys(paths))


def make(path: str, uid: int, owner: tuple[int, int] | None, *, private: bool = False) -> None:
    """Make `path` if it is missing; `owner` (uid, gid) gets what was made. Raises FileError."""
    _make(Path(path), _PRIVATE if private or uid != 0 else _READABLE, owner)
    # /tmp is everybody's: between the first look and now somebody else may have made it.
    problem = config.runtime_problem(path, uid) if uid != 0 and path == config.last_resort(uid) else None
    if problem is not None:
        raise FileError(problem)


def check_writable(paths: Iterable[str]) -> None:
    """Once privileges are dropped: say which of `paths` this user cannot write to. Raises FileError."""
    for path in paths:
        if not os.access(path, os.W_OK | os.X_OK):
            raise FileError(f"{path} is not writable for user {os.getuid()}: chown it, or configure another one")


def _make(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make(path.parent, mode, None)  # only the last one is the daemon's own
    try:
        path.mkdir(mode=mode)
        _hand_over(path, mode, owner)
    except FileExistsError:
        if not path.is_dir():
            raise FileError(f"{path} is not a directory") from None
    except OSError as error:
        raise FileError(f"{path} cannot be made: {error.strerror}") from error


def _hand_over(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
    # Never by name: where `owner` may write, a link to something of root's could stand there by now.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, mode)  # the umask took part of it
        if owner is not None:
            os.fchown(fd, *owner)
    finally:
        os.close(fd)
