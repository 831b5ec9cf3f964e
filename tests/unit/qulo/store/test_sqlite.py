"""What only a store on disk has: a file with one owner and a version, migration, check and backup."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qulo.errors import FileError, StoreFailed
from qulo.protocol.storage import Ack, Append, Appended, GroupAdd, Numbers, StreamAdd
from qulo.store import database
from qulo.store.database import Database, load_queries, released_steps
from qulo.store.sqlite import SqliteStore
from tests.unit.qulo.store.shop import PLENTY, put, span, stream

ROOT = Path(__file__).parents[4]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the store is, or is to be."""
    return str(tmp_path / "store.db")


def filled(path: str, messages: int = 3) -> SqliteStore:
    """A store with messages and a group."""
    store = SqliteStore(path, reserve=0)
    store.commit([StreamAdd(stream()), GroupAdd("S", "g"), *[put(f"{i}") for i in range(messages)]])
    return store


def tables(path: str) -> list[tuple[str, str]]:
    """The schema as the file has it."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        return [(name, " ".join(sql.split())) for name, sql in rows]
    finally:
        connection.close()


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_its_owners(path: str) -> None:
    store = filled(path)
    for file in Path(path).parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_a_store_that_another_process_has_is_refused(path: str) -> None:
    store = filled(path)
    code = f"from qulo.store.sqlite import SqliteStore; SqliteStore({path!r}, reserve=0)"
    argv = [sys.executable, "-c", code]
    for _ in range(2):  # also after the first has looked at it and ended
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "FileError" in done.stderr
        assert "in use by another process" in done.stderr
    assert store.commit([put()]) == [Appended(4)]
    store.close()
    assert subprocess.run(argv, cwd=ROOT, timeout=30, check=False).returncode == 0


def test_a_store_is_opened_once_in_a_process_too(path: str) -> None:
    store = filled(path)
    with pytest.raises(FileError, match="in use"):
        SqliteStore(path, reserve=0)
    assert store.commit([put()]) == [Appended(4)]
    store.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one" * 100])
def test_what_is_no_database_is_left_alone(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(FileError, match="not a database"):
        SqliteStore(path, reserve=0)
    assert Path(path).read_bytes() == content


def test_a_database_of_another_program_is_left_alone(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = Path(path).read_bytes()
    with pytest.raises(FileError, match="another program"):
        SqliteStore(path, reserve=0)
    assert Path(path).read_bytes() == before


def test_a_place_that_is_none_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        SqliteStore(str(tmp_path / "missing" / "store.db"))


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_store_of_a_newer_version_is_refused_and_left_alone(path: str) -> None:
    filled(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    connection.close()
    with pytest.raises(FileError, match="install a newer one"):
        SqliteStore(path, reserve=0)
    assert tables(path)


def test_the_steps_lead_to_the_tables_of_a_new_database(tmp_path: Path) -> None:
    steps = released_steps()
    assert sorted(steps) == list(range(1, database.VERSION + 1))
    connection = sqlite3.connect(tmp_path / "stepped.db")
    for version in sorted(steps):
        connection.executescript(steps[version])
    connection.close()
    filled(str(tmp_path / "new.db")).close()
    assert tables(str(tmp_path / "stepped.db")) == tables(str(tmp_path / "new.db"))


STEP = "ALTER TABLE dead ADD COLUMN colour TEXT; UPDATE stream SET definition = definition;"


def test_an_older_store_is_migrated_with_everything_in_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path).close()
    steps = released_steps() | {database.VERSION + 1: STEP}
    monkeypatch.setattr(database, "released_steps", lambda: steps)
    monkeypatch.setattr(database, "VERSION", database.VERSION + 1)
    store = SqliteStore(path, reserve=0)
    assert store.check().schema == database.VERSION
    assert [message.body for message in store.fetch("S", (1, 2, 3))] == [b"0", b"1", b"2"]
    assert store.commit([put()]) == [Appended(4)]
    store.close()
    assert "colour" in dict(tables(path))["dead"]


def test_a_step_that_fails_changes_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path).close()
    before = tables(path)
    steps = released_steps() | {database.VERSION + 1: f"{STEP} DROP TABLE nothing;"}
    monkeypatch.setattr(database, "released_steps", lambda: steps)
    monkeypatch.setattr(database, "VERSION", database.VERSION + 1)
    with pytest.raises(StoreFailed, match="nothing"):
        SqliteStore(path, reserve=0)
    monkeypatch.undo()
    assert tables(path) == before
    SqliteStore(path, reserve=0).close()


def test_queries_have_one_name_each() -> None:
    assert load_queries("-- name: a\n-- why\nSELECT 1;\n\n-- name: b\nSELECT\n2;") == {
        "a": "SELECT 1;",
        "b": "SELECT\n2;",
    }
    with pytest.raises(ValueError, match="named a"):
        load_queries("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;")


def test_every_query_is_used_and_is_valid(path: str) -> None:
    source = "".join(file.read_text() for file in Path(database.__file__).parent.glob("*.py"))
    db = Database(path)
    for name, sql in database.QUERIES.items():
        assert f'"{name}"' in source
        db.connection.execute(f"EXPLAIN {sql}", _values(sql)).close()
    db.close()


def _values(sql: str) -> list[int]:
    """One for each place, which may have a number and come again."""
    numbered = [int(number) for number in re.findall(r"\?(\d)", sql)]
    return [1] * (max(numbered) if numbered else sql.count("?"))


@pytest.mark.parametrize(
    "name", ["expired", "delayed", "oldest_ranked", "empty_topics", "read", "dead_counts", "last_ranked"]
)
def test_queries_use_the_index_that_is_there_for_them(path: str, name: str) -> None:
    db = Database(path)
    sql = database.QUERIES[name]
    plan = [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {sql}", _values(sql))]
    db.close()
    assert any("INDEX" in step or "PRIMARY KEY" in step for step in plan), plan
    assert not [step for step in plan if "TEMP B-TREE" in step]
    assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]


@pytest.mark.parametrize("name", [name for name, sql in database.QUERIES.items() if sql.startswith(("DELETE", "--"))])
def test_what_is_deleted_is_found_by_its_whole_key_and_not_by_looking_at_all_of_a_stream(path: str, name: str) -> None:
    """`(stream, id) IN (SELECT …)` was planned as a walk over every id of the stream, for each step of a trimming."""
    db = Database(path)
    sql = database.QUERIES[name]
    first = next(row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {sql}", _values(sql)))
    (table,) = re.findall(r"DELETE FROM (\w+)", sql)
    key = [row[1] for row in db.connection.execute(f"PRAGMA table_info({table})") if row[5]]
    db.close()
    assert " PRIMARY KEY (" in first
    assert "rowid" in first or all(f"{column}=?" in first or f"{column}>?" in first for column in key), first


# -- failing ----------------------------------------------------------------------------------------------------------


def test_after_a_failure_everything_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(path)

    def fail(_db: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Database, "commit", fail)
    with pytest.raises(StoreFailed, match="disk I/O error"):
        store.commit([put()])
    monkeypatch.undo()
    for call in (
        lambda: store.commit([]),
        store.streams,
        store.check,
        store.marks,
        lambda: store.backup(path + ".copy"),
    ):
        with pytest.raises(StoreFailed, match="disk I/O error"):
            call()
    store.close()
    again = SqliteStore(path, reserve=0)
    assert again.streams()[0].last in (3, 4)
    again.close()


def test_a_mistake_of_the_caller_is_not_half_done(path: str) -> None:
    store = filled(path)
    with pytest.raises(OverflowError):
        store.commit([put(), put(at=1 << 64)])
    for call in (lambda: store.commit([put()]), store.streams):  # the books are ahead of the database
        with pytest.raises(StoreFailed, match="OverflowError"):
            call()
    store.close()
    again = SqliteStore(path, reserve=0)
    assert again.streams()[0].last == 3
    again.close()


# -- check and backup -------------------------------------------------------------------------------------------------


def test_a_check_finds_counts_that_are_wrong(path: str) -> None:
    filled(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE topic SET messages = 9")
    connection.execute("INSERT INTO message VALUES (1000 << 48, 77, 1, 0, NULL, NULL, NULL, NULL, x'')")
    connection.commit()
    connection.close()
    store = SqliteStore(path, reserve=0)
    problems = " ".join(store.check().problems)
    assert "counted 9" in problems
    assert "1 messages have lost their topic" in problems
    store.close()


def test_a_report_has_sizes_and_versions(path: str) -> None:
    store = SqliteStore(path, max_store=10_000_000, reserve=1_000_000)
    report = store.check()
    assert (report.problems, report.schema, report.max_store, report.reserve) == ([], database.VERSION, 10**7, 10**6)
    assert report.engine == f"SQLite {sqlite3.sqlite_version}"
    assert report.free > 0
    assert 0 < report.used < report.on_disk
    store.close()


def test_a_backup_is_made_while_the_store_works(path: str, tmp_path: Path) -> None:
    store = filled(path, 5000)
    store.commit([Numbers(7), Ack("S", "g", (span(1, 9),))])
    steps = []

    def between() -> None:
        steps.append(store.commit([put("during" * 100, at=i) for i in range(100)]))

    copy = str(tmp_path / "copy.db")
    big = b"x" * 3_000_000
    store.commit([Append("S", "t.big", 1, big, 0)])
    store.backup(copy, between)
    assert len(steps) >= 2
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "store.db", "store.db-wal"]
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600
    restored = SqliteStore(copy, reserve=0)
    assert restored.check().problems == []
    last = restored.streams()[0].last
    assert 5001 <= last <= store.streams()[0].last
    assert restored.groups("S") == store.groups("S")
    assert restored.read("S", 0, 6000, PLENTY, 0).messages[:5001] == store.read("S", 0, 5001, PLENTY, 0).messages
    # Its numbers may have been used since, under the old name.
    assert restored.spool_state().agent != store.spool_state().agent
    assert restored.commit([put()]) == [Appended(last + 1)]
    agent = restored.spool_state().agent
    restored.close()
    again = SqliteStore(copy, reserve=0)
    assert again.spool_state().agent == agent
    again.close()
    store.close()


def test_a_backup_overwrites_nothing_and_a_failing_one_harms_nobody(path: str, tmp_path: Path) -> None:
    store = filled(path)
    taken = tmp_path / "taken"
    taken.write_text("precious")
    for place in (taken, tmp_path / "missing" / "copy"):
        with pytest.raises(FileError):
            store.backup(str(place))
    assert taken.read_text() == "precious"
    assert store.commit([put()]) == [Appended(4)]
    store.close()
