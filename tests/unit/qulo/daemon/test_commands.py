"""`-s` where the daemon is not this user's, or not of this world. The rest is in test_runner.py."""

from __future__ import annotations

import os
import signal

import pytest

from qulo.daemon import commands, pidfile
from tests.unit.qulo.daemon.conftest import Toy, python


def test_a_daemon_in_another_pid_namespace_is_not_signalled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pidfile, "holder", lambda _path: 0)  # kill(0, ...) would end these tests
    assert commands.run("qmaster", "stop", "/none.pid", 1.0) == 1
    assert "another PID namespace" in capsys.readouterr().err
    assert commands.run("qmaster", "status", "/none.pid", 1.0) == 0
    assert capsys.readouterr().out == "qmaster: starting, PID not visible from here\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_daemon_is_left_alone(toy: Toy) -> None:
    toy.place.chmod(0o755)
    toy.run()
    code = """
import os, sys
from qulo.daemon import commands
os.setuid(65534)
try:
    commands.run("qmaster", "stop", sys.argv[1], 1.0)
except PermissionError as error:
    print(error)
"""
    done = python(code, str(toy.pid_file))
    assert done.stdout == f"PID {toy.pid()} belongs to somebody else: not permitted to stop it\n"


def test_waiting_is_bounded(toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "_STOP_BOUND", 0.1)
    toy.run()
    pid = toy.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    assert commands.run("qmaster", "stop", str(toy.pid_file), 1.0) == 1
    assert f"PID {pid} still runs after 0.1 s" in capsys.readouterr().err
    os.kill(pid, signal.SIGCONT)
