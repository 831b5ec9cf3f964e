"""qagent as it is shipped: a network process without privileges, an executor with them, and how each one ends."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import qulo
from qulo import qagent
from qulo.config import load
from qulo.daemon.control import Control, Event
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import BIN, until
from tests.unit.qulo.site import until as until_async
from tests.unit.qulo.test_roles import Role, free_port

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root has privileges to separate")

# Seconds in which an executor is gone after its agent, and the other way round is noticed.
AT_ONCE = 1.0

SETPRIV = shutil.which("setpriv")


@dataclass(slots=True)
class Agent(Role):
    """A qagent, and its executor."""

    @property
    def executor(self) -> int:
        """The executor's PID, as `-s status` shows it."""
        said = self.addresses["executor"]
        assert said.endswith(f", user {os.getuid()}"), said
        return int(said.removeprefix("PID ").partition(",")[0])

    @property
    def shown(self) -> str:
        """What `-s status` says of it."""
        _, out, _ = self.run("-s", "status")
        return next(line for line in out.splitlines() if line.startswith("  executor: ")).removeprefix("  executor: ")


def lives(pid: int) -> bool:
    """Does the process run? One that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends_at_once(pid: int) -> None:
    deadline = time.monotonic() + AT_ONCE
    while lives(pid):
        assert time.monotonic() < deadline, "the executor still runs"
        time.sleep(0.005)


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, value in (line.split(":", 1) for line in lines)}


def children_of(pid: int) -> list[int]:
    return [int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a daemon that is not root can work, too."""
    path = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    if os.getuid() == 0:
        path.chmod(0o755)
        (path / "home").mkdir()
        nobody = pwd.getpwnam("nobody")
        os.chown(path / "home", nobody.pw_uid, nobody.pw_gid)
    else:
        (path / "home").mkdir()
    yield path / "home"
    shutil.rmtree(path)


@pytest.fixture
def agent(place: Path) -> Iterator[Agent]:
    agent = Agent(place, "qagent", {"name": "host-a", "master": f"tcp://127.0.0.1:{free_port()}"})
    if os.getuid() == 0:
        agent.settings["user"] = "nobody"
    agent.configure()
    yield agent
    agent.end()


def local_list(agent: Agent) -> dict[str, Any]:
    """What the agent tells of itself; it serves."""

    async def ask() -> dict[str, Any]:
        async with qulo.connect(agent.url) as bus, bus.subscribe("local.t") as sub:
            await bus.publish("local.t", 1)
            assert isinstance(await sub.next(5), qulo.Message)
            found: dict[str, Any] = (await bus.request("$qulo.local.list"))["hub"]
            return found

    return _run(ask())


# -- who has what


