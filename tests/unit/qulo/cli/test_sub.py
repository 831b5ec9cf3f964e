"""`qulo sub`, the real program; and its screen, given a gap."""

from __future__ import annotations

import argparse
import json
import signal

import pytest

from qulo.cli.sub import _Screen
from qulo.protocol.tracker import Gap
from tests.unit.qulo.conftest import PATIENCE, Hub


def _output(hub: Hub, *argv: str) -> list[str]:
    """What it shows of three messages."""
    patterns = sum(not each.startswith("-") for each in argv)
    process = hub.start_listening("qulo", "sub", "--count", "3", *argv, to=patterns)
    hub.bus.publish("sub.a", b"text\33[2J")
    hub.bus.publish("sub.b", {"t": 21.5})
    hub.bus.publish("sub.c", b"two\nlines", {"key": "value"})
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    return out.decode().splitlines()


def test_a_message_is_a_line(hub: Hub) -> None:
    assert _output(hub, "sub.>") == ["sub.a text\\x1b[2J", 'sub.b {"t": 21.5}', "sub.c two\\nlines"]


def test_raw_is_the_body_as_it_is(hub: Hub) -> None:
    assert _output(hub, "--raw", "sub.>") == ["text\33[2J", '{"t": 21.5}', "two", "lines"]


def test_json_is_an_object_per_line_whatever_pattern_it_came_by(hub: Hub) -> None:
    lines = map(json.loads, _output(hub, "--json", "sub.a", "sub.b", "sub.c"))
    assert sorted(lines, key=lambda line: str(line["topic"])) == [
        {"topic": "sub.a", "body": "text\33[2J"},
        {"topic": "sub.b", "body": {"t": 21.5}},
        {"topic": "sub.c", "body": "two\nlines", "headers": {"key": "value"}},
    ]


def test_a_group_shares_the_messages(hub: Hub) -> None:
    one = hub.start_listening("qulo", "sub", "--group", "g", "--count", "1", "sub.work")
    two = hub.start_listening("qulo", "sub", "--group", "g", "--count", "1", "sub.work")
    for number in range(2):
        hub.bus.publish("sub.work", number)
    outs = sorted(process.communicate(timeout=PATIENCE)[0] for process in (one, two))
    assert outs == [b"sub.work 0\n", b"sub.work 1\n"]


def test_ctrl_c_is_the_usual_end(hub: Hub) -> None:
    process = hub.start_listening("qulo", "sub", "sub.>")
    hub.bus.publish("sub.a", b"seen")
    assert process.stdout is not None
    assert process.stdout.readline() == b"sub.a seen\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0


def test_silence_ends_it_with_3(hub: Hub) -> None:
    done = hub.run("qulo", "sub", "sub.silent", "--timeout", "0.3")
    assert (done.returncode, done.stderr) == (3, b"qulo: nothing came on sub.silent for 0.3 s\n")


def test_a_bad_pattern_is_wrong_usage(hub: Hub) -> None:
    assert hub.run("qulo", "sub", "a.>.b").returncode == 64


@pytest.mark.parametrize("as_json", [True, False])
def test_a_gap_is_shown(as_json: bool, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    screen = _Screen(argparse.Namespace(count=1, json=as_json, timeout=None))
    screen.show_gap(Gap("sub.>", 7, 3, 9, "window"))
    out, err = capfdbinary.readouterr()
    if as_json:
        assert json.loads(out) == {"gap": {"pattern": "sub.>", "first": 3, "last": 9, "reason": "window"}}
    else:
        assert (out, err) == (b"", b"qulo: messages on sub.> were missed (window)\n")
