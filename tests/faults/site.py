"""The site that is broken: a master and agents, each a process of this machine, and programs beside them.

With root each daemon has a network of its own (a namespace and a veth pair to a bridge namespace), so that it can be
cut off or made to lose packets, and the master's data is on a small tmpfs that can be filled. Without root all are on
loopback, and what that cannot do is said once, by name.

Names of namespaces and mounts begin with PREFIX and the campaign's PID: `sweep` removes those of campaigns that are
gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import qulo.sync
from qulo.net.curve import load_or_make, public_path

T = TypeVar("T")

PREFIX = "qf"
MASTER = "m"
AGENTS = ("a", "b")
DAEMONS = (MASTER, *AGENTS)

# Shorter than the defaults, as in the functional tests: what follows from them is waited for.
HEARTBEAT, SESSION_TIMEOUT = "500ms", "5s"

# Of the tmpfs that the master's data is on: the reserve, two WALs, and room for messages.
DISK = 256 * 1024 * 1024

# Seconds for a daemon to be ready; a machine under this campaign is slow.
READY = 30.0

_NET = "10.111.{}.{}"


def until(what: Callable[[], T], timeout: float, why: str) -> T:
    """Ask until the answer is true; AssertionError with `why` when that takes too long."""
    deadline = time.monotonic() + timeout
    while not (answer := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {why}")
        time.sleep(0.02)
    return answer


def call(*argv: str, check: bool = True) -> str:
    """Run a command to its end; its output."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def sweep() -> None:
    """Remove what campaigns have left that are not running any more."""
    if os.geteuid():
        return
    for line in call("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0] if line.split() else ""
        if name.startswith(PREFIX) and not _is_running(name[len(PREFIX) :].partition("-")[0]):
            call("ip", "netns", "del", name, check=False)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, place = line.split()[:2]
        if device.startswith(PREFIX) and not _is_running(device[len(PREFIX) :].partition("-")[0]):
            call("umount", "-l", place, check=False)


def _is_running(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


class Site:
    """Daemons and programs of one campaign."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        self.cannot: dict[str, str] = {}
        """What this machine cannot do, and why."""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.programs: list[subprocess.Popen[bytes]] = []
        self.kills = 0
        self._argv: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {}
        self._lives: dict[str, int] = {}
        self._spaces: dict[str, str] = {}
        self._mounted = False
        self._serial = f"{PREFIX}{os.getpid()}"
        if os.geteuid():
            self.cannot |= dict.fromkeys(("network", "loss", "tmpfs"), "needs root")
        else:
            self._make_networks()
            self._mount()

    # -- networks and disks

    def _make_networks(self) -> None:
        """One namespace with a bridge, and one for each daemon."""
        try:
            switch = f"{self._serial}-x"
            call("ip", "netns", "add", switch)
            self._spaces["x"] = switch
            call("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
            call("ip", "-n", switch, "link", "set", "br0", "up")
            for number, name in enumerate(DAEMONS, 1):
                space = f"{self._serial}-{name}"
                call("ip", "netns", "add", space)
                self._spaces[name] = space
                call(
                    "ip",
                    "-n",
                    switch,
                    "link",
                    "add",
                    f"v{name}",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "eth0",
                    "netns",
                    space,
                )
                call("ip", "-n", switch, "link", "set", f"v{name}", "master", "br0", "up")
                call("ip", "-n", space, "addr", "add", f"{_NET.format(0, number)}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    call("ip", "-n", space, "link", "set", device, "up")
        except (RuntimeError, FileNotFoundError) as error:
            self.cannot["network"] = self.cannot["loss"] = str(error)
            self._remove_networks()
            return
        try:
            self.lose(MASTER, 10)
            self.lose(MASTER, 0)
        except (RuntimeError, FileNotFoundError) as error:
            self.cannot["loss"] = str(error)

    def _remove_networks(self) -> None:
        for space in self._spaces.values():
            call("ip", "netns", "del", space, check=False)
        self._spaces.clear()

    def _mount(self) -> None:
        directory = self.place / MASTER
        directory.mkdir()
        try:
            call("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", f"{self._serial}-disk", str(directory))
        except (RuntimeError, FileNotFoundError) as error:
            self.cannot["tmpfs"] = str(error)
        else:
            self._mounted = True

    def cut(self, name: str) -> None:
        """Nothing gets through to this daemon or from it; nobody is told."""
        call("ip", "-n", self._spaces["x"], "link", "set", f"v{name}", "down")

    def join(self, name: str) -> None:
        """Undo `cut`."""
        call("ip", "-n", self._spaces["x"], "link", "set", f"v{name}", "up")

    def lose(self, name: str, percent: int) -> None:
        """Lose so many percent of what comes to it; 0: none any more."""
        rules = ("ip", "netns", "exec", self._spaces[name], "iptables")
        call(*rules, "-F", "INPUT")
        if percent:
            chance = ("-m", "statistic", "--mode", "random", "--probability", str(percent / 100))
            call(*rules, "-A", "INPUT", *chance, "-j", "DROP")

    def _inside(self, name: str, argv: Iterable[str]) -> list[str]:
        space = self._spaces.get(name)
        return [*(("ip", "netns", "exec", space) if space else ()), *argv]

    # -- daemons

    def address(self, name: str, port: int = 7370) -> str:
        """Where a daemon listens on TCP, for other daemons."""
        host = _NET.format(0, DAEMONS.index(name) + 1) if self._spaces else "127.0.0.1"
        return f"tcp://{host}:{port}"

    def url(self, name: str) -> str:
        """Where programs connect: a path is reached from every namespace."""
        return f"ipc://{self.place}/{name}.sock"

    def config(self, name: str) -> Path:
        """The configuration file of a daemon."""
        return self.place / f"{name}.yaml"

    def prepare(self) -> None:
        """Keys and configurations; then `start` each."""
        accepted = self.place / MASTER / "accepted"
        accepted.mkdir(parents=True, mode=0o700)
        load_or_make(self.place / MASTER / "master.key")
        for name in AGENTS:
            directory = self.place / name
            directory.mkdir(mode=0o700)
            key = directory / "agent.key"
            load_or_make(key)
            shutil.copy(public_path(key), accepted / f"agent-{name}.pub")
        shutil.copy(self.place / MASTER / "master.pub", self.place / "master.pub")
        for name in DAEMONS:
            self.configure(name)

    def configure(self, name: str) -> None:
        """Write it, as it should be."""
        settings = {
            "local": self.url(name),
            "data_dir": f"{self.place}/{name}",
            "pid_file": f"{self.place}/{name}.pid",
            "log_file": f"{self.place}/{name}.log",
            "audit_file": f"{self.place}/{name}.audit",
            "heartbeat": HEARTBEAT,
            "session_timeout": SESSION_TIMEOUT,
        }
        if os.geteuid() == 0:
            settings["user"] = "root"
        if name == MASTER:
            settings |= {"listen": self.address(MASTER), "publish": self.address(MASTER, 7371), "max_sessions": "5000"}
        else:
            settings |= {
                "master": self.address(MASTER),
                "name": f"agent-{name}",
                "master_key": f"{self.place}/master.pub",
            }
        self.config(name).write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))

    def start(self, name: str, **environ: str) -> None:
        """Start a daemon and wait until it serves; with QULO_FAILPOINT it may be gone again before."""
        program = "qmaster" if name == MASTER else "qagent"
        state = self.place / f"{name}.state"
        state.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "tests.faults.failing", program, "-f", "-c", str(self.config(name))]
        clock = {"QULO_CLOCK": str(self.place / f"{name}.clock")}
        with (self.place / f"{name}.err").open("ab") as errors:
            self.daemons[name] = subprocess.Popen(
                self._inside(name, argv), env={**os.environ, **clock, **environ}, stdout=errors, stderr=errors
            )
        process = self.daemons[name]
        until(lambda: state.exists() or process.poll() is not None, READY, f"{name} is ready")
        if process.poll() is not None and not environ:
            raise AssertionError(f"{name} did not start: {(self.place / f'{name}.err').read_text()[-2000:]}")

    def kill(self, name: str) -> None:
        """As kill -9 does, with the executor of an agent."""
        process = self.daemons[name]
        if process.poll() is None:
            process.kill()
            self.kills += 1
        process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """To a daemon; the namespace's wrapper has become it."""
        self.daemons[name].send_signal(number)

    # -- programs

    def program(self, module: str, name: str, *argv: str) -> str:
        """Start a program that writes a history; the name of this life."""
        self._lives[name] = self._lives.get(name, 0) + 1
        life = f"{name}.{self._lives[name]}"
        history = self.place / f"{life}.history"
        url, *rest = argv
        self._start_program([f"tests.faults.{module}", url, str(history), life, *rest])
        return life

    def _start_program(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with (self.place / "programs.err").open("ab") as errors:
            process = subprocess.Popen([sys.executable, "-m", *argv], stderr=errors, **options)
        self.programs.append(process)
        return process

    def storm(self, count: int) -> subprocess.Popen[bytes]:
        """So many connections at once."""
        argv = ["tests.faults.storm", self.url(MASTER), str(count)]
        return self._start_program(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    # -- the end

    def ask(self, name: str, topic: str, argument: Any = None) -> Any:
        """A request to a daemon, over its own socket."""
        with qulo.sync.connect(self.url(name), timeout=READY) as bus:
            return bus.request(topic, argument, timeout=READY)

    def close(self) -> None:
        """End everything that was started, and remove what was made."""
        for process in (*self.programs, *self.daemons.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in (*self.programs, *self.daemons.values()):
            process.wait()
        if self._mounted:
            call("umount", "-l", str(self.place / MASTER), check=False)
        self._remove_networks()
        with contextlib.suppress(OSError):
            shutil.rmtree(self.place)
