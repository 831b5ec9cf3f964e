"""qulolist: the real program against a real hub, and what it makes of a report."""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from qulo import qulolist, sync
from tests.unit.qulo.conftest import PATIENCE, Hub, until


@pytest.fixture
def someone(hub: Hub) -> Iterator[str]:
    """A client that is connected, and a topic that has been published on."""
    with sync.connect(hub.url, name="someone.here") as bus:
        bus.publish("list.topic", b"x")
        bus.flush()
        yield "someone.here"


def _list(hub: Hub, *argv: str) -> tuple[int, str, str]:
    done = hub.run("qulolist", *argv)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_it_lists_peers_and_topics(hub: Hub, someone: str) -> None:
    code, out, err = _list(hub, "--local")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "the site's hub" in lines[0]
    assert lines[2].split() == ["NAME", "KIND", "STATE", "SEEN", "VERSION", "ADDRESS", "RTT", "LAG"]
    assert any(line.split()[:3] == [someone, "client", "up"] for line in lines)
    assert any(line.split()[0] == "list.topic" for line in lines if line)
    assert "\33" not in out


def test_json_is_one_object_per_line(hub: Hub, someone: str) -> None:
    code, out, _err = _list(hub, "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [entry["type"] for entry in entries[:2]] == ["hub", "peer"]
    # Those of earlier tests are listed after it, as down.
    assert next(entry["state"] for entry in entries if entry.get("name") == someone) == "up"
    assert any(entry["type"] == "topic" and entry["topic"] == "list.topic" for entry in entries)


@pytest.mark.parametrize(
    ("argv", "types"),
    [
        (("--topics", "list.*"), {"hub", "topic"}),
        (("--clients", "someone*"), {"hub", "peer"}),
        (("--clients", "--topics", "[ls]*[.]*"), {"hub", "peer", "topic"}),
    ],
)
def test_it_shows_what_was_selected(hub: Hub, someone: str, argv: tuple[str, ...], types: set[str]) -> None:
    assert someone
    code, out, _err = _list(hub, "--json", *argv)
    assert (code, {json.loads(line)["type"] for line in out.splitlines()}) == (0, types)


def test_agents_are_all_that_is_shown_of_them(hub: Hub, someone: str) -> None:
    code, out, _err = _list(hub, "--json", "--agents")
    entries = [json.loads(line) for line in out.splitlines()]
    assert (code, entries[0]["type"]) == (0, "hub")
    # Agents of earlier tests are remembered as down.
    assert {(entry["type"], entry["kind"]) for entry in entries[1:]} <= {("peer", "agent")}
    assert someone not in {entry.get("name") for entry in entries}


def test_a_filter_that_matches_nothing_is_4(hub: Hub) -> None:
    code, _out, err = _list(hub, "nobody-*")
    assert (code, err) == (4, "qulolist: nothing matches 'nobody-*'\n")


def test_no_hub_is_69_with_a_hint(hub: Hub) -> None:
    code, out, err = _list(hub, "--timeout", "0.2", "-u", "ipc:///nowhere.sock")
    tried, hint = err.splitlines()
    assert (code, out) == (69, "")
    assert "no hub answers at ipc:///nowhere.sock" in tried
    assert "start one with `qulod`" in hint


def test_usage_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code in ((("--version",), 0), (("--help",), 0), (("--nonsense",), 64), (("--watch", "0"), 64)):
        with pytest.raises(SystemExit) as exit_:
            qulolist.main(argv)
        assert exit_.value.code == code
    assert capsys.readouterr().out.startswith("qulolist 0.")
    assert qulolist.main(["-u", "nonsense"]) == 64


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_and_watch_are_for_terminals(hub: Hub, someone: str, no_color: str) -> None:
    ours, theirs = pty.openpty()
    argv = ["qulolist", "--watch", "0.05", someone]
    environ = {**hub.environ, "NO_COLOR": no_color}
    with subprocess.Popen(argv, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = bytearray()

        def twice() -> bool:
            seen.extend(os.read(ours, 4096))
            return seen.count(b"\33[H\33[2J") > 2

        until(twice)
        os.kill(process.pid, 2)  # Ctrl-C
        assert process.wait(PATIENCE) == 0
    os.close(ours)  # not before its end: it would have nowhere to write what it still holds
    assert (b"\33[32mup" in seen) == (not no_color)


# -- reports that the hub of these tests does not make


def _peer(**fields: Any) -> dict[str, Any]:
    peer = {"name": "web1", "kind": "agent", "state": "up", "slow": False, "seen": 0.1, "version": "0.1.0"}
    return {**peer, "address": "192.0.2.1", "rtt": 1.5, "lag": 0, **fields}


def _shown(*peers: dict[str, Any], **hub: Any) -> argparse.Namespace:
    about = {"name": "hub1", "version": "0.1.0", "authority": True, "upstream": None, "blocked": False}
    report = {"hub": {**about, "peers": len(peers), "topics": 0, **hub}, "peers": peers, "topics": []}
    arguments = qulolist._parser().parse_args([])
    assert qulolist._show(report, arguments) == 0
    return arguments


def test_a_slow_peer_is_marked_and_down_ones_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    _shown(_peer(name="a", state="down", seen=7200.0), _peer(name="b", slow=True), _peer(name="c", rtt=0.0))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [(row[0], row[2]) for row in rows] == [("b", "slow"), ("c", "up"), ("a", "down")]
    assert rows[2][3:5] == ["2", "h"]


def test_an_agent_says_whether_its_master_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    _shown(authority=False, upstream=False, blocked=True)
    assert "an agent, its master is away, holding publishers back" in capsys.readouterr().out


def test_names_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    _shown(_peer(version="\33[2J\u202eabc\u200b"))
    out = capsys.readouterr().out
    assert "\\x1b[2J\\u202eabc\\u200b" in out
    assert out.replace("\n", "").isprintable()


@pytest.fixture
def orders(hub: Hub) -> Iterator[str]:
    """A stream with a message that one group has not acked."""
    hub.bus.request("$qulo.stream.add", {"name": "ORDERS", "topics": ["orders.>"]})
    hub.bus.put("orders.new", b"x")
    with hub.bus.consume("ORDERS", group="g"):
        pass
    yield "ORDERS"
    hub.bus.request("$qulo.stream.rm", {"stream": "ORDERS"})


def test_streams_are_a_section_of_their_own(hub: Hub, orders: str) -> None:
    code, out, err = _list(hub, "--streams")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["STREAM", "KEEP", "TOPICS", "MESSAGES", "BYTES", "LAST", "GROUPS", "PENDING"],
        [orders, "limits", "orders.>", "1", "11", "1", "1", "1"],
    ]
    entries = [json.loads(line) for line in _list(hub, "--streams", "--json")[1].splitlines()]
    assert [entry["type"] for entry in entries] == ["hub", "stream"]
    assert (entries[1]["name"], entries[1]["groups"][0]["group"]) == (orders, "g")
    assert any(line.startswith(orders) for line in _list(hub)[1].splitlines())  # among everything
    assert _list(hub, "--streams", "X*")[0] == 4


def test_streams_are_not_the_local_hubs(hub: Hub) -> None:
    code, _out, err = _list(hub, "--local", "--streams")
    assert code == 64
    assert "--streams are the site's" in err
