"""`qulo token`: what it prints, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import time

import pytest

from qulo.net import token
from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import Hub


def test_new_prints_the_token_and_beside_it_that_loopback_reaches_nobody_else(keyed: Hub, run: Cli) -> None:
    done = run("token", "new")
    assert done.code == 0
    assert done.err.startswith("qulo: this token's address reaches this host only. For others let the master listen ")
    assert re.fullmatch(r"qulo1_[A-Za-z0-9_-]+\n", done.out)
    assert token.decode(done.out).addresses == (keyed.addresses["listen"],)


def test_addresses_can_be_said(run: Cli) -> None:
    done = run("token", "new", "--address", "tcp://master.example.net:7370", "--address", "tcp://10.0.0.1:1")
    assert token.decode(done.out).addresses == ("tcp://master.example.net:7370", "tcp://10.0.0.1:1")
    assert done.err == ""


def test_tokens_are_listed_and_removed(run: Cli) -> None:
    made = json.loads(run("token", "new", "--name", "web1", "--expires", "10m", "--json").out)
    assert token.decode(made["token"]).addresses == tuple(made["addresses"])
    assert time.time() + 590 < made["expires"] < time.time() + 601
    run("token", "new", "--uses", "20")
    rows = [json.loads(line) for line in run("token", "ls", "--json").out.splitlines()]
    assert [(row["name"], row["uses"]) for row in rows] == [("web1", 1), (None, 20)]
    first, second = run("token", "ls").out.splitlines()
    assert re.fullmatch(rf"{made['id']}  web1 +uses 1 +until \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first)
    assert re.match(r"[0-9a-f]{16}  \* +uses 20 ", second)
    assert run("token", "rm", made["id"]) == (0, "", "")
    assert len(run("token", "ls").out.splitlines()) == 1
    gone = run("token", "rm", made["id"])
    assert (gone.code, gone.err) == (64, f"qulo: there is no token '{made['id']}': `qulo token ls` lists them\n")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("rm",), "qulo token rm needs ID"),
        (("new", "x"), "qulo token new takes no 'x'"),
        (("ls", "x"), "qulo token ls takes no 'x'"),
        (("make",), "argument ACTION: invalid choice: 'make' (choose from 'new', 'ls', 'rm')"),
        (("new", "--expires", "soon"), "argument --expires: expected a duration"),
        (("new", "--expires", "10ms"), "argument --expires: expected a duration"),
        (("new", "--expires", "31d"), "argument --expires: expected a duration"),
        (("new", "--uses", "0"), "argument --uses: '0' is not a whole number, 1 or more"),
        (("new", "--uses", "10001"), "a token can be good for 1 to 10000 keys"),
        (("new", "--uses", "2", "--name", "a"), "a token with a name is good for one key"),
        (("new", "--name", "../x"), "'../x' is not a name: 1 to 64 of a-z 0-9 . _ -"),
        (("new", "--address", "master"), "'master' is no address for other hosts: `--address tcp://HOST:PORT`"),
        (("new", *["--address", "tcp://a:1"] * 9), "a token holds 8 addresses at most"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_made(run: Cli, argv: tuple[str, ...], why: str) -> None:
    done = run("token", *argv)
    assert (done.code, done.out) == (64, "")
    assert f"qulo: {why}" in done.err
    assert run("token", "ls").out == ""


def test_a_hub_without_keys_says_why_it_has_none(hub: Hub, run: Cli) -> None:
    done = run("--url", hub.url, "token", "new")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"qulo: the hub at {hub.url} takes no keys: it has curve: off, or no listen\n"


def test_without_a_hub_it_says_where_it_has_looked(run: Cli) -> None:
    done = run("--url", "ipc:///nowhere.sock", "-W", "0.2", "token", "new")
    assert done.code == 69
    assert done.err.startswith("qulo: no hub answers at ipc:///nowhere.sock")
