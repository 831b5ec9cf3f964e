"""The hosts as containers: each with its own network, processes, files and syslog, the daemons as root in their
default places.

Everything inside is done by `docker exec`; what happens to a host's network is done from outside, by iptables in its
network namespace. It must never touch a container, a network or an image that this run did not make.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from qulo.net import curve
from tests.functional.cluster import AGENTS, HOSTS, MASTER, PROGRAM, TIMES, Cannot, Cluster, Done, Running
from tests.functional.host import Program
from tests.functional.waiting import until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# What engine.sh makes where no registry can be reached.
LOCAL_BASE = "qulo/python-base:local"

# The defaults of qmaster's configuration.
LISTEN, PUBLISH = 7370, 7371

_INSIDE = ("python3", "-I", "-S", "-c", (HERE / "inside.py").read_text())

# A command that takes longer hangs; the longest that a test asks for is a daemon's drain, of 10 s at most.
_COMMAND = 30.0

# Seconds for one of docker's own, which may have to make or remove a container.
_DOCKER = 60.0

_NO_SUCH_PROCESS = 3


def compose_command(compose: str) -> str:
    """Compose as a shell knows it, with the variables of compose.yaml and nothing else of that name."""
    variables = {
        "BASE_IMAGE": os.environ.get("BASE_IMAGE") or _local_base(),
        "PIP_INDEX_URL": os.environ.get("PIP_INDEX_URL") or _configured_index(),
        # Two clones on one machine must not run each other's image.
        "QULO_FT_TAG": f"{zlib.crc32(os.fsencode(ROOT)):08x}",
    }
    unset = [f"--unset={name}" for name in variables]
    return (
        shlex.join(["env", *unset, *(f"{name}={value}" for name, value in variables.items() if value)]) + f" {compose}"
    )


def _local_base() -> str:
    done = subprocess.run(["docker", "image", "inspect", LOCAL_BASE], capture_output=True, check=False)
    return "" if done.returncode else LOCAL_BASE


def _configured_index() -> str:
    """The package index of pip's own configuration; a directory of this machine is of no use in a container."""
    pip = ["python3", "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(pip, capture_output=True, text=True, check=False).stdout.strip()
    return index if index.startswith(("http://", "https://")) else ""


@contextlib.contextmanager
def open(request: pytest.FixtureRequest) -> Iterator[Cluster]:  # noqa: A001 - each environment has an `open`
    """The five hosts, not yet configured: `reset` does that. pytest-docker removes them at the end of the run."""
    compose = Compose(
        request.getfixturevalue("docker_compose_command"),
        request.getfixturevalue("docker_compose_file"),
        request.getfixturevalue("docker_compose_project_name"),
    )
    try:
        request.getfixturevalue("docker_services")
    except BaseException:
        # pytest-docker cleans up only what came up whole.
        for command in request.getfixturevalue("docker_cleanup"):
            compose(command)
        raise
    cluster = DockerCluster(compose)
    try:
        yield cluster
    finally:
        cluster.end()


class Compose:
    """Compose, for what pytest-docker has no fixture."""

    def __init__(self, command: str, file: str, project: str) -> None:
        self._command = [*shlex.split(command), "-f", file, "-p", project]
        self.project = project

    def __call__(self, command: str) -> str:
        """Run it; its stdout."""
        return _docker(*self._command, *command.split())


def _docker(*argv: str, stdin: str | None = None) -> str:
    """Run a command of docker's that has to succeed; its stdout."""
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=_DOCKER,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class _Inside(Program):
    """A program in a container, which docker's own client does not pass signals to."""

    def __init__(self, container: str, argv: tuple[str, ...]) -> None:
        self._container = container
        # The shell says its PID, which is then the program's.
        started = ("docker", "exec", container, "sh", "-c", 'echo $$; exec "$@"', "sh", *argv)
        super().__init__(started, dict(os.environ), Path("/"))
        self._pid = self.line()
        del self._out[0]

    def signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            # Not checked: it may end meanwhile.
            kill = ["docker", "exec", self._container, "sh", "-c", f"kill -{int(number)} {self._pid}"]
            subprocess.run(kill, capture_output=True, timeout=_DOCKER, check=False)


@dataclass(frozen=True, slots=True)
class _Container:
    """What has to be known of one."""

    id: str
    image: str
    init: str
    """The PID of its first process, as the engine's machine has it."""
    address: str


_SHOWN = (
    '{{index .Config.Labels "com.docker.compose.service"}} {{.Id}} {{.Image}} {{.State.Pid}}'
    " {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
)


_NOT_COMPOSED = ("--label=com.docker.compose.project=", "--label=com.docker.compose.service=")


class DockerCluster:
    """Implements `cluster.Cluster`."""

    environment = "docker"

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._containers: dict[str, _Container] = {}
        self._started: list[Program] = []
        self._paused: set[str] = set()
        self._losses: dict[str, str] = {}
        """Which hosts lose packets, and what iptables says about which of them."""
        self._occupants: list[str] = []
        """Containers that have an address which a replaced host must not get again."""
        self._keys = _make_keys()
        self._pool = ThreadPoolExecutor(len(HOSTS))
        self._find()

    def _find(self) -> None:
        """Which container is which host; all of them are up, with their syslog."""
        labelled = f"label=com.docker.compose.project={self._compose.project}"
        ids = _docker("docker", "ps", "--quiet", "--no-trunc", "--filter", labelled).split()
        listed = _docker("docker", "inspect", "--format", _SHOWN, *ids).splitlines()
        self._containers = {host: _Container(*rest) for host, *rest in map(str.split, listed)}
        assert set(self._containers) == set(HOSTS), f"not all containers run: {listed}"
        until(lambda: all(self._pool.map(lambda host: self._exec(host, "test", "-S", "/dev/log").code == 0, HOSTS)))

    # -- everything anew

    def reset(self) -> None:
        """See `cluster.Cluster`."""
        for host in list(self._paused):
            self.resume(host)
        if self._losses:
            self._losses.clear()
            self._lose()
        for done in self._pool.map(self._reset, HOSTS):
            assert done.code == 0, done
        while self._started:
            self._started.pop().end()

    def _reset(self, host: str) -> Done:
        files = dict(self._keys[host])
        if host in PROGRAM:
            files[self.path(host, "config")] = (self._configuration(host), None)
        return self._inside(host, "reset", stdin=json.dumps(files))

    def end(self) -> None:
        """Let go of the programs, and of the containers that compose knows nothing of."""
        try:
            self.reset()
        finally:
            self._pool.shutdown()
            if self._occupants:
                _docker("docker", "rm", "--force", *self._occupants)

    # -- the daemons

    def _configuration(self, host: str, **settings: str) -> str:
        """Only what is no default: the rest is tested by being left out."""
        values = {"curve": "on", **TIMES}
        if host == MASTER:
            values |= self.listening(host)
        else:
            values |= {"name": host, "master": self.url(MASTER), "master_key": self.path(host, "server_key")}
        return "".join(f"{key}: {value}\n" for key, value in (values | settings).items())

    def configure(self, host: str, **settings: str) -> None:
        """See `cluster.Cluster`."""
        self.write(host, self.path(host, "config"), self._configuration(host, **settings))

    def launch(self, host: str, *options: str) -> Done:
        """See `cluster.Cluster`."""
        return self.run(host, PROGRAM[host], *options)

    def control(self, host: str, what: str) -> Done:
        """See `cluster.Cluster`."""
        return self.launch(host, "-s", what)

    def pid(self, host: str) -> int | None:
        """See `cluster.Cluster`."""
        return int(self._inside(host, "holder", self.path(host, "pid")).out) or None

    def signal(self, host: str, name: str) -> None:
        """See `cluster.Cluster`."""
        number = int(signal.Signals[f"SIG{name}"])
        done = self._inside(host, "signal", self.path(host, "pid"), str(number), may=(0, _NO_SUCH_PROCESS))
        assert done.code == 0, f"no daemon runs on {host}"

    # -- files and programs on a host

    def path(self, host: str, name: str) -> str:
        """See `cluster.Cluster`."""
        program = PROGRAM.get(host, "none")
        return {
            "config": f"/etc/qulo/{program}.yaml",
            "pid": f"/run/qulo/{program}.pid",
            "log": f"/var/log/qulo/{program}.log",
            "data": "/var/lib/qulo",
            "socket": f"/run/qulo/{program.removeprefix('q')}.sock",
            "examples": "/opt/qulo/examples",
            "key": "/var/lib/qulo/client.key",
            "server_key": "/var/lib/qulo/master.pub",
        }[name]

    def listening(self, host: str) -> dict[str, str]:
        """See `cluster.Cluster`: on every address that the container has."""
        return {"listen": f"tcp://0.0.0.0:{LISTEN}", "publish": f"tcp://0.0.0.0:{PUBLISH}"}

    def url(self, host: str) -> str:
        """See `cluster.Cluster`."""
        return f"tcp://{host}:{LISTEN}"

    def read(self, host: str, path: str) -> str:
        """See `cluster.Cluster`."""
        return self._inside(host, "read", path).out

    def write(self, host: str, path: str, text: str) -> None:
        """See `cluster.Cluster`."""
        self._inside(host, "write", stdin=json.dumps({path: (text, None)}))

    def run(self, host: str, *argv: str, stdin: str = "", timeout: float = _COMMAND) -> Done:
        """See `cluster.Cluster`."""
        return self._exec(host, *argv, stdin=stdin, timeout=timeout)

    def start(self, host: str, *argv: str) -> Running:
        """See `cluster.Cluster`."""
        program = _Inside(self._container(host), argv)
        self._started.append(program)
        return program

    def log(self, host: str) -> str:
        """See `cluster.Cluster`."""
        return self.read(host, self.path(host, "log"))

    def syslog(self, host: str) -> str:
        """See `cluster.Cluster`."""
        return self.read(host, "/var/log/syslog")

    def _inside(self, host: str, *argv: str, stdin: str = "", may: tuple[int, ...] = (0,)) -> Done:
        done = self._exec(host, *_INSIDE, *argv, stdin=stdin)
        assert done.code in may, f"{host}: {argv}: exit status {done.code}: {done.err}"
        return done

    def _exec(self, host: str, *argv: str, stdin: str = "", timeout: float = _COMMAND) -> Done:
        # Without --interactive stdin is /dev/null: a daemon that kept it open would be found out all the same.
        done = subprocess.run(
            ["docker", "exec", *(["--interactive"] if stdin else []), self._container(host), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Done(argv, done.returncode, done.stdout, done.stderr)

    def _container(self, host: str) -> str:
        assert host not in self._paused, f"{host} is paused: nothing can be done there"
        return self._containers[host].id

    # -- what happens to hosts

    def pause(self, host: str) -> None:
        """See `cluster.Cluster`."""
        _docker("docker", "pause", self._container(host))
        self._paused.add(host)

    def resume(self, host: str) -> None:
        """See `cluster.Cluster`."""
        _docker("docker", "unpause", self._containers[host].id)
        self._paused.discard(host)

    def partition(self, host: str) -> None:
        """See `cluster.Cluster`."""
        self._losses[host] = "-j DROP"
        self._lose()

    def drop(self, host: str, percent: int) -> None:
        """See `cluster.Cluster`."""
        self._losses[host] = f"-m statistic --mode random --probability {percent / 100} -j DROP"
        self._lose()

    def heal(self, host: str) -> None:
        """See `cluster.Cluster`."""
        if self._losses.pop(host, None):
            self._lose()

    def _lose(self) -> None:
        """Each host loses what it should of what it gets, and of what comes from others that lose.

        Always where it arrives: a program would be told that the kernel refused to send, and TCP would wait without
        counting it as lost.
        """
        if os.geteuid() != 0:
            self._losses.clear()
            raise Cannot("losing a container's packets needs root (nsenter, iptables)")
        if not all(map(self._is_here, HOSTS)):
            self._losses.clear()
            raise Cannot("losing a container's packets needs docker's engine on this machine")
        for _ in self._pool.map(self._filter, HOSTS):
            pass

    def _is_here(self, host: str) -> bool:
        try:
            return self._containers[host].id in Path(f"/proc/{self._containers[host].init}/cgroup").read_text()
        except FileNotFoundError:
            return False

    def _filter(self, host: str) -> None:
        rules = [
            f"-A INPUT ! -i lo {target}" if host == who else f"-A INPUT -s {self._containers[who].address} {target}"
            for who, target in self._losses.items()
        ]
        # One transaction in place of all that was there. The name server's own rules are in another table.
        table = "\n".join(["*filter", ":INPUT ACCEPT", *rules, "COMMIT", ""])
        _docker("nsenter", f"--net=/proc/{self._containers[host].init}/ns/net", "iptables-restore", stdin=table)

    def replace(self, host: str) -> None:
        """See `cluster.Cluster`."""
        old = self._containers[host]
        _docker("docker", "rm", "--force", old.id)
        # Somebody else gets the next address, and keeps it: with some engines it is the one that was just given back.
        # Without the labels that compose v2 gives to an image it builds, and so to every container of it.
        options = (f"--network={self._compose.project}_site", *_NOT_COMPOSED)
        self._occupants.append(_docker("docker", "run", "--detach", "--rm", "--init", *options, old.image).strip())
        self._compose(f"up -d --no-deps {host}")
        self._find()
        new = self._containers[host]
        assert new.address != old.address, f"{host} got its old address {old.address} again"
        if self._losses:
            self._lose()


def _make_keys() -> Mapping[str, Mapping[str, tuple[str, int | None]]]:
    """Each host's files of keys: its own pair, and whom it knows."""
    data = "/var/lib/qulo"
    files: dict[str, dict[str, tuple[str, int | None]]] = {host: {} for host in HOSTS}
    with tempfile.TemporaryDirectory() as place:
        for host in HOSTS:
            role = "agent" if host in AGENTS else host
            key = Path(place, f"{host}.key")
            curve.make_key(key)
            files[host][f"{data}/{role}.key"] = (key.read_text(), 0o600)
            public = curve.public_path(key).read_text()
            files[host][f"{data}/{role}.pub"] = (public, None)
            if host == MASTER:
                for other in HOSTS:
                    files[other][f"{data}/master.pub"] = (public, None)
            else:
                files[MASTER][f"{data}/accepted/{host}.pub"] = (public, None)
    return files
