"""Every example runs as it stands, against a real hub; a file in examples/ without a test here fails."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from qulo.client import Message
from tests.unit.qulo.conftest import PATIENCE, Hub

EXAMPLES = Path(__file__).parents[3] / "examples"


def _argv(name: str, *argv: str) -> tuple[str, ...]:
    return (sys.executable, str(EXAMPLES / f"{name}.py"), *argv)


def _run(hub: Hub, name: str, *argv: str) -> str:
    done = hub.run(*_argv(name, *argv))
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def _end(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    return out.decode()


def _publish_and_subscribe(hub: Hub) -> None:
    subscriber = hub.start_listening(*_argv("subscribe", "--count", "2"))
    assert _run(hub, "publish", "--count", "2") == "published 2 messages on sensors.kitchen\n"
    assert _end(subscriber).splitlines() == [
        "sensors.kitchen {'number': 0, 'celsius': 20.0}",
        "sensors.kitchen {'number': 1, 'celsius': 20.1}",
    ]


def _request_reply(hub: Hub) -> None:
    lines = _run(hub, "request_reply", "--url", hub.url).splitlines()
    assert lines[0].startswith("load: {'1 min': ")
    assert lines[1:] == [
        "refused: ValueError: expected 'load', got 'weather'",
        "then: nobody answers requests on host.load",
    ]


def _log_follower(hub: Hub) -> None:
    log = hub.place / "my app.log"
    log.write_text("old\nfirst\n")
    with hub.bus.subscribe("logs.>") as sub:
        follower = hub.start(*_argv("log_follower", str(log), "--from-start", "--count", "4"))
        got = [sub.next(PATIENCE), sub.next(PATIENCE)]
        log.rename(hub.place / "my app.log.1")
        log.write_text("after rotation\n")
        got.append(sub.next(PATIENCE))
        with log.open("w") as truncated:
            truncated.write("cut\n")
        got.append(sub.next(PATIENCE))
    assert [item.body for item in got if isinstance(item, Message)] == [
        b"old",
        b"first",
        b"after rotation",
        b"cut",
    ]
    assert _end(follower) == f"publishing {log} on logs.my-app\n"


def _host_metrics(hub: Hub) -> None:
    with hub.bus.subscribe("host.metrics.*") as sub:
        assert "published 2 messages" in _run(hub, "host_metrics", "--count", "2", "--interval", "0.05")
        message = sub.next(PATIENCE)
    assert isinstance(message, Message)
    assert message.body.keys() == {"time", "load", "cpu_percent", "memory", "network"}
    assert 0 < message.body["memory"]["available"] <= message.body["memory"]["total"]


def _worker_group(hub: Hub) -> None:
    shares = re.findall(r"worker \d did (\d+) jobs", _run(hub, "worker_group", "--jobs", "9"))
    assert sum(map(int, shares)) == 9


def _blocking_client(hub: Hub) -> None:
    assert _run(hub, "blocking_client").splitlines() == [
        "7 squared is 49",
        "Message('blocking.first', 'one', {})",
        "Message('blocking.second', 'two', {})",
        "nothing came on blocking.> within 0.1 s",
    ]


def _orders(hub: Hub) -> None:
    hub.bus.request("$qulo.stream.add", {"name": "ORDERS", "topics": ["orders.>"], "keep": "work"})
    try:
        assert _run(hub, "order_putter") == "10 orders are stored, 0 were there already\n"
        assert _run(hub, "order_putter") == "0 orders are stored, 10 were there already\n"
        assert _run(hub, "order_worker", "--orders", "10").splitlines() == [
            "orders.new 5: order 4 has no address",
            "orders.new 10: order 9 has no address",
            "10 orders are done with",
        ]
        letters = hub.bus.request("$qulo.stream.dead.ls", {})["letters"]
        assert [letter["reason"] for letter in letters] == ["order 4 has no address", "order 9 has no address"]
        for letter in letters:
            hub.bus.request("$qulo.stream.dead.purge", {"number": letter["number"]})
    finally:
        hub.bus.request("$qulo.stream.rm", {"stream": "ORDERS"})
    done = hub.run(*_argv("order_putter"))
    assert (done.returncode, done.stderr[:15]) == (1, b"no stream yet: ")


def _runs(pid: int) -> bool:
    try:
        # Of a process that ended and was not waited for yet (the daemon is init's child) nothing else is left.
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def _demo(hub: Hub) -> None:
    done = hub.run(*_argv("demo"))
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert out.endswith("demo: done; nothing was left behind\n")
    place = re.search(r"qulod -c (/tmp/qulo-\S+)/qulod.yaml", out)
    assert place is not None
    assert not Path(place[1]).exists()
    pid = re.search(r"qulod: PID (\d+) has stopped", out)
    assert pid is not None
    assert not _runs(int(pid[1]))


EACH: dict[str, Callable[[Hub], None]] = {
    "publish": _publish_and_subscribe,
    "subscribe": _publish_and_subscribe,
    "request_reply": _request_reply,
    "log_follower": _log_follower,
    "host_metrics": _host_metrics,
    "worker_group": _worker_group,
    "blocking_client": _blocking_client,
    "order_putter": _orders,
    "order_worker": _orders,
    "demo": _demo,
}


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == EACH.keys()


@pytest.mark.parametrize("test", dict.fromkeys(EACH.values()), ids=lambda test: test.__name__.strip("_"))
def test_an_example_does_what_it_says(hub: Hub, test: Callable[[Hub], None]) -> None:
    test(hub)


def test_a_demo_that_fails_names_the_step_and_shows_the_log(hub: Hub, tmp_path: Path) -> None:
    # Its examples are beside it; here one of them is broken.
    for path in EXAMPLES.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "host_metrics.py").write_text("raise SystemExit(9)\n")
    done = hub.run(sys.executable, str(tmp_path / "demo.py"))
    err = done.stderr.decode()
    assert done.returncode == 1
    assert "demo: failed: publish what this host is doing: " in err
    assert "INFO qulo.daemon.runner: qulod" in err
    assert "has stopped" in done.stdout.decode()


# -- the follower by itself: what depends on the moment at which it looks


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_follower_publishes_whole_lines_of_whatever_file_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    follower = _module("log_follower").Follower(path, from_start=False)
    assert list(follower.lines()) == []  # not there yet
    path.write_bytes(b"one\nhal")
    assert list(follower.lines()) == [b"one"]
    with path.open("ab") as log:
        log.write(b"f\nlast before rotation\n")
    os.rename(path, tmp_path / "a.log.1")
    assert list(follower.lines()) == [b"half", b"last before rotation"]
    with (tmp_path / "a.log.1").open("ab") as log:
        log.write(b"late writer\n")
    path.write_bytes(b"new\r\n")
    assert list(follower.lines()) == [b"late writer", b"new"]
    path.write_bytes(b"x\n")  # truncated
    assert list(follower.lines()) == [b"x"]
    follower.close()


def test_the_follower_begins_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"old\n")
    follower = _module("log_follower").Follower(path, from_start=False)
    assert list(follower.lines()) == []
    with path.open("ab") as log:
        log.write(b"new\n")
    assert list(follower.lines()) == [b"new"]
    follower.close()
