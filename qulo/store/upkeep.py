"""Looking after a store: is it whole, how large is it, and a copy of it while it works.

Files of the database are only measured here, never opened: closing one would give SQLite's locks up.

To restore a backup: stop the daemon, remove the database with its -wal, put the copy in its place, start. What was
stored after the backup is gone; a store opened from a copy is another agent to its master, because its spool numbers
may have been used since.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable

from qulo.errors import FileError
from qulo.protocol.storage import Report
from qulo.store.books import SHIFT, Books
from qulo.store.database import QUERIES, Database
from qulo.store.space import Space

# Pages copied between two looks at what else there is to do: 2 MB, a few milliseconds.
_STEP = 500

_PRIVATE = 0o600


def check(db: Database, books: Books, space: Space) -> Report:
    """Read everything, compare what is counted with what is there."""
    problems = [text for (text,) in db.rows("integrity") if text != "ok"]
    for name, book in sorted(books.streams.items()):
        messages, key, size = db.row("recount", *book.range)
        if (messages, size) != (book.messages, book.bytes):
            problems.append(f"{name} has {messages} messages, {size} bytes; counted {book.messages}, {book.bytes}")
        if key is not None and key - book.base > book.last:
            problems.append(f"{name} has the number {key & (1 << SHIFT) - 1}, above its last, {book.last}")
    (lost,) = db.row("topicless")
    if lost:
        problems.append(f"{lost} messages have lost their topic")
    return Report(
        problems=problems,
        schema=db.version,
        engine=f"SQLite {sqlite3.sqlite_version}",
        used=db.used(),
        on_disk=_on_disk(db.path, space.path),
        max_store=space.max_store,
        free=space.free,
        reserve=space.size if space.held else 0,
        last={name: book.last for name, book in sorted(books.streams.items())},
    )


def _on_disk(path: str, reserve: str) -> int:
    total = 0
    for file in (path, f"{path}-wal", reserve):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(file).st_size
    return total


def backup(db: Database, path: str, between: Callable[[], object]) -> None:
    """A copy under a new name, whole or not there. What `between` commits is in the copy too."""
    part = f"{path}.part"
    try:
        if os.path.exists(path):
            raise FileError(f"{path} is there already")
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE))
        _copy(db, part, between)
        _sync(part)
        os.rename(part, path)
        _sync(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise FileError(f"{path} cannot be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def _copy(db: Database, part: str, between: Callable[[], object]) -> None:
    target = sqlite3.connect(part, isolation_level=None)
    try:
        db.connection.backup(target, pages=_STEP, progress=lambda *_: between(), sleep=0)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        target.execute(QUERIES["set_meta"], ("backup", 1))
    except sqlite3.Error as error:
        raise FileError(f"{part} cannot be written: {error}") from error
    finally:
        target.close()


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
