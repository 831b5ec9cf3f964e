"""The hosts as directories of this machine: no root, no container, and nothing left behind.

Every host has a directory under one short temporary one and a loopback address of its own; what runs "on" it sees
only what it is given here. Whatever would need a network of its own raises `Cannot`. It must never end a process
that it did not start: daemons are found by the lock of their own PID files.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, Signals
from typing import IO, NoReturn

from qulo.daemon import pidfile
from qulo.net import curve
from tests.functional.cluster import AGENTS, CLIENT, HOSTS, MASTER, PROGRAM, TIMES, Cannot, Cluster, Done, Running
from tests.functional.waiting import PATIENCE, until

# Not resolved: in a virtual environment python is a link to elsewhere, and the programs are beside the link.
BIN = Path(sys.executable).parent

EXAMPLES = Path(__file__).parents[2] / "examples"

# The defaults: every host has an address of its own, and so all ports there are.
LISTEN, PUBLISH = 7370, 7371

# A command that takes longer hangs; the longest that a test asks for is a daemon's drain, of 10 s at most.
_COMMAND = 30.0


@contextlib.contextmanager
def open() -> Iterator[Cluster]:  # noqa: A001 - each environment has an `open`
    """The five hosts, not yet configured: `reset` does that. In the end nothing of them is left."""
    # A short name: the path of a socket has about a hundred characters at most.
    place = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    cluster = HostCluster(place)
    try:
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(place)


class Program:
    """A program that runs beside the test: implements `cluster.Running`."""

    def __init__(self, argv: tuple[str, ...], environ: dict[str, str], place: Path) -> None:
        self.argv = argv
        self._out: list[str] = []
        self._err: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # In a session of its own: a Ctrl-C at the terminal ends the test, and that ends it.
        self._process = subprocess.Popen(
            argv,
            env=environ,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # Both pipes are read all the time: a program must never wait for a test that is busy elsewhere.
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._out, self._lines), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self._err, None), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: IO[str], into: list[str], lines: queue.SimpleQueue[str | None] | None) -> None:
        with pipe:
            for line in pipe:
                into.append(line)
                if lines is not None:
                    lines.put(line.removesuffix("\n"))
        if lines is not None:
            lines.put(None)

    def line(self, timeout: float = PATIENCE) -> str:
        """See `cluster.Running`."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            line = None
        if line is None:
            self._lines.put(None)  # it has ended: whoever asks again need not wait
            self._fail("no line", timeout)
        return line

    def end(self, timeout: float = PATIENCE) -> Done:
        """See `cluster.Running`."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail("it has not ended", timeout)
        for reader in self._readers:
            reader.join(timeout)
        return Done(self.argv, code, "".join(self._out), "".join(self._err))

    def interrupt(self) -> Done:
        """See `cluster.Running`."""
        self.signal(SIGINT)
        return self.end()

    def signal(self, number: Signals) -> None:
        """A signal to the program, if it still runs: what has not been waited for keeps its PID."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.signal(SIGKILL)
        self.end()

    def _fail(self, what: str, timeout: float) -> NoReturn:
        out, err = "".join(self._out[-20:]), "".join(self._err[-20:])
        raise AssertionError(f"{what} within {timeout:g} s: {self.argv}\nstdout ends:\n{out}\nstderr ends:\n{err}")


