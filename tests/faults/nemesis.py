"""Who breaks things: one function for each kind of fault. Each breaks, waits, and mends before it returns.

The history is told who is disturbed, because leases of theirs may end unseen: with the master everybody, with an agent
the programs that it serves, with a program itself alone. What must not be noticed by anybody is no disturbance at all:
a full disk, a storm, a clock that jumps, a bad configuration, a rotated log. What this machine cannot do is not drawn,
and named at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tests.faults.failing import POINTS
from tests.faults.site import AGENTS, DAEMONS, MASTER, Site, until
from tests.history.events import EVERYBODY, INVOKE, OK, Event, Writer

# Seconds that strace gets to attach, and a daemon to notice that its disk is broken.
_ATTACH, _NOTICE = 10.0, 30.0

# Seconds for a daemon to come to its failpoint; they are all on the way of a put.
_POINT_WITHIN = 4.0

# Links of a reconnect storm, and seconds for all to be connected, beside everything else.
_STORM, _STORM_WITHIN = 1000, 60.0


class Cast(Protocol):
    """The programs, by role; the process that plays a role at a time is a life."""

    def roles(self) -> list[str]:
        """All of them."""

    def life(self, role: str) -> str:
        """Who plays it."""

    def served_by(self, daemons: tuple[str, ...]) -> list[str]:
        """The lives that are connected to one of these."""

    def restart(self, role: str, number: signal.Signals) -> None:
        """End it by a signal, and start another."""

    def pause(self, role: str, seconds: float) -> None:
        """Stop it for so long."""


class Nemesis:
    """Draws faults and carries them out, one at a time."""

    def __init__(self, site: Site, seed: int, write: Writer, cast: Cast) -> None:
        self.site = site
        self.random = random.Random(seed)
        self.struck: list[tuple[float, str]] = []
        """When each fault began, and its name."""
        self._write = write
        self._cast = cast
        needs = {"partition": "network", "loss": "loss", "full disk": "tmpfs"}
        self.faults: dict[str, Callable[[], None]] = {
            name: fault for name, fault in _FAULTS(self).items() if needs.get(name) not in site.cannot
        }
        self.skipped = {name: site.cannot[what] for name, what in needs.items() if what in site.cannot}
        if shutil.which("strace") is None or os.geteuid():
            for name in ("EIO", "ENOSPC"):
                del self.faults[name]
                self.skipped[name] = "needs strace and root"

    def strike(self, name: str | None = None) -> str:
        """One fault; what it was."""
        name = name or self.random.choice([each for each in self.faults for _ in range(_WEIGHTS.get(each, 1))])
        self.struck.append((time.monotonic(), name))
        self.faults[name]()
        return name

    @property
    def times(self) -> Counter[str]:
        """How often there was each."""
        return Counter(name for _, name in self.struck)

    @contextlib.contextmanager
    def _disturbed(self, *daemons: str) -> Iterator[None]:
        """The programs that these serve are disturbed meanwhile; with the master everybody is."""
        yield from self._tell([EVERYBODY] if MASTER in daemons else self._cast.served_by(daemons))

    @contextlib.contextmanager
    def _disturbed_life(self, life: str) -> Iterator[None]:
        """This program alone is."""
        yield from self._tell([life])

    def _tell(self, lives: list[str]) -> Iterator[None]:
        self._say(lives, INVOKE)
        try:
            yield
        finally:
            self._say(lives, OK)

    def _say(self, lives: list[str], phase: str) -> None:
        for life in lives:
            self._write(Event(time.monotonic(), life, "disturb", phase))
        self._write.flush()

    def _some(self, least: float, most: float) -> float:
        return self.random.uniform(least, most)

    def _hold(self, least: float = 0.2, most: float = 1.5) -> None:
        time.sleep(self._some(least, most))

    def _revive(self, name: str) -> None:
        """It is gone, or about to be: start it again."""
        self.site.kill(name)
        self.site.start(name)

    # -- kills

    def kill_master(self) -> None:
        """kill -9."""
        with self._disturbed(MASTER):
            self.site.kill(MASTER)
            self._hold(0.0, 0.5)
            self.site.start(MASTER)

    def kill_agent(self) -> None:
        """kill -9, its executor ends with it."""
        name = self.random.choice(AGENTS)
        with self._disturbed(name):
            self.site.kill(name)
            self._hold(0.0, 0.5)
            self.site.start(name)

    def kill_both(self) -> None:
        """The master, and an agent while it is away."""
        with self._disturbed(MASTER):
            self.site.kill(MASTER)
            self._hold()
            name = self.random.choice(AGENTS)
            self.site.kill(name)
            for each in self.random.sample([name, MASTER], 2):
                self.site.start(each)

    def kill_client(self) -> None:
        """A program, whatever it does."""
        self._cast.restart(self.random.choice(self._cast.roles()), signal.SIGKILL)

    def failpoint(self) -> None:
        """A daemon that dies by itself, at a named point."""
        name = self.random.choice(DAEMONS)
        point = self.random.choice(sorted(POINTS))
        with self._disturbed(name):
            self.site.kill(name)
            self.site.start(name, QULO_FAILPOINT=f"{point}:{self.random.randint(1, 200)}")
            process = self.site.daemons[name]
            with contextlib.suppress(subprocess.TimeoutExpired):  # a point that nothing comes to now
                process.wait(_POINT_WITHIN)
                self.site.kills += 1
            self._revive(name)

    # -- stops

    def stop_daemon(self) -> None:
        """SIGSTOP for a while, now and then for longer than a session lasts."""
        name = self.random.choice(DAEMONS)
        with self._disturbed(name):
            self.site.signal(name, signal.SIGSTOP)
            self._hold(1.0, self.random.choice((2.0, 2.0, 8.0)))
            self.site.signal(name, signal.SIGCONT)

    def stop_client(self) -> None:
        """The same to a program."""
        role = self.random.choice(self._cast.roles())
        with self._disturbed_life(self._cast.life(role)):
            self._cast.pause(role, self._some(1.0, self.random.choice((2.0, 12.0))))

    # -- disks

    def _inject(self, error: str) -> None:
        """fdatasync fails, as the kernel says after a broken write: the daemon has to end with a reason."""
        name = self.random.choice(DAEMONS)
        process = self.site.daemons[name]
        argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
        argv += ["-e", f"inject=fdatasync,fsync:error={error}", "-p", str(process.pid)]
        with self._disturbed(name):
            strace = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                until(lambda: _is_traced(process.pid) or strace.poll() is not None, _ATTACH, "strace attaches")
                if name == MASTER:
                    until(lambda: process.poll() is not None, _NOTICE, f"{name} ends after {error}")
                    assert process.returncode, f"{name} ended as if all were well after {error}"
                else:  # an agent that has its master syncs nothing, so that nothing can fail
                    self._hold(0.5, 1.5)
            finally:
                strace.kill()
                strace.wait()
            self._revive(name)

    def eio(self) -> None:
        """See `_inject`."""
        self._inject("EIO")

    def enospc(self) -> None:
        """See `_inject`."""
        self._inject("ENOSPC")

    def fill_disk(self) -> None:
        """Others take all the space: producers are refused, acks go on."""
        ballast = self.site.place / MASTER / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
        self._hold(0.5, 2.0)
        ballast.unlink()

    # -- networks

    def partition(self) -> None:
        """Nothing comes through, and nobody is told."""
        name = self.random.choice(DAEMONS)
        with self._disturbed(name):
            self.site.cut(name)
            self._hold(1.0, self.random.choice((3.0, 8.0)))
            self.site.join(name)

    def loss(self) -> None:
        """Every tenth packet is lost."""
        name = self.random.choice(DAEMONS)
        with self._disturbed(name):
            self.site.lose(name, 10)
            self._hold(1.0, 4.0)
            self.site.lose(name, 0)

    def storm(self) -> None:
        """A thousand connect at once, and go without a word."""
        process = self.site.storm(_STORM)
        output, hold = process.stdout, process.stdin
        assert output is not None
        assert hold is not None
        ready = threading.Thread(target=output.readline, daemon=True)
        ready.start()
        ready.join(_STORM_WITHIN)
        assert not ready.is_alive(), f"{_STORM} links are not connected within {_STORM_WITHIN:g} s"
        process.kill()
        process.wait()
        output.close()
        hold.close()

    # -- what operators do, and what happens to clocks

    def jump_clock(self) -> None:
        """The wall clock is set, there and perhaps back."""
        name = self.random.choice(DAEMONS)
        clock = self.site.place / f"{name}.clock"
        clock.write_text(str(self.random.choice((-3600, -60, -1, 1, 60, 3600))))
        self._hold()
        if self.random.random() < 0.7:
            clock.write_text("0")
            self._hold(0.1, 0.3)

    def bad_reload(self) -> None:
        """HUP with garbage in the configuration."""
        name = self.random.choice(DAEMONS)
        self.site.config(name).write_text(
            self.random.choice(("local: [", "no_such_key: 1\n", "\x00\x01", "max_message: -1\n"))
        )
        self.site.signal(name, signal.SIGHUP)
        self._hold(0.1, 0.3)
        self.site.configure(name)
        self.site.signal(name, signal.SIGHUP)

    def rotate_logs(self) -> None:
        """Rename the log, and have it opened anew."""
        name = self.random.choice(DAEMONS)
        log = self.site.place / f"{name}.log"
        log.rename(log.with_suffix(".old"))
        self.site.signal(name, signal.SIGUSR1)
        until(log.exists, 10, f"{name} opens its log anew")


def _is_traced(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)


def _FAULTS(nemesis: Nemesis) -> dict[str, Callable[[], None]]:  # noqa: N802 - the table
    return {
        "kill master": nemesis.kill_master,
        "kill agent": nemesis.kill_agent,
        "kill both": nemesis.kill_both,
        "kill client": nemesis.kill_client,
        "failpoint": nemesis.failpoint,
        "stop daemon": nemesis.stop_daemon,
        "stop client": nemesis.stop_client,
        "EIO": nemesis.eio,
        "ENOSPC": nemesis.enospc,
        "full disk": nemesis.fill_disk,
        "partition": nemesis.partition,
        "loss": nemesis.loss,
        "storm": nemesis.storm,
        "clock": nemesis.jump_clock,
        "bad reload": nemesis.bad_reload,
        "log rotation": nemesis.rotate_logs,
    }


# What nobody may notice; leases and what is acknowledged are judged while only these happen.
QUIET = ("full disk", "storm", "clock", "bad reload", "log rotation")

# Kills are what the campaign is counted by, and quick.
_WEIGHTS = {"kill master": 8, "kill agent": 5, "kill both": 3, "kill client": 5, "failpoint": 5}
