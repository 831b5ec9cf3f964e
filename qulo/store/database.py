"""The one connection to the database file: opening, locking, schema and migration, queries by name.

SQLite's locks are POSIX locks: they go when any descriptor of the file is closed. So nothing else in the process may
open the database, its -wal or its -journal, ever; other processes cannot while this one has it
(locking_mode=EXCLUSIVE, which also needs no shared memory). One connection that writes and checkpoints: SQLite 3.7.0
to 3.51.2 can corrupt a WAL with two.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from qulo.errors import FileError

VERSION = 1
"""Of the tables: what schema.sql makes. A higher one needs its step in schema/."""

APPLICATION = 0x71756C6F  # "qulo": somebody else's database is not taken for an empty one of ours

# Pages of 4 KiB in the WAL at which a commit copies them into the database. The WAL is then used again from its
# beginning: it stays near 16 MB. Fewer cost speed (each page is written once per checkpoint), more cost time after a
# crash.
_CHECKPOINT = 4000

_CACHE_KIB = 32 * 1024  # the B-trees' inner pages of tens of millions of messages, and the pages being written

# A WAL that one huge batch has blown up is cut back to this.
_WAL_KEPT = 64 * 1024 * 1024

_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "synchronous = FULL",  # a commit is on disk when it returns
    f"wal_autocheckpoint = {_CHECKPOINT}",
    f"journal_size_limit = {_WAL_KEPT}",
    f"cache_size = -{_CACHE_KIB}",
    "secure_delete = OFF",  # Debian's default overwrites what is deleted: twice the pages written
    "temp_store = MEMORY",  # acks need no space for temporary files
    "trusted_schema = OFF",
)

# Statements kept compiled: more than there are queries.
_STATEMENTS = 256

_PRIVATE = 0o600


def load_queries(text: str) -> dict[str, str]:
    """The queries of a file by their names; a name that comes twice is a mistake."""
    found: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if not line.startswith("--")]
        if name in found:
            raise ValueError(f"two queries are named {name}")
        found[name] = "\n".join(lines).strip()
    return found


def _text(name: str) -> str:
    return resources.files("qulo.store").joinpath(name).read_text(encoding="utf-8")


def released_steps() -> dict[int, str]:
    """The migration's steps by the version they lead to."""
    files = resources.files("qulo.store").joinpath("schema").iterdir()
    return {int(file.name.removesuffix(".sql")): file.read_text(encoding="utf-8") for file in files}


QUERIES = load_queries(_text("queries.sql"))


class Database:
    """A connection that has the file for itself. Every method may raise sqlite3.Error."""

    def __init__(self, path: str) -> None:
        """Open or make the file. Raises FileError: in use, not ours, of a newer version."""
        self.path = path
        with contextlib.suppress(FileExistsError):  # never open one that exists: see above
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
        self.connection = sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=_STATEMENTS)
        try:
            self._take()
            self._settle(VERSION, _text("schema.sql"), released_steps())
        except BaseException:
            self.connection.close()
            raise

    def _take(self) -> None:
        """The settings, and the lock that nobody else gets while we live."""
        try:
            for pragma in _PRAGMAS:
                self.connection.execute(f"PRAGMA {pragma}")
            application = self._number("application_id")
            if (
                application != APPLICATION
                and self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            ):
                raise FileError(f"{self.path} is a database of another program")
            (mode,) = self.connection.execute("PRAGMA journal_mode = WAL").fetchone()
            self.connection.execute("BEGIN EXCLUSIVE")
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            raise FileError(f"{self.path} is in use by another process") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            raise FileError(f"{self.path} is not a database") from error
        if mode != "wal":
            raise FileError(f"{self.path} cannot have a write-ahead log: {mode}")

    def _settle(self, version: int, schema: str, steps: Mapping[int, str]) -> None:
        """Bring the tables to `version`, each step in a transaction of its own."""
        have = self._number("user_version")
        if have > version:
            raise FileError(f"{self.path} is of version {have}, this qulo knows {version}: install a newer one")
        if have == 0:
            self._script(schema, version)
            return
        for step in range(have + 1, version + 1):
            self._script(steps[step], step)

    def _script(self, sql: str, version: int) -> None:
        try:
            self.connection.executescript(
                f"BEGIN;\n{sql}\nPRAGMA application_id = {APPLICATION};\nPRAGMA user_version = {version};\nCOMMIT;"
            )
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def _number(self, pragma: str) -> int:
        (value,) = self.connection.execute(f"PRAGMA {pragma}").fetchone()
        return int(value)

    @property
    def version(self) -> int:
        """Of the tables."""
        return self._number("user_version")

    def begin(self) -> None:
        """Begin a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """On disk when it returns."""
        self.connection.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> sqlite3.Cursor:
        """The rows of a query, read as they are asked for."""
        return self.connection.execute(QUERIES[query], values)

    def row(self, query: str, *values: Any) -> Any:
        """The first row, or None."""
        return self.connection.execute(QUERIES[query], values).fetchone()

    def run(self, query: str, *values: Any) -> sqlite3.Cursor:
        """Change something; its `rowcount` and `lastrowid` say what."""
        return self.connection.execute(QUERIES[query], values)

    def many(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Change many things of a kind."""
        self.connection.executemany(QUERIES[query], rows)

    def used(self) -> int:
        """Bytes of pages in use, those of the open transaction too."""
        (pages,), (free,), (page,) = (self.row(name) for name in ("pages", "free_pages", "page_size"))
        return int((pages - free) * page)

    def growth(self) -> int:
        """Bytes that the files may grow by with nothing appended: what only the WAL has, and the WAL itself."""
        (pages,), (page,) = self.row("pages"), self.row("page_size")
        wal = f"{self.path}-wal"
        has = os.stat(wal).st_size if os.path.exists(wal) else 0
        return int(max(0, pages * page - os.stat(self.path).st_size) + max(0, _CHECKPOINT * page - has))

    def close(self) -> None:
        """Copy the WAL into the database and give the lock up."""
        self.connection.close()