@as_root
def test_the_network_process_has_given_up_root_and_the_executor_has_it(agent: Agent) -> None:
    pid = agent.start()
    nobody = pwd.getpwnam("nobody")
    network, executor = status_of(pid), status_of(agent.executor)
    assert network["Uid"] == [f"{nobody.pw_uid}"] * 4
    assert network["Gid"] == [f"{nobody.pw_gid}"] * 4
    assert "0" not in network["Groups"]
    assert {int(network[kind][0], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (executor["Uid"], executor["Gid"]) == (["0"] * 4, ["0"] * 4)
    assert executor["PPid"] == [f"{pid}"]
    assert executor["CapEff"] == status_of(os.getpid())["CapEff"]


@as_root
def test_with_the_network_processes_rights_nothing_of_the_executor_can_be_touched(agent: Agent) -> None:
    """Everything but its socket: signals, its memory, its descriptors, its priority."""
    agent.start()
    code = """
import os, signal, sys
pid = int(sys.argv[1]); os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
attempts = {
    "kill": lambda: os.kill(pid, 9),
    "stop": lambda: os.kill(pid, 19),
    "memory": lambda: open(f"/proc/{pid}/mem", "r+b"),
    "descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
    "environment": lambda: open(f"/proc/{pid}/environ").read(),
    "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9),
    "scheduler": lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        continue
    print("could", name)
"""
    nobody = pwd.getpwnam("nobody")
    argv = [sys.executable, "-c", code, f"{agent.executor}", f"{nobody.pw_uid}", f"{nobody.pw_gid}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert lives(agent.executor)


def test_the_executor_has_its_socket_and_nothing_of_what_the_agent_has(agent: Agent) -> None:
    with open("/dev/null", "rb") as kept:  # what a careless shell leaves open, in the foreground, too
        os.set_inheritable(kept.fileno(), True)
        argv = [str(BIN / "qagent"), "-f", "-c", str(agent.config)]
        environ = {"PATH": os.environ["PATH"], "HOME": "/", "SECRET": "x", "PYTHONPATH": "/nowhere", "LC_ALL": "C"}
        with subprocess.Popen(argv, env=environ, pass_fds=[kept.fileno()], stderr=subprocess.PIPE) as process:
            try:
                until((agent.place / "qagent.state").exists)
                pid = agent.executor
                files = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            finally:
                process.terminate()
                process.communicate(timeout=10)
    assert [files.pop(name) for name in "012"] == ["/dev/null"] * 3
    assert [target.partition(":")[0] for target in files.values()] == ["socket"]
    assert environment == b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0LANG=C\0"
    assert not lives(pid)


@pytest.mark.skipif(os.getuid() == 0 and not SETPRIV, reason="root needs setpriv to start it as an ordinary user")
def test_both_are_an_ordinary_users_when_no_root_started_them(agent: Agent) -> None:
    agent.settings.pop("user", None)
    agent.configure(user="null")
    agent.config.chmod(0o644)
    argv = [str(BIN / "qagent"), "-c", str(agent.config)]
    nobody = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    if os.getuid() == 0:
        # The capability is for the interpreter, which may be in a directory that only root can enter.
        seeing = [f"--{each}-caps=-all,+dac_read_search" for each in ("inh", "ambient")]
        become = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        argv = [str(SETPRIV), *become, *seeing, *argv]
    environ = {"PATH": os.environ["PATH"], "HOME": str(agent.place)}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert agent.addresses["executor"].endswith(f", user {nobody.pw_uid}")
    (executor,) = children_of(agent.pid)
    assert status_of(executor)["Uid"] == status_of(agent.pid)["Uid"] == [f"{nobody.pw_uid}"] * 4
    assert local_list(agent)["executor"] == "ok"
    assert "runs as root" not in agent.log


# -- how they end


def test_kill_9_of_the_agent_ends_its_executor_and_the_next_start_works(agent: Agent) -> None:
    for _ in range(2):
        pid = agent.start()
        executor = agent.executor
        assert children_of(pid) == [executor]
        os.kill(pid, signal.SIGKILL)
        ends_at_once(executor)
        until(lambda: not agent.pid)


@pytest.mark.parametrize("command", ["stop", "drain"])
def test_when_the_command_returns_the_executor_is_gone_too(agent: Agent, command: str) -> None:
    agent.start()
    executor = agent.executor
    assert agent.run("-s", command)[0] == 0
    assert not lives(executor)
    assert "WARNING qulo.fleet" not in agent.log
    assert "ERROR" not in agent.log


def test_in_the_foreground_a_ctrl_c_for_the_whole_group_ends_both_in_order(agent: Agent) -> None:
    argv = [str(BIN / "qagent"), "-f", "-c", str(agent.config)]
    with subprocess.Popen(argv, start_new_session=True, stderr=subprocess.PIPE) as process:
        until((agent.place / "qagent.state").exists)
        executor = agent.executor
        os.killpg(process.pid, signal.SIGINT)
        os.kill(executor, signal.SIGINT)  # as a supervisor does, that signals every process of a unit
        os.kill(executor, signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 0
    assert not lives(executor)
    assert "ERROR" not in agent.log


# qagent, which notes the PID of each executor that it starts.
_RECORDING = """
import sys
from dataclasses import replace
from qulo import qagent
def start():
    executor = qagent.Executor.start()
    with open(record, "a") as file:
        file.write(f"{executor.pid}\\n")
    return executor
record = sys.argv.pop(1)
qagent.PROGRAM = replace(qagent.PROGRAM, beside=start)
sys.exit(qagent.main())
"""


def recording(agent: Agent, *args: str) -> subprocess.Popen[bytes]:
    """Start the agent; `recorded` tells of which executors."""
    argv = [sys.executable, "-c", _RECORDING, f"{agent.place}/executors", "-c", str(agent.config), *args]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def recorded(agent: Agent) -> list[int]:
    return [int(line) for line in (agent.place / "executors").read_text().splitlines()]


def test_a_second_start_leaves_the_first_ones_executor_and_makes_none(agent: Agent) -> None:
    assert recording(agent).wait(30) == 0
    pid = agent.pid
    assert [recording(agent).wait(30) for _ in range(3)] == [69] * 3
    assert agent.pid == pid  # the lock is still held: fork and exec left it alone
    assert recorded(agent) == children_of(pid) == [agent.executor]
    assert lives(agent.executor)


def test_of_ten_starts_at_once_one_makes_an_executor(agent: Agent) -> None:
    starts = [recording(agent) for _ in range(10)]
    assert sorted(start.wait(60) for start in starts) == [0] + [69] * 9
    assert recorded(agent) == children_of(agent.pid) == [agent.executor]


@pytest.mark.parametrize("how", [(), ("-f",)], ids=["background", "foreground"])
def test_a_start_that_fails_later_leaves_no_executor(agent: Agent, how: tuple[str, ...]) -> None:
    (agent.place / "log" / "qagent.log").mkdir(parents=True)
    agent.configure(log_file=f"{agent.place}/log")  # found before the loop runs
    assert recording(agent, *how).wait(30) == 73
    with socket.create_server(("127.0.0.1", 0)) as taken:  # found in it
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        agent.configure(listen=endpoint, publish="tcp://127.0.0.1:0")
        assert recording(agent, *how).wait(30) == 69
    assert len(recorded(agent)) == 2
    for executor in recorded(agent):
        ends_at_once(executor)


@pytest.mark.parametrize("how", [(), ("-f",)], ids=["background", "foreground"])
def test_an_executor_that_does_not_start_is_said_by_the_command(agent: Agent, how: tuple[str, ...]) -> None:
    code = "import sys; from qulo import qagent; sys.executable = '/bin/false'; sys.exit(qagent.main())"
    argv = [sys.executable, "-c", code, "-c", str(agent.config), *how]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert (
        "the executor does not start (exit code 1); `/bin/false -I -m qulo.fleet.executor` may say more" in done.stderr
    )
    assert not agent.pid
    assert "did not start: the executor does not start" in agent.log


# -- life without


def test_without_its_executor_an_agent_serves_on_and_everybody_is_told(agent: Agent, place: Path) -> None:
    master = Role(place, "qmaster", {"listen": agent.settings["master"]})
    master.configure()
    try:
        master.start()
        pid = agent.start()
        executor = agent.executor

        async def story() -> None:
            async with qulo.connect(master.url) as up, qulo.connect(agent.url) as down, down.subscribe("t") as sub:

                async def pong() -> dict[str, Any]:
                    found = [answer async for answer in up.request_many("$qulo.ping", timeout=1)]
                    return found[0] if found else {}

                await _until_answer(pong, {"name": "host-a", "version": qulo.__version__, "executor": "ok"})
                os.kill(executor, signal.SIGKILL)
                await until_async(lambda: "executor" in agent.addresses and agent.addresses["executor"] == "lost")
                assert (await pong())["executor"] == "lost"
                await up.publish("t", "still here")
                found = await sub.next(5)
                assert isinstance(found, qulo.Message)
                assert found.body == "still here"

        _run(story())
        assert agent.pid == pid
        assert local_list(agent)["executor"] == "lost"
        assert agent.shown == "lost"
        until(lambda: "is gone (killed by signal 9)" in agent.log)
        os.kill(pid, signal.SIGUSR2)
        until(lambda: '"executor":"lost"' in agent.log)
        (line,) = [line for line in agent.log.splitlines() if " ERROR " in line]
        assert line.endswith("no job can run until this agent is restarted; messaging goes on")
        assert not children_of(pid)  # no zombie
        _listed_and_pinged(master, agent)
        assert agent.run("-s", "stop")[0] == 0
        agent.start()
        assert agent.shown == f"PID {agent.executor}, user {os.getuid()}"
        assert agent.executor != executor
    finally:
        master.end()


async def _until_answer(ask: Any, wanted: dict[str, Any]) -> None:
    deadline = time.monotonic() + 15
    while (found := await ask()) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


def _listed_and_pinged(master: Role, agent: Role) -> None:
    def program(*argv: str) -> str:
        done = subprocess.run([BIN / argv[0], *argv[1:]], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    lines = program("qulo", "ping", "-u", master.url).splitlines()
    assert lines[0].startswith("host-a time=")
    assert lines[0].endswith(" ms  its executor is lost")
    reply = json.loads(program("qulo", "ping", "-u", master.url, "--json").splitlines()[0])
    assert (reply["name"], reply["executor"]) == ("host-a", "lost")
    assert ", its executor is lost; " in program("qulolist", "--local", "-u", agent.url).splitlines()[0]
    assert "executor" not in program("qulolist", "-u", master.url).splitlines()[0]


def test_an_agent_tells_its_syslog_of_a_lost_executor(agent: Agent) -> None:
    code = """
import os, sys
from qulo import qagent
from qulo.daemon import logs
logs.DEV_LOG = sys.argv.pop(1)
sys.exit(qagent.main())
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(f"{agent.place}/dev-log")
        (agent.place / "dev-log").chmod(0o666)
        syslog.settimeout(10)
        argv = [sys.executable, "-c", code, f"{agent.place}/dev-log", "-c", str(agent.config)]
        assert subprocess.run(argv, timeout=30, check=False).returncode == 0
        pid = agent.pid
        os.kill(agent.executor, signal.SIGKILL)
        line = syslog.recv(4096).decode()
    assert line.startswith(f"<27>qagent[{pid}]: qulo.fleet.handle: the executor, PID ")


def test_nobody_is_let_in_before_the_agent_knows_that_it_has_a_master(short_place: Path) -> None:
    """A subscription that was served before would never be asked for above, and nobody would notice."""
    here = short_place / "agent.sock"
    seen: list[bool] = []

    class Slow:
        """An executor that takes its time to answer."""

        state, pid, uid, changed = "ok", 1, 0, None

        async def attach(self, *_: float) -> None:
            await asyncio.sleep(0.05)
            seen.append(here.exists())

        async def close(self) -> None:
            pass

    config = short_place / "qagent.yaml"
    values = {"local": f"ipc://{here}", "data_dir": str(short_place), "pid_file": f"{short_place}/p", "curve": "off"}
    config.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))

    async def story() -> None:
        settings = load("qagent", str(config), environ={}, uid=0)
        ready = asyncio.Event()
        control = Control(lambda _: ready.set(), None, Slow())
        serving = asyncio.create_task(qagent.serve(settings, control))
        await ready.wait()
        assert here.exists()
        control.put(Event("stop"))
        await serving

    _run(story())
    assert seen == [False]
