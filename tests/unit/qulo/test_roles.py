"""The executables as an operator uses them: in the background, through their PID file, with programs connected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import qulo
from qulo.daemon import pidfile
from qulo.net import curve
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import BIN
from tests.unit.qulo.conftest import until as until_now
from tests.unit.qulo.site import until

ROLES = ["qulod", "qmaster", "qagent"]


@dataclass(slots=True)
class Role:
    """One executable in a place of its own."""

    place: Path
    program: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.place / f"{self.program}.yaml"

    @property
    def pid_file(self) -> Path:
        return self.place / f"{self.program}.pid"

    @property
    def url(self) -> str:
        """Its ipc socket: the same after a restart."""
        return f"ipc://{self.place}/{self.program}.sock"

    @property
    def log(self) -> str:
        path = self.place / f"{self.program}.log"
        return path.read_text() if path.exists() else ""

    @property
    def addresses(self) -> dict[str, str]:
        """What the running daemon says it is bound to."""
        found: dict[str, str] = json.loads((self.place / f"{self.program}.state").read_text())["addresses"]
        return found

    def configure(self, **more: str) -> None:
        """Write the configuration."""
        values = {
            "local": self.url,
            "data_dir": f"{self.place}/{self.program}",
            "pid_file": str(self.pid_file),
            "log_file": f"{self.place}/{self.program}.log",
            "heartbeat": "300ms",
            "curve": "off",
        }
        if os.getuid() == 0:
            values["user"] = "root"  # the default, qulo where that account exists, could not enter the place
        if self.program != "qagent":
            values |= {"listen": "tcp://127.0.0.1:0", "publish": "tcp://127.0.0.1:0"}
        values |= self.settings | more
        new = self.config.with_suffix(".new")
        new.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        new.replace(self.config)  # a daemon that reads it meanwhile finds one or the other

    def run(self, *args: str) -> tuple[int, str, str]:
        """Run the executable to its end: exit code, stdout, stderr."""
        done = subprocess.run(
            [BIN / self.program, "-c", self.config, *args],
            env={"PATH": os.environ["PATH"], "HOME": str(self.place)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        # Not every machine has a syslog; what the daemon says about that is daemon/test_logs.py's business.
        told = [line for line in done.stderr.splitlines(keepends=True) if " no syslog at " not in line]
        return done.returncode, done.stdout, "".join(told)

    def start(self) -> int:
        """Start it in the background; its PID."""
        assert self.run() == (0, "", "")
        return self.pid

    @property
    def pid(self) -> int:
        """Who holds the lock; 0: nobody."""
        return pidfile.holder(str(self.pid_file)) or 0 if self.pid_file.exists() else 0

    def end(self) -> None:
        """Nothing of it is left, whatever the test did."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until_now(lambda: not self.pid)


@pytest.fixture
def roles() -> Iterator[dict[str, Role]]:
    """The three of them in one directory with a short name, configured to find each other."""
    place = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    found = {name: Role(place, name) for name in ROLES}
    found["qagent"].settings = {"name": "host-a", "master": "tcp://127.0.0.1:1"}  # until there is one
    for role in found.values():
        role.configure()
    yield found
    for role in found.values():
        role.end()
    shutil.rmtree(place)


@pytest.fixture
def qulod(roles: dict[str, Role]) -> Role:
    return roles["qulod"]


# -- starting


@pytest.mark.parametrize("name", ROLES)
def test_when_the_command_returns_a_program_can_connect_at_once(roles: dict[str, Role], name: str) -> None:
    role = roles[name]
    pid = role.start()

    async def story() -> None:
        async with qulo.connect(role.url, timeout=1) as bus, bus.subscribe("local.t") as sub:
            assert bus._driver.attempts == 1
            await bus.publish("local.t", 1)
            await sub.next(5)
            listed = await bus.request("$qulo.local.list")
            assert listed["hub"]["name"] == ("host-a" if name == "qagent" else listed["hub"]["name"])

    _run(story())
    assert pid == role.pid
    assert role.run("-s", "status")[1].startswith(f"{name}: running, PID {pid}\n")


@pytest.mark.parametrize("name", ROLES)
def test_a_second_start_is_refused_and_names_the_first(roles: dict[str, Role], name: str) -> None:
    role = roles[name]
    pid = role.start()
    code, out, err = role.run()
    assert (code, out, err) == (69, "", f"{name}: already running: PID {pid} holds the lock of {role.pid_file}\n")

    async def story() -> None:
        async with qulo.connect(role.url):
            pass  # the first one has not noticed

    _run(story())


