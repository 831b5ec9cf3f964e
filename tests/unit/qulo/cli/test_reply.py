"""`qulo reply`, the real program, asked by the test."""

from __future__ import annotations

import signal

import pytest

from qulo import cli
from qulo.errors import HandlerError
from tests.unit.qulo.conftest import PATIENCE, Hub


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (("pong",), b"pong"),
        (("--echo",), {"asked": 1}),
        (("--command", "cat"), b'{"asked": 1}'),
        (("--command", "sh -c 'printf %s \"$QULO_TOPIC\"'"), b"reply.it"),
    ],
)
def test_it_answers_as_often_as_it_was_told(hub: Hub, argv: tuple[str, ...], answer: object) -> None:
    process = hub.start_listening("qulo", "reply", "reply.it", *argv, "--count", "1")
    assert hub.bus.request("reply.it", {"asked": 1}) == answer
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("sh -c 'echo first >&2; echo no more paper >&2; exit 9'", "sh ended with 9: no more paper"),
        ("qulo-no-such-command", "qulo-no-such-command cannot be run: No such file"),
        ("sleep 60", "sleep took longer than 0.5 s"),
    ],
)
def test_a_command_that_fails_is_an_error_to_the_asker(hub: Hub, command: str, error: str) -> None:
    argv = ("qulo", "reply", "reply.fail", "--command", command, "--count", "1", "--timeout", "0.5")
    process = hub.start_listening(*argv)
    with pytest.raises(HandlerError, match=error):
        hub.bus.request("reply.fail")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_no_shell_sees_the_command(hub: Hub) -> None:
    hub.start_listening("qulo", "reply", "reply.argv", "--command", "echo $HOME ; echo `id`")
    assert hub.bus.request("reply.argv") == b"$HOME ; echo `id`\n"


def test_ctrl_c_is_the_usual_end(hub: Hub) -> None:
    process = hub.start_listening("qulo", "reply", "reply.end", "--echo")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("argv", [(), ("x", "--echo"), ("--command", ""), ("--command", "'open")])
def test_one_way_to_answer_has_to_be_said(argv: tuple[str, ...]) -> None:
    assert cli.main(("reply", "reply.it", *argv)) == 64
