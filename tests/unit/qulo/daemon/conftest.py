"""A place for one daemon, and the daemon itself as a real process; nothing of it is left when a test ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qulo.daemon import pidfile

ROOT = Path(__file__).parents[4]


def until(what: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Ask until the answer is true, and return it; fail at the deadline."""
    deadline = time.monotonic() + timeout
    while not (answer := what()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
    return answer


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, for what must not happen to the one that runs the tests."""
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )


@dataclass(slots=True)
class Toy:
    """The test daemon, in a directory of its own."""

    place: Path
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def pid_file(self) -> Path:
        return self.place / "run" / "toy.pid"

    @property
    def state_file(self) -> Path:
        return self.place / "run" / "toy.state"

    @property
    def log_file(self) -> Path:
        return self.place / "log" / "toy.log"

    @property
    def config(self) -> Path:
        return self.place / "toy.yaml"

    def configure(self, more: str = "") -> None:
        """Write the configuration."""
        if os.getuid() == 0 and "user:" not in more:
            more += "user: root\n"  # the default, qulo where that account exists, could not enter the place
        self.config.write_text(
            f"local: ipc://{self.place}/run/toy.sock\ndata_dir: {self.place}/data\n"
            f"pid_file: {self.pid_file}\nlog_file: {self.log_file}\n{more}"
        )

    def start(self, *args: str, toy: str = "") -> subprocess.Popen[str]:
        """Start the program without waiting for it."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.place), "TOY": toy}
        environ |= {"TOY_TRACE": f"{self.place}/trace", "TOY_SYSLOG": f"{self.place}/dev-log"} | self.environ
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.qulo.daemon.toy", "-c", str(self.config), *args],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *args: str, toy: str = "") -> tuple[int, str, str]:
        """Run the program: its exit code, stdout and stderr."""
        process = self.start(*args, toy=toy)
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err

    def pid(self) -> int | None:
        """Who holds the lock."""
        return pidfile.holder(str(self.pid_file))

    def kill(self, number: signal.Signals) -> None:
        """Signal the daemon."""
        pid = self.pid()
        assert pid, "no daemon to signal"
        os.kill(pid, number)

    def log(self) -> str:
        """The log so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def events(self) -> list[tuple[str, str | None, list[str]]]:
        """What `serve` saw so far; the first is its start."""
        trace = self.place / "trace"
        return [tuple(json.loads(line)) for line in trace.read_text().splitlines()] if trace.exists() else []

    def kinds(self) -> list[str]:
        """The kinds of events that `serve` saw."""
        return [kind for kind, _level, _changes in self.events()[1:]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name: the path of a socket in it has to fit into the kernel's limit."""
    path = Path(tempfile.mkdtemp(prefix="qulo-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def toy(place: Path) -> Iterator[Toy]:
    toy = Toy(place)
    toy.configure()
    yield toy
    for process in toy.started:
        with process:  # closes the pipes and waits
            process.kill()
    if pid := toy.pid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: toy.pid() is None)
