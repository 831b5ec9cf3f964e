"""A real hub, as shipped, for the tests of the clients; and the clients as processes against it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import qulo.sync
from qulo.protocol.report import LOCAL_LIST

# Not resolved: in a virtual environment python is a link to elsewhere, and the programs are beside the link.
BIN = Path(sys.executable).parent

# Every wait of these tests ends here; a shared machine may be slow, a test that hangs is worse.
PATIENCE = 10.0


def until(what: Callable[[], Any]) -> Any:
    """Ask until the answer is true, and return it; fail when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
    return answer


@dataclass(frozen=True, slots=True)
class Hub:
    """A running qulod, and the programs that are started against it."""

    place: Path
    pid: int
    addresses: dict[str, str]
    bus: qulo.sync.Bus
    """For looking at the hub from the test itself."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.addresses["local"]

    @property
    def environ(self) -> dict[str, str]:
        """What programs get: nothing of the developer's own settings."""
        return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.place), "QULO_URL": self.url}

    def run(self, *argv: str, stdin: bytes | None = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end."""
        return subprocess.run(
            argv,
            input=stdin,
            env={**self.environ, **environ},
            cwd=self.place,
            capture_output=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a program; it ends with the test at the latest."""
        process = subprocess.Popen(
            argv,
            env=self.environ,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def start_listening(self, *argv: str, to: int = 1) -> subprocess.Popen[bytes]:
        """Start a program and wait until it has that many subscriptions and responders."""
        process = self.start(*argv)
        until(lambda: self._listens(process, to))
        return process

    def _listens(self, process: subprocess.Popen[bytes], to: int) -> bool:
        assert process.poll() is None, process.communicate()
        peers = self.bus.request(LOCAL_LIST)["peers"]
        mine = [peer for peer in peers if f"-{process.pid}." in peer["name"] and peer["state"] == "up"]
        return any(peer["subscriptions"] + peer["responders"] >= to for peer in mine)


@contextlib.contextmanager
def running_qulod(place: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`qulod -f` in a directory of its own; its process, and the addresses it is bound to."""
    # A short heartbeat: what waits for the next one is not waited for long.
    values = {
        "local": f"ipc://{place}/agent.sock",
        "listen": "tcp://127.0.0.1:0",
        "publish": "tcp://127.0.0.1:0",
        "heartbeat": "200ms",
        "curve": "off",
    }
    values |= {
        "data_dir": f"{place}/data",
        "pid_file": f"{place}/qulod.pid",
        "log_file": f"{place}/qulod.log",
    }
    if os.getuid() == 0:
        values["user"] = "root"  # the default, qulo where that account exists, could not enter the place
    values |= settings
    config = place / "qulod.yaml"
    config.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    state = place / "qulod.state"
    with subprocess.Popen([BIN / "qulod", "-f", "-c", config], stderr=subprocess.PIPE) as process:
        try:
            until(lambda: state.exists() or process.poll() is not None)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield process, json.loads(state.read_text())["addresses"]
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()


@pytest.fixture
def short_place() -> Iterator[Path]:
    """A directory with a short name: the path of a socket in it has to fit into the kernel's limit."""
    path = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def session_hub() -> Iterator[Hub]:
    """One hub for all tests; ask for `hub`."""
    place = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    try:
        with (
            running_qulod(place) as (process, addresses),
            qulo.sync.connect(addresses["local"], name="tests") as bus,
        ):
            yield Hub(place, process.pid, addresses, bus)
    finally:
        shutil.rmtree(place)


@pytest.fixture
def hub(session_hub: Hub) -> Iterator[Hub]:
    """The session's hub; whatever a test started on it is gone when the test ends."""
    yield session_hub
    while session_hub.started:
        with session_hub.started.pop() as process:  # closes the pipes and waits
            process.kill()
