"""`qulo ping`, the real program, with a real agent under the hub: answering, stopped, and gone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qulo.cli import ping
from tests.unit.qulo.conftest import PATIENCE, Hub, until

HOST = "ping-web1"


def _peer(hub: Hub) -> dict[str, Any]:
    """The agent's latest session, as the hub lists it."""
    peers = hub.bus.request("$qulo.list", {})["peers"]
    found: dict[str, Any] = min((peer for peer in peers if peer["name"] == HOST), key=lambda peer: peer["seen"])
    return found


@pytest.fixture
def qulod(hub: Hub) -> str:
    """The hub's name: it is a host itself."""
    name: str = hub.bus.request("$qulo.list", {})["hub"]["name"]
    return name


def _answers(hub: Hub) -> bool:
    return HOST in [answer["name"] for answer in hub.bus.request_many("$qulo.ping", timeout=1)]


@pytest.fixture
def agent(hub: Hub, short_place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A qagent whose master is the hub."""
    config = short_place / "qagent.yaml"
    values = {"name": HOST, "master": hub.addresses["listen"], "local": f"ipc://{short_place}/agent.sock"}
    values |= {"data_dir": f"{short_place}/data", "heartbeat": "200ms", "curve": "off"}
    values |= {each: f"{short_place}/qagent.{each[:3]}" for each in ("pid_file", "log_file")}
    values |= {"user": "root"} if os.getuid() == 0 else {}  # the default could not enter the place
    config.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    process = hub.start("qagent", "-f", "-c", str(config))
    until(lambda: _answers(hub))
    yield process
    os.kill(process.pid, signal.SIGCONT)
    process.terminate()
    process.communicate(timeout=PATIENCE)


@pytest.fixture
def stopped(hub: Hub, agent: subprocess.Popen[bytes]) -> str:
    """The name of an agent that hangs, and the hub has noticed."""
    os.kill(agent.pid, signal.SIGSTOP)
    until(lambda: _peer(hub)["state"] == "suspect")
    return HOST


def test_hosts_answer_each_on_a_line(hub: Hub, qulod: str, agent: subprocess.Popen[bytes]) -> None:
    done = hub.run("qulo", "ping", "--expect", "2")
    *lines, head, numbers = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr, head) == (0, b"", "---- ping statistics ----")
    assert sorted(re.sub(r"\d+\.\d\d", "N", line) for line in lines) == sorted(
        [f"{HOST} time=N ms", f"{qulod} time=N ms"]
    )
    assert re.fullmatch(r"2 replies min/avg/max = \d+\.\d/\d+\.\d/\d+\.\d ms", numbers)


def test_json_is_an_object_per_line(hub: Hub, agent: subprocess.Popen[bytes]) -> None:
    done = hub.run("qulo", "ping", "ping-*", "--json", "--expect", "1")
    reply, statistics = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, b"")
    assert (reply["type"], reply["name"], reply["version"][:2]) == ("reply", HOST, "0.")
    took = reply["time"]
    assert statistics == {
        "type": "statistics", "replies": 1, "missing": 0, "expected": 1, "min": took, "avg": took, "max": took,
    }  # fmt: skip


def test_fewer_than_expected_is_3(hub: Hub, qulod: str) -> None:
    done = hub.run("qulo", "ping", qulod, "--expect", "3")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.endswith(b"\nexpected: 3, 2 fewer replied\n")


def test_who_hangs_is_missing_and_3(hub: Hub, stopped: str) -> None:
    done = hub.run("qulo", "ping", "ping-*", "--timeout", "0.3")
    assert (done.returncode, done.stderr) == (3, b"")
    pattern = rf"---- ping statistics ----\n0 replies\nmissing: {stopped} \(last seen \d+\.\d s ago, suspect\)\n"
    assert re.fullmatch(pattern, done.stdout.decode())
    done = hub.run("qulo", "ping", "ping-*", "--timeout", "0.3", "--json")
    missing, statistics = map(json.loads, done.stdout.splitlines())
    assert (missing["type"], missing["name"], missing["state"]) == ("missing", stopped, "suspect")
    assert missing["seen"] > 0.4
    assert (statistics["replies"], statistics["missing"], statistics["min"]) == (0, 1, None)


def test_a_name_that_has_answered_does_not_wait_for_who_hangs(hub: Hub, qulod: str, stopped: str) -> None:
    done = hub.run("qulo", "ping", qulod, "--timeout", "60")  # longer than the test would wait for it
    assert (done.returncode, done.stdout.count(b"time=")) == (0, 1)


@pytest.mark.parametrize("code", [0, 3])
def test_ctrl_c_shows_what_was_seen(hub: Hub, qulod: str, stopped: str, code: int) -> None:
    target = f"[{qulod[0]}]{qulod[1:]}" if code == 0 else "*"
    process = hub.start("qulo", "ping", target, "--timeout", "20")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{qulod} time=".encode())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, b"")
    assert out.startswith(b"---- ping statistics ----\n1 reply min/avg/max = ")
    assert (stopped.encode() in out) == (code == 3)


def test_who_is_gone_is_missing(hub: Hub, agent: subprocess.Popen[bytes]) -> None:
    agent.kill()
    until(lambda: _peer(hub)["state"] != "up")
    done = hub.run("qulo", "ping", HOST, "--timeout", "0.3")
    assert (done.returncode, done.stdout.count(HOST.encode())) == (3, 1)


def test_no_match_is_4(hub: Hub) -> None:
    done = hub.run("qulo", "ping", "ping-nobody*", "--expect", "3", "--timeout", "0.3")
    assert (done.returncode, done.stdout.count(b"0 replies")) == (4, 1)
    assert done.stderr == b"qulo: no host matches 'ping-nobody*': nobody to ask\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3 s"), (12.2, "12 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (1e6, "12 d")]
)
def test_long_ago_needs_no_tenths(seconds: float, text: str) -> None:
    assert ping._ago(seconds) == text