class HostCluster:
    """Implements `cluster.Cluster`."""

    environment = "host"

    def __init__(self, place: Path) -> None:
        self._place = place
        self._started: list[tuple[str, Program]] = []
        # Two runs on one machine do not meet: one address in sixty thousand, and the ports are bound, not shared.
        net = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self._addresses = {host: f"{net}.{number}" for number, host in enumerate(HOSTS, 1)}

    # -- everything anew

    def reset(self) -> None:
        """See `cluster.Cluster`."""
        self.end()
        for host in HOSTS:
            shutil.rmtree(self._place / host, ignore_errors=True)
            (self._data(host) / "accepted").mkdir(parents=True)
            self._data(host).chmod(0o700)
        master = curve.make_key(self._data(MASTER) / "master.key")
        for host in (*AGENTS, CLIENT):
            key = curve.make_key(self._data(host) / ("client.key" if host == CLIENT else "agent.key"))
            (self._data(host) / "master.pub").write_bytes(master.public)
            (self._data(MASTER) / "accepted" / f"{host}.pub").write_bytes(key.public)
        for host in PROGRAM:
            self.configure(host)

    def end(self) -> None:
        """End every program and every daemon."""
        while self._started:
            self._started.pop()[1].kill()
        for host in PROGRAM:
            if self.pid(host):
                with contextlib.suppress(ProcessLookupError):
                    self.signal(host, "KILL")  # a stopped process, too
        until(lambda: not any(map(self.pid, PROGRAM)))

    # -- the daemons

    def configure(self, host: str, **settings: str) -> None:
        """See `cluster.Cluster`."""
        values = {
            "local": f"ipc://{self.path(host, 'socket')}",
            "data_dir": self.path(host, "data"),
            "accepted_keys": f"{self.path(host, 'data')}/accepted",
            "pid_file": self.path(host, "pid"),
            "log_file": self.path(host, "log"),
            "curve": "on",
            **TIMES,
        }
        if host == MASTER:
            values |= self.listening(MASTER)
        else:
            values |= {
                "name": host,
                "master": self.url(MASTER),
                "master_key": f"{self.path(host, 'data')}/master.pub",
            }
        values |= settings
        self.write(host, self.path(host, "config"), "".join(f"{key}: {value}\n" for key, value in values.items()))

    def launch(self, host: str, *options: str) -> Done:
        """See `cluster.Cluster`."""
        return self.run(host, PROGRAM[host], "-c", self.path(host, "config"), *options)

    def control(self, host: str, what: str) -> Done:
        """See `cluster.Cluster`."""
        return self.launch(host, "-s", what)

    def pid(self, host: str) -> int | None:
        """See `cluster.Cluster`."""
        return pidfile.holder(self.path(host, "pid"))

    def signal(self, host: str, name: str) -> None:
        """See `cluster.Cluster`."""
        pid = self.pid(host)
        assert pid, f"no daemon runs on {host}"
        os.kill(pid, Signals[f"SIG{name}"])

    def listening(self, host: str) -> dict[str, str]:
        """See `cluster.Cluster`."""
        return {"listen": self.url(host), "publish": f"tcp://{self._addresses[host]}:{PUBLISH}"}

    def url(self, host: str) -> str:
        """See `cluster.Cluster`."""
        return f"tcp://{self._addresses[host]}:{LISTEN}"

    # -- files and programs on a host

    def path(self, host: str, name: str) -> str:
        """See `cluster.Cluster`."""
        home = self._place / host
        program = PROGRAM.get(host, "none")
        return str(
            {
                "config": home / f"{program}.yaml",
                "pid": home / f"{program}.pid",
                "log": home / f"{program}.log",
                "data": self._data(host),
                "socket": home / "hub.sock",
                "examples": EXAMPLES,
                "key": self._data(host) / "client.key",
                "server_key": self._data(host) / "master.pub",
            }[name]
        )

    def _data(self, host: str) -> Path:
        return self._place / host / "data"

    def read(self, host: str, path: str) -> str:
        """See `cluster.Cluster`."""
        try:
            return Path(path).read_text()
        except FileNotFoundError:
            return ""

    def write(self, host: str, path: str, text: str) -> None:
        """See `cluster.Cluster`."""
        new = Path(f"{path}.new")
        new.write_text(text)
        new.replace(path)  # a daemon that reads it meanwhile finds one or the other

    def run(self, host: str, *argv: str, stdin: str = "", timeout: float = _COMMAND) -> Done:
        """See `cluster.Cluster`."""
        done = subprocess.run(
            argv,
            input=stdin,
            env=self._environ(host),
            cwd=self._place / host,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(argv, done.returncode, done.stdout, done.stderr)

    def start(self, host: str, *argv: str) -> Running:
        """See `cluster.Cluster`."""
        program = Program(argv, self._environ(host), self._place / host)
        self._started.append((host, program))
        return program

    def _environ(self, host: str) -> dict[str, str]:
        """Nothing of the developer's own settings."""
        url = self.url(MASTER) if host == CLIENT else f"ipc://{self.path(host, 'socket')}"
        return {"PATH": f"{BIN}:{os.defpath}", "HOME": str(self._place / host), "QULO_URL": url}

    def log(self, host: str) -> str:
        """See `cluster.Cluster`."""
        return self.read(host, self.path(host, "log"))

    def syslog(self, host: str) -> str:
        """See `cluster.Cluster`."""
        raise Cannot("a syslog of the host's own needs a container (docker)")

    # -- what happens to hosts

    def pause(self, host: str) -> None:
        """See `cluster.Cluster`."""
        self._signal_all(host, SIGSTOP)

    def resume(self, host: str) -> None:
        """See `cluster.Cluster`."""
        self._signal_all(host, SIGCONT)

    def _signal_all(self, host: str, number: Signals) -> None:
        """To everything on the host: its daemon and its programs."""
        for where, program in self._started:
            if where == host:
                program.signal(number)
        if pid := self.pid(host):
            os.kill(pid, number)

    def partition(self, host: str) -> None:
        """See `cluster.Cluster`."""
        raise Cannot("a partition needs a network of its own (docker)")

    def heal(self, host: str) -> None:
        """See `cluster.Cluster`: there is nothing to undo."""

    def drop(self, host: str, percent: int) -> None:
        """See `cluster.Cluster`."""
        raise Cannot("losing packets needs a network of its own (docker)")

    def replace(self, host: str) -> None:
        """See `cluster.Cluster`."""
        raise Cannot("another address needs a network of its own (docker)")
