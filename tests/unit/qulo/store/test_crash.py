"""What was acknowledged is there: after kill -9, after a disk that fails, and while it is full."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qulo.errors import StoreFull
from qulo.protocol.spans import Span
from qulo.protocol.storage import Ack, Append, Appended, Bury, GroupAdd, Origin, StreamAdd, Trim
from qulo.store.sqlite import RESERVE, SqliteStore
from tests.unit.qulo.store.shop import put, stream

PROGRAM = Path(__file__).with_name("killed.py")
ROOT = PROGRAM.parents[4]

PATIENCE = 30

ROUNDS = 40


def storing(path: Path, seed: int, *before: str) -> subprocess.Popen[str]:
    """The program that stores, started by the words `before` it."""
    argv = [*before, sys.executable, str(PROGRAM), str(path), str(seed)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)


def holds(path: Path, promised: tuple[int, ...]) -> None:
    """All that was promised is there, nothing is half there."""
    last, floor, spooled = promised
    store = SqliteStore(str(path), reserve=0)
    try:
        assert store.check().problems == []
        (state,) = store.streams()
        (group,) = store.groups("S")
        assert state.last >= last
        assert group.floor >= floor
        assert store.marks().get("a", 0) == state.last  # of the same transaction
        have = [message.seq for message in store.fetch("S", range(state.first, state.last + 1))]
        assert have == list(range(state.first, state.last + 1))
        assert state.first <= group.floor + 1
        assert store.spool_state().next_number > spooled
        if spooled:
            assert spooled in [each.number for each in store.spool(0, 1000, 1 << 30)]
        again = Append("S", "t", 1, b"", 0, origin=Origin("a", max(state.last, 1)))
        assert store.commit([again]) == [Appended(0, True)] or not state.last
    finally:
        store.close()


def numbers(lines: list[str]) -> tuple[int, ...]:
    """What the last whole line promised."""
    whole = [line for line in lines if line.endswith("\n") and line[0].isdigit()]
    return tuple(map(int, whole[-1].split())) if whole else (0, 0, 0)


@pytest.mark.slow
def test_what_was_acked_survives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "store.db"
    acked = 0
    for round_ in range(ROUNDS):
        with storing(path, round_) as process:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(chance.randint(1, 40))]
            process.kill()
            lines += process.stdout.readlines()
        holds(path, numbers(lines))
        acked += len(lines)
    assert acked > 10 * ROUNDS


def strace() -> str:
    """The program, or why there is no test."""
    found = shutil.which("strace")
    if not found:
        pytest.skip("strace is not installed: no faults can be injected")
    if subprocess.run([found, "-qq", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here: no faults can be injected")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("after", [20, 41, 80])
@pytest.mark.parametrize(("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO")])
def test_a_disk_that_fails_ends_the_store_and_loses_nothing(tmp_path: Path, call: str, error: str, after: int) -> None:
    path = tmp_path / "store.db"
    when = after if call == "fdatasync" else after * 25
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}+"]
    argv = [strace(), "-f", "-qq", "-o", str(tmp_path / "trace"), *inject]
    with storing(path, after, *argv) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    lines = output.splitlines(keepends=True)
    assert lines[-1] == "failed\n"
    assert "not refused" not in output
    assert len(lines) >= 2
    holds(path, numbers(lines))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 128 MB."""
    if os.getuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(place)]
    mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"root may not mount here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all that is free on the disk of a file."""
    with path.open("ab", buffering=0) as file:
        for step in (1 << 20, 4096, 1):
            try:
                while file.write(b"x" * step) == step:
                    pass
            except OSError:
                continue


@pytest.mark.slow
def test_on_a_full_disk_producers_are_refused_and_acks_work(small_disk: Path) -> None:
    path, others = small_disk / "store.db", small_disk / "others"
    store = SqliteStore(str(path))
    assert store.check().reserve == RESERVE
    store.commit([StreamAdd(stream(keep="work")), GroupAdd("S", "g")])
    stored = 0
    while all(isinstance(result, Appended) for result in store.commit([put("x" * 500) for _ in range(100)])):
        stored += 100
    last = store.streams()[0].last
    assert stored > 20_000
    assert store.check().reserve == RESERVE
    fill(others)
    acked = 0
    for round_ in range(2):
        # One by one: several times as much as the WAL takes goes through it.
        for _ in range(5000):
            acked += 1
            refused, floor, removed = store.commit([put("y"), Ack("S", "g", (Span(1, acked),)), Trim(0)])
            assert isinstance(refused, StoreFull)
            assert floor == acked
            assert removed == (1, False)
        acked += 1
        letter, _ = store.commit([Bury("S", "g", acked, "bad", 1, 0), Trim(0)])
        assert letter == round_ + 1
        store.close()
        store = SqliteStore(str(path))  # opens on the full disk as well
    report = store.check()
    assert (report.problems, report.reserve) == ([], 0)
    assert store.streams()[0][1:4] == (acked + 1, last, last - acked)
    others.unlink()
    assert store.commit([put("z")]) == [Appended(last + 1)]
    assert store.check().reserve == RESERVE
    store.close()
