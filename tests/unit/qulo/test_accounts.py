"""The executables under other accounts, tighter limits and fuller disks than those of whoever develops them."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qulo
from qulo.daemon import pidfile
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import BIN
from tests.unit.qulo.conftest import until as until_now
from tests.unit.qulo.site import until
from tests.unit.qulo.test_roles import Role

FULL = Path("/dev/full")

# Imports first: the interpreter may be in a directory that only root can enter.
_ORDINARY = """
import os, sys
import encodings.ascii, qulo.qulod, qulo.cli, qulo.cli.pub, qulo.cli.sub, qulo.sync
program, sys.argv = sys.argv[1], sys.argv[1:]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(int(os.environ["AS_GID"]))
    os.setuid(int(os.environ["AS_UID"]))
sys.exit({"qulod": qulo.qulod.main, "qulo": qulo.cli.main}[program]())
"""


def ordinary(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run an executable to its end as an ordinary user: nobody for root, else whoever runs the tests."""
    nobody = pwd.getpwnam("nobody")
    return subprocess.run(
        [sys.executable, "-c", _ORDINARY, *argv],
        env={"PATH": os.environ["PATH"], "AS_UID": f"{nobody.pw_uid}", "AS_GID": f"{nobody.pw_gid}"} | environ,
        cwd=Path(qulo.__file__).parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def hand_over(path: Path) -> Path:
    """Make the directory `path`, the ordinary user's own."""
    path.mkdir()
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return path


@pytest.fixture
def home(short_place: Path) -> Path:
    """A directory of the ordinary user."""
    short_place.chmod(0o755)
    return hand_over(short_place / "home")


@pytest.fixture
def qulod(home: Path) -> Iterator[Role]:
    role = Role(home, "qulod")
    role.configure()
    yield role
    role.end()


@pytest.mark.parametrize("key", ["pid_file", "data_dir"])
def test_a_directory_an_ordinary_user_cannot_write_to_is_said_by_the_command(qulod: Role, key: str) -> None:
    sealed = hand_over(qulod.place / "sealed")
    sealed.chmod(0o555)
    value = sealed / "qulod.pid" if key == "pid_file" else sealed
    qulod.configure(user="null", **{key: str(value)})
    qulod.config.chmod(0o644)
    done = ordinary("qulod", "-c", str(qulod.config), HOME=str(qulod.place))
    assert (done.returncode, done.stdout) == (73, "")
    uid = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else os.getuid()
    why = {
        "pid_file": "cannot be made: Permission denied",
        "data_dir": f"is not writable for user {uid}: chown it, or configure another one",
    }
    assert done.stderr == f"qulod: {value} {why[key]}\n"
    assert not qulod.pid
    assert not list(sealed.iterdir())


def test_an_ordinary_user_needs_no_configuration_at_all(home: Path) -> None:
    places = {
        "XDG_RUNTIME_DIR": str(hand_over(home / "run")),
        "XDG_CONFIG_HOME": f"{home}/etc",
        "XDG_DATA_HOME": f"{home}/data",
        "XDG_STATE_HOME": f"{home}/state",
        "HOME": str(home),
    }
    pid_file = home / "run" / "qulo" / "qulod.pid"
    ports = {"QULO_LISTEN": "tcp://127.0.0.1:0", "QULO_PUBLISH": "tcp://127.0.0.1:0"}
    try:
        started = ordinary("qulod", **places, **ports)
        assert (started.returncode, started.stdout) == (0, ""), started.stderr

        async def story() -> None:
            async with qulo.connect(f"ipc://{home}/run/qulo/agent.sock") as bus, bus.subscribe("t") as sub:
                done = await asyncio.to_thread(ordinary, "qulo", "pub", "t", "good morning", **places)
                assert (done.returncode, done.stderr) == (0, "")
                message = await sub.next(5)
                assert isinstance(message, qulo.Message)
                assert message.body == b"good morning"

        _run(story())
        told = ordinary("qulod", "-s", "stop", **places)
        assert (told.returncode, told.stderr) == (0, "")
    finally:
        if pid_file.exists() and (pid := pidfile.holder(str(pid_file))):
            os.kill(pid, signal.SIGKILL)
            until_now(lambda: not pidfile.holder(str(pid_file)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_hub_that_gave_up_root_serves_and_has_nothing_to_regain_it_with(qulod: Role) -> None:
    qulod.configure(user="nobody", curve="on")
    qulod.config.chmod(0o644)
    pid = qulod.start()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
    nobody = pwd.getpwnam("nobody")
    assert status["Uid"] == [f"{nobody.pw_uid}"] * 4
    assert status["Gid"] == [f"{nobody.pw_gid}"] * 4
    assert "0" not in status["Groups"]
    assert {int(status[kind][0], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (qulod.place / "qulod" / "master.key").stat().st_uid == nobody.pw_uid

    async def story() -> None:
        async with qulo.connect(qulod.url) as bus, bus.subscribe("t") as sub:
            for signaled in (signal.SIGHUP, signal.SIGUSR1):
                os.kill(pid, signaled)
            await until(lambda: "reloaded" in qulod.log and "log reopened" in qulod.log)
            await bus.publish("t", 1)
            assert isinstance(await sub.next(5), qulo.Message)

    _run(story())
    assert qulod.run("-s", "stop")[0] == 0
    assert not list(qulod.place.glob("*.sock*"))
    assert "ERROR" not in qulod.log


@pytest.mark.parametrize(("option", "limit"), [("-n", 64), ("-Sn", 256)])
def test_a_hub_may_open_as_many_files_as_it_is_allowed_or_says_that_they_are_too_few(
    qulod: Role, option: str, limit: int
) -> None:
    line = f'ulimit {option} {limit} && exec "$0" "$@"'
    argv = ["sh", "-c", line, str(BIN / "qulod"), "-c", str(qulod.config)]
    started = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, text=True)
    if option == "-n":
        assert started.returncode == 1
        assert f"only {limit} files may be open" in started.stderr
        assert "LimitNOFILE" in started.stderr
        return
    assert started.returncode == 0
    limits = Path(f"/proc/{qulod.pid}/limits").read_text().splitlines()
    (soft, hard) = next(each for each in limits if each.startswith("Max open files")).split()[3:5]
    assert soft == hard


def test_a_full_disk_stops_the_log_and_nothing_else(qulod: Role) -> None:
    mode = FULL.stat().st_mode
    qulod.configure(log_file=str(FULL))
    pid = qulod.start()

    async def story() -> None:
        async with qulo.connect(qulod.url) as here, qulo.connect(qulod.url) as there, there.subscribe("t") as sub:
            # The last one lets it have a log again.
            for number, change in enumerate([{}, {"slow_after": "99s"}, {"log_file": f"{qulod.place}/qulod.log"}]):
                qulod.configure(**{"log_file": str(FULL)} | change)
                for signaled in (signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR1):
                    os.kill(pid, signaled)
                    await here.publish("t", [number, signaled])
                    found = await sub.next(5)
                    assert isinstance(found, qulo.Message)
                    assert found.body == [number, signaled]
            await until(lambda: "log reopened" in qulod.log)

    try:
        _run(story())
        assert qulod.pid == pid
        assert qulod.run("-s", "stop")[0] == 0
    finally:
        assert FULL.stat().st_mode == mode


def test_of_twenty_starts_at_once_one_wins_and_the_others_name_it(qulod: Role) -> None:
    qulod.pid_file.write_text("1\n")  # of somebody else who lives: the lock counts, not the number
    argv = [str(BIN / "qulod"), "-c", str(qulod.config)]
    starts = [
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    said = [start.communicate(timeout=60)[1] for start in starts]
    assert sorted(start.returncode for start in starts) == [0] + [69] * 19
    assert sum("already running" in each for each in said) == 19
    assert qulod.pid > 1
