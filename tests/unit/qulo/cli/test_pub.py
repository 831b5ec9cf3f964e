"""`qulo pub`, the real program; what it sent is read by a subscription of the test's own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from qulo import cli
from qulo.client import Message
from qulo.sync import Subscription
from tests.unit.qulo.conftest import PATIENCE, Hub


@pytest.fixture
def sub(hub: Hub) -> Iterator[Subscription]:
    with hub.bus.subscribe("pub.>") as sub:
        yield sub


def _next(sub: Subscription) -> tuple[str, Any, dict[str, Any]]:
    message = sub.next(PATIENCE)
    assert isinstance(message, Message)
    return message.topic, message.body, dict(message.headers)


@pytest.mark.parametrize(
    ("argv", "body", "headers"),
    [
        (("text",), b"text", {}),
        ((), b"", {}),
        (("--", "-dashes"), b"-dashes", {}),
        (("--json", '{"t": 21.5}'), {"t": 21.5}, {}),
        (("-H", "host:web1", "-H", "at: 12:30", "x"), b"x", {"host": "web1", "at": "12:30"}),
        (("--stdin",), b"first\nsecond\n", {}),
        (("-f", "lines"), b"one\r\ntwo", {}),
    ],
)
def test_a_body_comes_from_where_it_was_said(
    hub: Hub, sub: Subscription, argv: tuple[str, ...], body: Any, headers: dict[str, str]
) -> None:
    (hub.place / "lines").write_bytes(b"one\r\ntwo")
    done = hub.run("qulo", "pub", "pub.body", *argv, stdin=b"first\nsecond\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert _next(sub) == ("pub.body", body, headers)


def test_each_line_is_a_message(hub: Hub, sub: Subscription) -> None:
    (hub.place / "lines").write_bytes(b"one\r\ntwo")
    assert hub.run("qulo", "pub", "pub.line", "-l", stdin=b"1\n2\n").returncode == 0
    assert hub.run("qulo", "pub", "pub.line", "-l", "-f", "lines").returncode == 0
    assert [_next(sub)[1] for _ in range(4)] == [b"1", b"2", b"one", b"two"]


def test_count_publishes_it_again(hub: Hub, sub: Subscription) -> None:
    assert hub.run("qulo", "pub", "pub.again", "x", "--count", "3").returncode == 0
    assert [_next(sub)[1] for _ in range(3)] == [b"x"] * 3


def test_ctrl_c_sends_what_was_read(hub: Hub, sub: Subscription) -> None:
    argv = ("qulo", "pub", "pub.stream", "--lines")
    with subprocess.Popen(argv, env=hub.environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert _next(sub)[1] == b"first"  # at once, not at the end of the stream
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("a", "x", "--stdin"), "BODY and --stdin exclude each other"),
        (("a", "x", "-l"), "--lines reads lines from"),
        (("a", "-l", "--count", "2"), "--lines and --count"),
        (("a", "-f", "/nowhere"), "/nowhere cannot be read"),
        (("a", "x", "-H", "nonsense"), "not KEY:VALUE"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(("pub", *argv)) == 64
    assert message in capsys.readouterr().err


def test_what_cannot_be_published_is_wrong_usage(hub: Hub) -> None:
    done = hub.run("qulo", "pub", "a topic", "x")
    assert (done.returncode, done.stderr[:22]) == (64, b"qulo: the topic 'a top")
    assert hub.run("qulo", "pub", "a", "--json", "{").returncode == 64
