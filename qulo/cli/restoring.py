"""The store of a daemon that is stopped: put a backup in its place, or look whether it is whole.

It must never touch the store of a daemon that runs (two things say so: the PID file's lock and the lock of the store),
and never write to the backup: what is checked, and put in the place, is a copy of it. Root does this as the store's
owner, so that no link in a directory of the daemon's user can lead it astray, and every file belongs to that user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qulo.errors import FileError, QuloError, StoreFailed, UsageError

if TYPE_CHECKING:
    from qulo.config import Settings
    from qulo.store.sqlite import SqliteStore

_PROGRAMS = ("qmaster", "qulod")
_STORE = "streams.db"

# Bytes that are copied at a time.
_PIECE = 1024 * 1024

_PRIVATE = 0o600


class Restored(NamedTuple):
    """What is there now."""

    store: Path
    kept: Path | None
    """The old one; None when there was none."""
    what: list[str]
    """Of each stream, what it has."""
    programs: Sequence[str]
    """Whose it is."""


def restore(backup: Path, program: str | None, config: str | None) -> Restored:
    """Put a copy of `backup` in the place of the store. Raises QuloError; the store is then what it was."""
    opener = _opener()
    with _opened(backup) as source:  # as whoever called: a backup may be where the daemon's user cannot read
        found = _settings(program, config)
        programs = [name for name, _ in found]
        directory = Path(found[0][1].data_dir)
        for name, settings in found:
            _refuse_running(name, settings.pid_file)
        if not directory.is_dir():
            raise FileError(f"{directory} is not there: start {programs[0]} once, stop it, and restore then")
        with _as_owner(directory):
            store = directory / _STORE
            _refuse_used(store, opener)
            copy = directory / f"{_STORE}.restoring"
            try:
                _copy(source, copy)
                what = _whole(copy, backup, opener)
                kept = _exchange(copy, store)
            finally:
                for leftover in _files(copy):
                    leftover.unlink(missing_ok=True)
    return Restored(store, kept, what, programs)


def check(directory: Path) -> dict[str, Any]:
    """The report of the store in a directory, whose daemon is stopped. Raises QuloError."""
    opener = _opener()
    for name in (_STORE, "spool.db"):
        path = directory / name
        if path.is_file():
            with _as_owner(directory):
                return _check(path, opener)
    raise UsageError(
        f"there is no store in {directory}: neither {_STORE} nor spool.db (data_dir of the daemon is meant)"
    )


def _settings(program: str | None, config: str | None) -> list[tuple[str, Settings]]:
    """Whose store it is. Both programs, when nothing says which and they share their data_dir."""
    from qulo import config as settings  # noqa: PLC0415 - YAML is loaded by what reads some only

    if program is None and config is not None and Path(config).stem in _PROGRAMS:
        program = Path(config).stem
    if program is None and config is not None:
        raise UsageError(f"whose configuration is {config}? --program qmaster or --program qulod")
    names = _PROGRAMS if program is None else (program,)
    found = [(name, settings.load(name, config, environ=os.environ, uid=os.geteuid())) for name in names]
    if len({each.data_dir for _, each in found}) > 1:
        raise UsageError(f"{' and '.join(names)} have different data_dirs: say --program")
    return found


def _refuse_running(program: str, pid_file: str) -> None:
    from qulo.daemon import pidfile  # noqa: PLC0415 - as above

    pid = pidfile.holder(pid_file)
    if pid is not None:
        who = f"PID {pid}" if pid else "in another container"
        raise FileError(f"{program} runs ({who}): end it first, with `{program} -s stop`")


def _opener() -> type[SqliteStore]:
    """What opens a store; loaded before root becomes somebody who may not be allowed to read the program's files."""
    from qulo.store.sqlite import SqliteStore  # noqa: PLC0415 - SQLite is loaded by what needs it

    return SqliteStore


def _refuse_used(store: Path, opener: type[SqliteStore]) -> None:
    """Raises FileError when somebody has the store open, with whatever PID file."""
    if not store.exists():
        return
    try:
        opener(str(store), reserve=0).close()  # its WAL is in the database then: one file
    except FileError as error:
        if "in use" in str(error):
            raise FileError(f"{error}: stop the daemon first") from None
    except StoreFailed:
        return  # broken: that may be why it is replaced


@contextlib.contextmanager
def _opened(backup: Path) -> Iterator[Any]:
    try:
        file = open(backup, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"{backup} cannot be read: {error.strerror}") from None
    with file:
        yield file


@contextlib.contextmanager
def _as_owner(directory: Path) -> Iterator[None]:
    """As root: be the directory's owner meanwhile."""
    found = directory.stat()
    if os.geteuid() != 0 or found.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _copy(source: Any, copy: Path) -> None:
    try:
        copy.unlink(missing_ok=True)
        fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        with open(fd, "wb") as target:
            shutil.copyfileobj(source, target, _PIECE)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise FileError(f"{copy} cannot be made: {error.strerror}") from None


def _whole(copy: Path, backup: Path, opener: type[SqliteStore]) -> list[str]:
    """What is in it. Raises UsageError when it is no store, or not whole."""
    if copy.stat().st_size == 0:
        raise UsageError(f"{backup} is empty: nothing was changed")
    try:
        report = _check(copy, opener)
    except QuloError as error:
        raise UsageError(f"{backup} is no backup of a store: {error}; nothing was changed") from None
    if report["problems"]:
        raise UsageError(f"{backup} is not whole: {report['problems'][0]}; nothing was changed")
    return [f"{name} up to {last}" for name, last in report["last"].items()]


def _check(path: Path, opener: type[SqliteStore]) -> dict[str, Any]:
    store = opener(str(path), reserve=0)
    try:
        # It was opened without the reserve, whose file may well be there.
        return store.check()._asdict() | {"offline": True}
    finally:
        store.close()


def _exchange(copy: Path, store: Path) -> Path | None:
    """The old one gets another name, the copy its name; the old one is not there twice, and never gone."""
    kept: Path | None = None
    try:
        if store.exists():
            kept = _free_name(store)
            for old, new in zip(_files(store), _files(kept), strict=True):
                if old.exists():
                    os.link(old, new)  # fails if there is such a file
            (store.with_name(f"{_STORE}-wal")).unlink(missing_ok=True)
        os.replace(copy, store)
        fd = os.open(store.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise FileError(f"{store} cannot be replaced: {error.strerror}") from None
    return kept


def _free_name(store: Path) -> Path:
    """What the old store is called from now on."""
    name = f"{store.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for more in ("", *(f"-{number}" for number in range(2, 100))):
        if not any(os.path.lexists(file) for file in _files(store.with_name(f"{name}{more}"))):
            return store.with_name(f"{name}{more}")
    raise FileError(f"{store.parent} is full of stores that were replaced: remove those that nobody needs")


def _files(store: Path) -> list[Path]:
    return [store, store.with_name(f"{store.name}-wal")]
