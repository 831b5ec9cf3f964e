"""`qulo request`, the real program, asking a responder of the test's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qulo.client import Message
from tests.unit.qulo.conftest import PATIENCE, Hub


def _answer(message: Message) -> Any:
    if message.body == b"fail":
        raise ValueError("on purpose")
    return message.body


@pytest.fixture
def echo(hub: Hub) -> Iterator[str]:
    with hub.bus.respond("request.echo", _answer), hub.bus.respond("request.echo", _answer):
        yield "request.echo"


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (("two\nlines",), b"two\nlines\n"),
        (("ended\n",), b"ended\n"),
        (("\33[2J",), b"\\x1b[2J\n"),
        ((), b"\n"),
        (("two\nlines", "--raw"), b"two\nlines"),
        (("--json", '{"a": [1]}'), b'{"a": [1]}\n'),
        (("x", "--many"), b"x\nx\n"),
        (("x", "--many", "--count", "1"), b"x\n"),
    ],
)
def test_the_answer_is_shown(hub: Hub, echo: str, argv: tuple[str, ...], out: bytes) -> None:
    done = hub.run("qulo", "request", echo, *argv)
    assert (done.returncode, done.stdout, done.stderr) == (0, out, b"")


def test_a_responder_that_fails_is_1(hub: Hub, echo: str) -> None:
    done = hub.run("qulo", "request", echo, "fail")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"qulo: ValueError: on purpose\n")


@pytest.mark.parametrize("many", [(), ("--many",)])
def test_nobody_to_ask_is_4(hub: Hub, many: tuple[str, ...]) -> None:
    done = hub.run("qulo", "request", "request.nobody", *many)
    assert (done.returncode, done.stderr) == (4, b"qulo: nobody answers requests on request.nobody\n")


def test_no_answer_in_time_is_3_and_ctrl_c_130(hub: Hub) -> None:
    asked, release = threading.Semaphore(0), threading.Event()

    def answer(_message: Message) -> None:
        asked.release()
        release.wait(PATIENCE)

    with hub.bus.respond("request.slow", answer):
        done = hub.run("qulo", "request", "request.slow", "--timeout", "0.3")
        assert done.returncode == 3
        assert asked.acquire(timeout=PATIENCE)
        process = hub.start("qulo", "request", "request.slow", "--timeout", "20")
        assert asked.acquire(timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == (b"", b"")
        assert process.returncode == 130
        release.set()


def test_count_is_for_many(hub: Hub) -> None:
    assert hub.run("qulo", "request", "request.echo", "x", "--count", "2").returncode == 64
