"""`qulo join`: a user's programs get in; every bad token is one line and the right exit code."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from qulo.client import joined
from qulo.net import join, token
from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import Hub
from tests.unit.qulo.test_roles import free_port


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's key is kept."""
    monkeypatch.setattr(joined, "_place", lambda: tmp_path / "home")
    return tmp_path / "home"


def made(run: Cli, *argv: str) -> str:
    """A token."""
    return run("token", "new", *argv).out.strip()


def test_join_says_the_name_and_where(keyed: Hub, run: Cli) -> None:
    done = run("join", made(run, "--name", "ada"))
    assert done == (0, f"joined as ada: {keyed.addresses['listen']}\n", "")


def test_the_token_may_come_from_standard_input(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"  {made(run)}\n"))
    done = run("join", "-", "--name", "ada")
    assert (done.code, done.out[:14]) == (0, "joined as ada:")


def test_what_is_no_token_is_wrong_usage(run: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    whole = made(run)
    for text in ("", "-", "nonsense", whole[:-1], whole[:20] + ("A" if whole[20] != "A" else "B") + whole[21:]):
        done = run("join", text)
        assert (done.code, done.out) == (64, "")
        assert "`qulo token new` on the master" in done.err
    assert not (place / "client.json").exists()
    assert run("join", whole, "--name", "../x").code == 64
    assert run("join", whole).code == 0  # nothing of that has used it up


def test_a_used_or_removed_token_is_denied(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, removed = made(run), made(run)
    assert run("join", used).code == 0
    gone = token.decode(removed).key.public
    row = run("token", "ls").out.split()[0]
    assert run("token", "rm", row).code == 0
    monkeypatch.setattr(joined, "_place", lambda: tmp_path / "another")
    for text in (used, removed):
        done = run("join", text)
        assert (done.code, done.out) == (77, "")
        assert "make another one (`qulo token new` on the master)" in done.err
    assert gone.decode() not in run("keys", "ls", "--json").out
    assert not (tmp_path / "another" / "client.json").exists()


def test_where_no_hub_answers_it_says_so(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "PATIENCE", 0.3)
    address = f"tcp://127.0.0.1:{free_port()}"
    done = run("join", made(run, "--address", address))
    assert (done.code, done.out) == (69, "")
    assert f"no hub enrols us at {address}" in done.err
    assert "qulod" not in done.err  # starting one here would not help
