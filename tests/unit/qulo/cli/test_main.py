"""What all verbs share: finding the hub, exit codes, and errors of one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qulo import cli
from qulo.cli import exits
from qulo.errors import (
    ConfigError,
    DeadlineExceeded,
    Denied,
    Disconnected,
    EndpointError,
    HandlerError,
    NoResponders,
    NoStream,
    OutcomeUnknown,
    ResponderLost,
    UsageError,
)
from qulo.net.curve import make_key
from tests.unit.qulo.conftest import Hub, running_qulod


def test_version_loads_neither_zmq_nor_asyncio(hub: Hub) -> None:
    code = "import sys, qulo.cli\ntry: qulo.cli.main(['--version'])\nfinally: print(*sys.modules)"
    done = hub.run(sys.executable, "-c", code)
    version, modules = done.stdout.decode().splitlines()
    assert version.startswith("qulo 0.")
    assert not {"zmq", "asyncio", "msgpack", "ruamel"} & set(modules.split())


@pytest.mark.parametrize("argv", [("--help",), *((verb, "--help") for verb in cli.VERBS)])
def test_help_fits_a_terminal_and_has_examples(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "examples:\n" in out
    assert [line for line in out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "a verb is expected"),
        (("requets", "a"), "did you mean 'request'?"),
        (("zzz",), "there are pub, sub, request, reply"),
        (("pub",), "required: TOPIC"),
        (("pub", "a", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("--timeout", "0", "pub", "a"), "not a number of seconds"),
        (("sub", "a", "--count", "none"), "not a whole number"),
        (("sub", "a", "--raw", "--json"), "not allowed with"),
    ],
)
def test_wrong_usage_is_64_and_one_line(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    err = capsys.readouterr().err
    assert exit_.value.code == 64
    assert message in err
    assert err.startswith("qulo: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HandlerError(), 1),
        (ResponderLost(), 1),
        (DeadlineExceeded(), 3),
        (NoResponders(), 4),
        (NoStream(), 4),
        (UsageError(), 64),
        (EndpointError(), 69),
        (Disconnected(), 69),
        (OutcomeUnknown(), 69),
        (Denied(), 77),
        (ConfigError("no key"), 78),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exits.code_of(error) == code


def test_an_error_is_one_line_whatever_another_program_put_into_it() -> None:
    assert exits.text_of(HandlerError("a\nb\33[2J")) == "a b [2J"


def test_no_hub_says_what_was_tried_and_how_to_start_one(hub: Hub) -> None:
    urls = f"ipc://{hub.place}/one.sock,ipc://{hub.place}/two.sock"
    done = hub.run("qulo", "--timeout", "0.3", "pub", "a", "b", QULO_URL=urls)
    tried, hint = done.stderr.decode().splitlines()
    assert done.returncode == 69
    assert "/one.sock" in tried
    assert "/two.sock" in tried
    assert hint.startswith("qulo: start one with `qulod`")


def test_an_option_after_the_verb_wins(hub: Hub) -> None:
    done = hub.run("qulo", "-u", "ipc:///nowhere", "pub", "main.where", "-u", hub.url, "x", QULO_URL="")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_pipe_ends_it_in_silence(hub: Hub) -> None:
    done = hub.run("sh", "-c", "qulo request '$qulo.local.list' --json | true")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def curve(short_place: Path) -> Iterator[tuple[str, ...]]:
    """The options for a hub with curve, which accepts me.key and not stranger.key."""
    accepted = short_place / "data" / "accepted"
    accepted.mkdir(parents=True)
    (short_place / "data").chmod(0o700)
    for name in ("me", "stranger"):
        make_key(short_place / f"{name}.key")
    shutil.copy(short_place / "me.pub", accepted)
    with running_qulod(short_place, curve="on") as (_process, addresses):
        yield ("--url", addresses["listen"], "--server-key", f"{short_place}/data/master.pub")


def test_curve_takes_key_files(hub: Hub, curve: tuple[str, ...], short_place: Path) -> None:
    done = hub.run("qulo", *curve, "--key", f"{short_place}/me.key", "pub", "a", "b")
    assert (done.returncode, done.stderr) == (0, b"")
    done = hub.run("qulo", *curve, "--key", f"{short_place}/none.key", "pub", "a", "b")
    assert (done.returncode, done.stderr.count(b"\n")) == (78, 1)


def test_a_key_that_is_not_accepted_is_77(hub: Hub, curve: tuple[str, ...], short_place: Path) -> None:
    key = f"{short_place}/stranger.key"
    done = hub.run("qulo", *curve, "--timeout", "0.5", "--key", key, "pub", "a", "b")
    assert b"does not accept our key" in done.stderr
    assert done.returncode == 77


def test_a_full_disk_is_one_line_and_1(hub: Hub) -> None:
    done = hub.run("sh", "-c", "qulo request '$qulo.local.list' --json > /dev/full")
    assert (done.returncode, done.stderr) == (1, b"qulo: [Errno 28] No space left on device\n")
