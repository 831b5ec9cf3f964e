"""What a functional test can do with a site: a master, three agents, and a host without a daemon.

One suite, two environments: `docker.py` runs each host as a container, `host.py` all of them in directories of this
machine. A test uses nothing but this interface, so it says what an operator and a program see, not where they run.
What an environment cannot do raises `Cannot`, which the suite turns into a skip with that name, counted at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

MASTER = "master"
AGENTS = ("agent1", "agent2", "agent3")
CLIENT = "client"  # programs only; they dial the master over TCP with a key of their own
HOSTS = (MASTER, *AGENTS, CLIENT)

PROGRAM: Mapping[str, str] = {MASTER: "qmaster", **dict.fromkeys(AGENTS, "qagent")}
"""The daemon of each host that has one."""

# Seconds. A tenth of the defaults: a test waits for what follows from them (a peer is suspect after 2.5 heartbeats of
# silence, and down after the session's timeout), and a busy machine must not pass for a silent one.
HEARTBEAT = 0.3
SESSION_TIMEOUT = 3.0

TIMES: Mapping[str, str] = {"heartbeat": f"{HEARTBEAT}s", "session_timeout": f"{SESSION_TIMEOUT}s"}
"""In every host's configuration, unless a test says otherwise."""


class Cannot(Exception):
    """This environment cannot do that; says what and why, in the words of the skip's reason."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended; `out` is all it wrote, also what `Running.line` gave already."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str


class Running(Protocol):
    """A command that was started on a host and goes on."""

    def line(self, timeout: float = ...) -> str:
        """The next line of its stdout, without the newline; fails the test when none comes in time."""

    def end(self, timeout: float = ...) -> Done:
        """Wait until it ends by itself; fails the test when it does not in time."""

    def interrupt(self) -> Done:
        """Ctrl-C, then `end`."""


class Cluster(Protocol):
    """The five hosts. Every daemon is configured and stopped when a test gets it, unless its fixture says otherwise.

    Operations on different hosts may run at the same time, from threads.
    """

    environment: str
    """`docker` or `host`."""

    def reset(self) -> None:
        """End every daemon and program, undo what happened to hosts, remove what they kept, configure all anew."""

    # -- the daemons

    def configure(self, host: str, **settings: str) -> None:
        """Write the host's configuration: a site that works (names, addresses, curve on, keys), and `settings`."""

    def launch(self, host: str, *options: str) -> Done:
        """The host's daemon by its command line, as an operator starts it: it goes to the background by itself."""

    def control(self, host: str, what: str) -> Done:
        """`-s WHAT` of the host's daemon: status, reload, reopen, drain or stop."""

    def pid(self, host: str) -> int | None:
        """Who holds the lock of the host's PID file, as seen on that host; None: nobody."""

    def signal(self, host: str, name: str) -> None:
        """A signal (`KILL`, `HUP`, …) to the host's daemon, and to nothing else."""

    # -- files and programs on a host

    def path(self, host: str, name: str) -> str:
        """Where the host has `config`, `pid`, `log`, `data`, `socket` or `examples` (a directory).

        `data` holds the host's keys from the start (agent.key and agent.pub, at the master master.key and
        master.pub), and in `accepted` the public ones that it lets in, each as NAME.pub.

        CLIENT has `key` and `server_key`, the files that its programs give to --key and --server-key: qulo has no
        variable for them.
        """

    def listening(self, host: str) -> dict[str, str]:
        """The settings `listen` and `publish` that make an agent a hub for other hosts, curve and all."""

    def url(self, host: str) -> str:
        """Where other hosts reach what this one listens on, by its name: tcp://NAME:PORT."""

    def read(self, host: str, path: str) -> str:
        """A file of the host; "" when it is not there."""

    def write(self, host: str, path: str, text: str) -> None:
        """Write a file of the host, whole or not at all."""

    def run(self, host: str, *argv: str, stdin: str = "", timeout: float = ...) -> Done:
        """Run a command on the host to its end. Programs find their hub without being told: QULO_URL is set there."""

    def start(self, host: str, *argv: str) -> Running:
        """Run a command on the host beside the test; ended with the test at the latest."""

    def log(self, host: str) -> str:
        """The daemon's log file."""

    def syslog(self, host: str) -> str:
        """The host's /var/log/syslog. Raises Cannot where no syslog of its own runs."""

    # -- what happens to hosts

    def pause(self, host: str) -> None:
        """The host stops dead, as a frozen machine does; `resume` lets it go on."""

    def resume(self, host: str) -> None:
        """Let a paused host go on."""

    def partition(self, host: str) -> None:
        """Cut the host off from all others; connections are not closed, nothing gets through. Raises Cannot."""

    def heal(self, host: str) -> None:
        """Undo `partition` and `drop`."""

    def drop(self, host: str, percent: int) -> None:
        """Lose so many percent of the host's packets, both ways. Raises Cannot."""

    def replace(self, host: str) -> None:
        """The host is gone for good and another one takes its name, with the same data and another address.

        Its daemon has to be launched anew. Raises Cannot.
        """
