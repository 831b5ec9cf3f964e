"""The store on disk. `commit` is one transaction and on disk when it returns, or the store has failed for good.

After any error of SQLite or of the operating system nothing is known: under a failing fsync a commit that reported an
error was there after a restart. So the first error is the last: everything is refused from then on, and whoever uses
the store stops acknowledging and starts anew.

One store of a file in a process, one thread, no clock; see `database` for the locks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from qulo.errors import FileError, StoreFailed
from qulo.protocol.storage import (
    DeadLetter,
    Delayed,
    GroupState,
    Operation,
    Read,
    Report,
    Result,
    Retried,
    Spool,
    SpoolState,
    Stored,
    StreamState,
    TopicState,
)
from qulo.store import upkeep
from qulo.store.books import Books
from qulo.store.database import Database
from qulo.store.reading import Reader
from qulo.store.space import Space
from qulo.store.writing import Writer

RESERVE = 32 * 1024 * 1024
"""Twice what the WAL takes: acks on a full disk need it to grow once, and a few pages of the database."""

_AGENT_BYTES = 8  # random; enough that two agents of a site never meet


class SqliteStore:
    """Implements `protocol.storage.Store`."""

    def __init__(self, path: str, *, max_store: int = 0, reserve: int = RESERVE) -> None:
        """Open or make the store; `max_store` bytes are its quota, 0 is none.

        Raises FileError when another process has it, it is of a newer version, or there can be no such file;
        StoreFailed when it is broken.
        """
        self.path = path
        self._failure = ""
        try:
            self._space = Space(path, reserve, max_store)  # first: on a full disk it makes room for opening
            self._db = Database(path)
            self._books = Books(self._db)
            self._settle()
        except OSError as error:
            raise FileError(f"{path} cannot be opened: {error.strerror}") from error
        except sqlite3.Error as error:
            raise StoreFailed(f"{path} cannot be opened: {error}") from error
        self._writer = Writer(self._db, self._books, self._space)
        self._reader = Reader(self._db, self._books)

    def _settle(self) -> None:
        """The single values of a new store, or of one that was a copy."""
        values = (
            dict.fromkeys(("spool_last", "spool_messages", "spool_bytes"), 0) | {"next_number": 1} | self._books.meta
        )
        if values.pop("backup", None) or "agent" not in values:
            values["agent"] = os.urandom(_AGENT_BYTES).hex()
        if values != self._books.meta:
            self._db.begin()
            self._db.many("set_meta", values.items())
            self._db.run("forget_meta", "backup")
            self._db.commit()
            self._books.meta = values

    @contextlib.contextmanager
    def _last_error(self) -> Iterator[None]:
        """The first error is the last."""
        if self._failure:
            raise StoreFailed(self._failure)
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._failure = f"{self.path}: {error}"
            raise StoreFailed(self._failure) from error

    def commit(self, operations: Sequence[Operation]) -> list[Result]:
        """One transaction."""
        with self._last_error():
            try:
                self._db.begin()
                results = self._writer.carry_out(operations)
                self._db.commit()
            except BaseException as error:
                # The books are ahead of the database now, also after a mistake of the caller's or an interrupt.
                self._failure = f"{self.path}: {error!r} in a commit"
                raise
        return results

    def streams(self) -> list[StreamState]:
        """All streams."""
        with self._last_error():
            return self._reader.streams()

    def topics(self, stream: str, pattern: str = ">", after: str = "", limit: int = 1000) -> list[TopicState]:
        """Topics that have messages."""
        with self._last_error():
            return self._reader.topics(stream, pattern, after, limit)

    def read(self, stream: str, after: int, count: int, size: int, now_ms: int) -> Read:
        """What comes after a number."""
        with self._last_error():
            return self._reader.read(stream, after, count, size, now_ms)

    def fetch(self, stream: str, seqs: Sequence[int]) -> list[Stored]:
        """Single messages."""
        with self._last_error():
            return self._reader.fetch(stream, seqs)

    def at(self, stream: str, time_ms: int) -> int:
        """The first number at a time."""
        with self._last_error():
            return self._reader.at(stream, time_ms)

    def last(self, stream: str, pattern: str, after: str = "", limit: int = 1000) -> list[Stored]:
        """The last message of each topic."""
        with self._last_error():
            return self._reader.last(stream, pattern, after, limit)

    def delayed(self, stream: str, now_ms: int, limit: int = 1000) -> list[Delayed]:
        """What may not be delivered yet."""
        with self._last_error():
            return self._reader.delayed(stream, now_ms, limit)

    def groups(self, stream: str) -> list[GroupState]:
        """The groups of a stream."""
        with self._last_error():
            return self._reader.groups(stream)

    def retries(self, stream: str, group: str, after: int = 0, limit: int = 1000) -> list[Retried]:
        """Messages with tries."""
        with self._last_error():
            return self._reader.retries(stream, group, after, limit)

    def dead(self, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Dead letters."""
        with self._last_error():
            return self._reader.dead(after, limit)

    def dead_counts(self) -> dict[tuple[str, str], int]:
        """How many there are."""
        with self._last_error():
            return self._reader.dead_counts()

    def letter(self, number: int) -> tuple[DeadLetter, Stored] | None:
        """One with its message."""
        with self._last_error():
            return self._reader.letter(number)

    def marks(self) -> dict[str, int]:
        """The highest number of each agent."""
        with self._last_error():
            return self._reader.marks()

    def spool(self, after: int, count: int, size: int) -> list[Spool]:
        """The spool's puts."""
        with self._last_error():
            return self._reader.spool(after, count, size)

    def spool_state(self) -> SpoolState:
        """What waits in the spool."""
        with self._last_error():
            return self._reader.spool_state()

    def check(self) -> Report:
        """Is it whole?"""
        with self._last_error():
            return upkeep.check(self._db, self._books, self._space)

    def backup(self, path: str, between: Callable[[], object] = lambda: None) -> None:
        """A copy, while it works. The copy failing does not make this store fail."""
        with self._last_error():
            upkeep.backup(self._db, path, between)

    def close(self) -> None:
        """Give the file up; a store that has failed may not manage to tidy it, the next opening does."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._failure = self._failure or f"{self.path} is closed"
