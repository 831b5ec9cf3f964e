"""The lock of the PID file: what it survives, and what the kernel does not forgive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qulo.daemon import pidfile
from qulo.errors import EndpointError, FileError
from tests.unit.qulo.daemon.conftest import ROOT, python, until

HOLD = """
import sys
from qulo.daemon.pidfile import PidFile
PidFile.lock(sys.argv[1])
exec(sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with holder_of(place / "a.pid") as process:
        yield process
        process.kill()


def holder_of(path: Path, then: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), then],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_lock_says_who_runs_and_ends_with_the_process(place: Path, hold: subprocess.Popen[str]) -> None:
    path = str(place / "a.pid")
    assert pidfile.holder(path) == hold.pid
    with pytest.raises(EndpointError, match=rf"already running: PID {hold.pid} holds the lock of {path}"):
        pidfile.PidFile.lock(path)
    assert (place / "a.pid").read_text() == f"{hold.pid}\n"  # the attempt did not touch it
    hold.send_signal(signal.SIGKILL)
    until(lambda: pidfile.holder(path) is None)
    assert (place / "a.pid").exists()


def test_the_number_in_the_file_is_not_what_counts(place: Path, hold: subprocess.Popen[str]) -> None:
    (place / "a.pid").write_text("1\n")
    assert pidfile.holder(str(place / "a.pid")) == hold.pid


def test_nobody_holds_a_file_that_is_not_there_or_not_locked(place: Path) -> None:
    assert pidfile.holder(str(place / "none.pid")) is None
    (place / "a.pid").write_text(f"{os.getpid()}\n")
    assert pidfile.holder(str(place / "a.pid")) is None


def test_asking_takes_nothing(place: Path, hold: subprocess.Popen[str]) -> None:
    for _ in range(3):
        assert pidfile.holder(str(place / "a.pid")) == hold.pid


def test_the_lock_does_not_pass_to_a_child(place: Path) -> None:
    # The child keeps the descriptor and outlives its parent until its end of the pipe is closed.
    with holder_of(
        place / "a.pid", "import os; child = os.fork(); child or (sys.stdin.read(), os._exit(0))"
    ) as process:
        process.kill()
        until(lambda: pidfile.holder(str(place / "a.pid")) is None)


def test_opening_and_closing_it_again_in_the_daemon_gives_the_lock_up(place: Path) -> None:
    # POSIX, and the reason for the rule in the module's docstring.
    with holder_of(place / "a.pid", "open(sys.argv[1]).close()") as process:
        assert pidfile.holder(str(place / "a.pid")) is None
        process.kill()


def test_a_shorter_pid_leaves_nothing_of_the_old_one(place: Path) -> None:
    (place / "a.pid").write_text("99999999999999\n")
    code = "import sys; from qulo.daemon.pidfile import *; PidFile.lock(sys.argv[1]); print(os.getpid())"
    done = python(code, str(place / "a.pid"))
    assert (place / "a.pid").read_text() == done.stdout


def test_a_file_that_cannot_be_made_or_is_a_link_is_refused(place: Path) -> None:
    with pytest.raises(FileError, match="cannot be made: No such file or directory"):
        pidfile.PidFile.lock(str(place / "none" / "a.pid"))
    (place / "target").write_text("precious")
    (place / "link.pid").symlink_to(place / "target")
    with pytest.raises(FileError, match="cannot be made"):
        pidfile.PidFile.lock(str(place / "link.pid"))
    (place / "target").chmod(0o600)
    os.link(place / "target", place / "hard.pid")
    os.mkfifo(place / "fifo.pid")
    for name in ("hard", "fifo"):
        with pytest.raises(FileError, match="is not a file with one name"):
            pidfile.PidFile.lock(str(place / f"{name}.pid"))
    assert (place / "target").read_text() == "precious"
    assert (place / "target").stat().st_mode & 0o777 == 0o600