@pytest.mark.parametrize("key", ["listen", "publish"])
@pytest.mark.parametrize("how", [(), ("-f",)], ids=["background", "foreground"])
def test_a_port_that_is_taken_is_told_by_the_command_itself(qulod: Role, how: tuple[str, ...], key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        qulod.configure(**{key: endpoint})
        code, out, err = qulod.run(*how)
    assert (code, out) == (69, "")
    assert f"qulod: {endpoint} is in use: is another hub running there?\n" in err
    assert not qulod.pid
    assert not list(qulod.place.glob("*.sock*"))


@pytest.mark.parametrize("name", ROLES)
def test_a_bad_configuration_is_told_with_its_place(roles: dict[str, Role], name: str) -> None:
    role = roles[name]
    role.configure(heartbeat="soon")
    line = role.config.read_text().splitlines().index("heartbeat: soon") + 1
    code, out, err = role.run()
    assert (code, out) == (78, "")
    assert err.startswith(f"{name}: {role.config}:{line}:12: heartbeat: expected a duration")
    assert not role.pid_file.exists()


@pytest.mark.parametrize("name", ["qulod", "qmaster"])
def test_a_hub_without_curve_does_not_listen_beyond_this_host(roles: dict[str, Role], name: str) -> None:
    roles[name].configure(listen="tcp://0.0.0.0:0")
    code, _, err = roles[name].run()
    assert code == 78
    assert "tcp://0.0.0.0:0 is not loopback and curve is off" in err


def test_with_curve_the_first_start_makes_the_key(qulod: Role) -> None:
    qulod.configure(curve="on")
    qulod.start()
    keys = qulod.place / "qulod"
    assert (keys / "master.key").stat().st_mode & 0o777 == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700
    made = (keys / "master.pub").read_text()
    assert qulod.run("-s", "stop")[0] == 0
    qulod.start()
    assert (keys / "master.pub").read_text() == made


def test_a_key_that_others_can_read_keeps_the_hub_from_starting(qulod: Role) -> None:
    qulod.configure(curve="on")
    qulod.start()
    assert qulod.run("-s", "stop")[0] == 0
    key = qulod.place / "qulod" / "master.key"
    key.chmod(0o644)
    code, _, err = qulod.run()
    assert (code, err) == (78, f"qulod: {key}: others can read this secret key; run: chmod 600 {key}\n")


# -- ending


@pytest.mark.parametrize("name", ROLES)
def test_stop_ends_it_and_status_says_so(roles: dict[str, Role], name: str) -> None:
    role = roles[name]
    pid = role.start()
    assert role.run("-s", "stop") == (0, f"{name}: PID {pid} has stopped\n", "")
    assert not role.pid
    assert not list(role.place.glob("*.sock*"))
    code, out, _ = role.run("-s", "status")
    assert (code, out) == (3, f"{name}: not running (nobody holds the lock of {role.pid_file})\n")
    assert "Traceback" not in role.log


def test_term_drains_what_was_accepted(qulod: Role) -> None:
    pid = qulod.start()

    async def story() -> None:
        got: list[Any] = []
        async with qulo.connect(qulod.url) as here, qulo.connect(qulod.url) as there:
            await there.subscribe("w", lambda m: got.append(m.body), group="g")
            for number in range(20_000):
                await here.publish("w", number)
            await here.flush()
            os.kill(pid, signal.SIGTERM)
            await until(lambda: not qulod.pid)
            assert got == list(range(20_000))
            await until(lambda: not here.connected)

    _run(story())
    assert "draining for at most 10 s" in qulod.log
    assert qulod.log.rstrip().endswith("stopped")


# -- while programs are connected


def test_reloading_loses_nothing(qulod: Role) -> None:
    pid = qulod.start()

    async def story() -> None:
        got: list[Any] = []
        async with qulo.connect(qulod.url) as here, qulo.connect(qulod.url) as there:
            await there.subscribe("t.>", lambda m: got.append(m.body), on_gap=got.append)
            for number in range(20_000):
                await here.publish(f"t.{number % 10}", number)
                if number % 1000 == 0:
                    await here.flush()
                    qulod.configure(slow_after=f"{5 + number // 1000}s")
                    os.kill(pid, signal.SIGHUP)
            await until(lambda: len(got) >= 20_000)
            assert got == list(range(20_000))
            await until(lambda: "slow_after: " in qulod.log and "-> 24s" in qulod.log)
            assert here.connected

    _run(story())
    assert qulod.pid == pid
    assert "ERROR" not in qulod.log


def test_a_bad_reload_changes_nothing_and_the_log_says_why(qulod: Role) -> None:
    pid = qulod.start()
    qulod.configure(heartbeat="soon")
    assert qulod.run("-s", "reload")[0] == 78
    os.kill(pid, signal.SIGHUP)
    until_now(lambda: "reload refused, what runs stays as it is" in qulod.log)
    assert f"{qulod.config}:5:12: heartbeat" in qulod.log

    async def story() -> None:
        async with qulo.connect(qulod.url) as bus:
            await bus.flush()

    _run(story())


def test_a_key_is_accepted_by_reload(qulod: Role) -> None:
    qulod.configure(curve="on")
    qulod.start()
    keys = qulod.place / "qulod"
    (keys / "accepted").mkdir()
    mine = curve.make_key(qulod.place / "mine.key")
    (keys / "accepted" / "mine.pub").write_bytes(mine.public)
    assert qulod.run("-s", "reload")[0] == 0
    until_now(lambda: "1 keys are accepted" in qulod.log)

    async def story() -> None:
        url, key = qulod.addresses["listen"], qulod.place / "mine.key"
        async with qulo.connect(url, server_key=keys / "master.pub", key=key) as bus:
            await bus.flush()

    _run(story())


@pytest.mark.parametrize("name", ["qulod", "qmaster"])
def test_after_kill_9_and_a_new_start_subscribers_get_a_gap_and_go_on(roles: dict[str, Role], name: str) -> None:
    role = roles[name]
    pid = role.start()

    async def story() -> None:
        async with qulo.connect(role.url) as bus, bus.subscribe("t.>") as sub, bus.subscribe("*.x") as other:
            await bus.respond("r", lambda m: "answer")
            for round_ in range(2):
                await bus.publish("t.x", round_)
                for each in (sub, other):
                    assert body_of(await each.next(5)) == round_
                os.kill(role.pid, signal.SIGKILL)
                await until(lambda: not bus.connected)
                assert await asyncio.to_thread(role.start) != pid
                for each in (sub, other):
                    gap = await each.next(15)
                    assert isinstance(gap, qulo.Gap)
                    assert gap.reason == "restart"
                assert await bus.request("r") == "answer"
            await bus.publish("t.x", "after")
            for each in (sub, other):
                assert body_of(await each.next(5)) == "after"
                assert each.gaps == 2

    _run(story(), timeout=60)


def body_of(item: qulo.Message | qulo.Gap) -> Any:
    """The body; a gap shows as itself."""
    return item.body if isinstance(item, qulo.Message) else item


def test_an_agent_and_its_master_are_started_in_any_order(roles: dict[str, Role]) -> None:
    agent, master = roles["qagent"], roles["qmaster"]
    ports = [free_port(), free_port()]
    master.configure(listen=f"tcp://127.0.0.1:{ports[0]}", publish=f"tcp://127.0.0.1:{ports[1]}")
    agent.configure(master=f"tcp://127.0.0.1:{ports[0]}")
    agent.start()

    async def story() -> None:
        async with qulo.connect(agent.url) as down:
            with pytest.raises(qulo.Disconnected):
                await down.request("r")
            await asyncio.to_thread(master.start)
            async with qulo.connect(master.url) as up, up.respond("r", lambda m: "from above"):
                begin = time.monotonic()
                while True:
                    with contextlib.suppress(qulo.Disconnected):
                        assert await down.request("r") == "from above"
                        break
                    assert time.monotonic() - begin < 15
                    await asyncio.sleep(0.02)
                async with down.subscribe("t") as sub:
                    await up.publish("t", 1)
                    assert body_of(await sub.next(5)) == 1
                os.kill(master.pid, signal.SIGTERM)
                await until(lambda: not master.pid)
                with pytest.raises(qulo.Disconnected):
                    await down.request("r")

    _run(story(), timeout=60)
    assert "Traceback" not in agent.log + master.log


def free_port() -> int:
    """A port that was free just now: an agent has to be told it before its master has one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
