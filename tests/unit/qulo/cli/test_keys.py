"""`qulo keys`: one key's life, and what is said when something is not possible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from qulo.net import curve
from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import Hub

Knock = Callable[[], str]


def states(run: Cli) -> dict[str, tuple[str, str]]:
    """Fingerprint → state and name."""
    rows = [json.loads(line) for line in run("keys", "ls", "--json").out.splitlines()]
    return {row["fingerprint"]: (row["state"], row["name"]) for row in rows}


def test_nobody_has_knocked(run: Cli) -> None:
    assert run("keys", "ls") == (4, "", "")


def test_a_key_is_pending_accepted_revoked_and_forgotten(run: Cli, knock: Knock) -> None:
    mine = knock()
    done = run("keys", "ls")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"pending +{mine} +from 127\.0\.0\.1, seen {time}\n", done.out)
    assert done.code == 0
    shown = dict(
        line.split(maxsplit=1) for line in run("keys", "show", mine[:8]).out.splitlines() if " " in line.strip()
    )
    assert (shown["state"], shown["fingerprint"], shown["address"], shown["tries"]) == (
        "pending",
        mine,
        "127.0.0.1",
        "1",
    )
    assert re.fullmatch(time, shown["first"])
    assert run("keys", "accept", mine[:8], "--name", "web1") == (0, "", "")
    assert re.fullmatch(rf"accepted +{mine}  web1\n", run("keys", "ls").out)
    assert json.loads(run("keys", "show", "web1", "--json").out)["fingerprint"] == mine
    assert run("keys", "revoke", "web1") == (0, "", "")
    assert re.fullmatch(rf"refused +{mine}  web1\n", run("keys", "ls").out)
    assert run("keys", "accept", "web1", "--name", "web2").code == 0
    assert states(run) == {mine: ("accepted", "web2")}
    assert run("keys", "delete", "web2") == (0, "", "")
    assert states(run) == {}


def test_the_hubs_own_key_changes_in_steps(run: Cli, knock: Knock, keyed: Hub) -> None:
    assert run("keys", "rotate", "--status") == (0, "", "")
    done = run("keys", "rotate", "--finish")
    why = "no change of keys is under way: `qulo keys rotate` begins one"
    assert done == (64, "", f"qulo: {why}\n")
    assert run("keys", "rotate", "web1") == (64, "", "qulo: qulo keys rotate takes no 'web1'\n")
    assert run("keys", "accept", knock(), "--name", "web1").code == 0
    begun = run("keys", "rotate")
    assert re.fullmatch(r"the next key is [0-9a-f]{32}; 0 of 1 know it\nmissing: web1\n", begun.out)
    assert begun.code == 0
    assert run("keys", "rotate", "--status").out == begun.out
    told = json.loads(run("keys", "rotate", "--status", "--json").out)
    assert (told["accepted"], told["missing"]) == (1, ["web1"])
    again = run("keys", "rotate")
    assert (again.code, again.err) == (64, "qulo: a change of keys is under way already: finish or abort it\n")
    unfinished = run("keys", "rotate", "--finish")
    assert unfinished.code == 64
    assert "not told yet: web1; wait for them, or finish with --force" in unfinished.err
    assert run("keys", "rotate", "--abort") == (0, "", "")
    assert run("keys", "rotate", "--status") == (0, "", "")
    before = (keyed.place / "data" / "master.pub").read_text()
    next_key = run("keys", "rotate").out.split()[4].rstrip(";")
    assert run("keys", "rotate", "--finish", "--force") == (0, "", "")
    now = (keyed.place / "data" / "master.pub").read_text()
    assert (now != before, curve.fingerprint(now.strip().encode())) == (True, next_key)
    knock()  # it is what strangers see, too


def test_a_rejected_key_stays_refused(run: Cli, knock: Knock) -> None:
    mine = knock()
    assert run("keys", "reject", mine).code == 0
    assert states(run) == {mine: ("refused", "")}


def test_a_taken_name_is_denied(run: Cli, knock: Knock) -> None:
    first, second = knock(), knock()
    run("keys", "accept", first, "--name", "web1")
    done = run("keys", "accept", second, "--name", "web1")
    why = "the name web1 is taken by another key: on the master, `qulo keys revoke web1` frees it"
    assert done == (77, "", f"qulo: {why}\n")
    assert run("token", "new", "--name", "web1") == (77, "", f"qulo: {why}\n")
    assert states(run)[second] == ("pending", "")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("ls", "web1"), "qulo keys ls takes no 'web1'; `qulo keys show web1`?"),
        (("show",), "qulo keys show needs KEY"),
        (("accept", "0123456789"), "qulo keys accept needs NAME"),
        (("accept", "0123456789", "--name", "a"), "no such key can be found: '0123456789'"),
        (("accept", "0123", "--name", "a"), "no such key can be found: '0123' (a fingerprint may be shortened to 8"),
        (("revoke", "../x"), "no such key can be found: '../x'"),
        (("drop", "x"), "argument ACTION: invalid choice: 'drop'"),
    ],
)
def test_wrong_usage_is_said(run: Cli, argv: tuple[str, ...], why: str) -> None:
    done = run("keys", *argv)
    assert (done.code, done.out) == (64, "")
    assert f"qulo: {why}" in done.err


def test_a_name_that_is_a_path_is_refused(run: Cli, knock: Knock) -> None:
    done = run("keys", "accept", knock(), "--name", "../x")
    assert (done.code, done.err) == (64, "qulo: '../x' is not a name: 1 to 64 of a-z 0-9 . _ -\n")
