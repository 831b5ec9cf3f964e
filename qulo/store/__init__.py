"""Where streams and spools are kept: `sqlite` on disk, `memory` for tests and for what may be lost.

    sqlite.py    SqliteStore, the whole of it as `protocol.storage.Store` says; the only module that catches its errors
    database.py  the one connection: opening, locking, schema and migration, queries by name
    books.py     what is kept in memory beside the database: streams, groups, marks, counts
    writing.py   one function for each operation
    trimming.py  what is not to be kept goes, in bounded steps
    reading.py   everything that only looks
    space.py     the quota, the disk, and the reserve file
    upkeep.py    check and backup
    memory.py    MemoryStore, the verified fake

SQL is in `queries.sql`, the tables in `schema.sql`, the way there from older versions in `schema/`.
Nothing here knows of messaging, asks a clock or makes a thread: whoever makes a store uses it in that thread.
"""

from __future__ import annotations

from pathlib import Path

from qulo.config import Settings
from qulo.errors import FileError
from qulo.store.sqlite import SqliteStore

# In data_dir, by program: an agent has only its spool.
FILES = {"qmaster": "streams.db", "qulod": "streams.db", "qagent": "spool.db"}


def open_store(settings: Settings) -> SqliteStore:
    """The store of a daemon; its data_dir is made if it is not there. Raises FileError or StoreFailed."""
    directory = Path(settings.data_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make {directory}: {error.strerror}") from None
    return SqliteStore(str(directory / FILES[settings.program]), max_store=settings.max_store)
