"""`qulo dead`: what nobody would take is listed, shown, given back and forgotten."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import PATIENCE, Hub


@pytest.fixture
def letters(hub: Hub, orders: str) -> list[int]:
    """Two of the group billing, one of shipping; their numbers."""
    hub.bus.put("orders.a", {"id": 1}, {"by": "me"}, id="17")
    hub.bus.put("orders.b", b"two\33[2J")
    for group, count in (("billing", 2), ("shipping", 1)):
        with hub.bus.consume(orders, group=group) as work:
            got = work.fetch(2, PATIENCE)
            while len(got) < 2:
                got += work.fetch(2, PATIENCE)
            for message in got[:count]:
                message.reject(f"no {group}")
            for message in got[count:]:
                message.ack()
            work.flush()
    return [letter["number"] for letter in hub.bus.request("$qulo.stream.dead.ls", {})["letters"]]


def listed(typed: Cli, *argv: str) -> list[tuple[str, int]]:
    lines = typed("dead", "ls", "--json", *argv).out.splitlines()
    return [(letter["group"], letter["seq"]) for letter in map(json.loads, lines)]


def test_nothing_is_dead(typed: Cli, orders: str) -> None:
    assert typed("dead", "ls") == (4, "", "")
    assert typed("dead", "purge", "--all") == (4, "", "")


def test_letters_are_listed_by_stream_and_group(typed: Cli, letters: list[int]) -> None:
    lines = typed("dead", "ls").out.splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf" *{letters[0]}  ORDERS 1 billing +orders\.a +tries 1 +{time}  no billing", lines[0])
    assert listed(typed) == [("billing", 1), ("billing", 2), ("shipping", 1)]
    assert listed(typed, "--group", "billing") == [("billing", 1), ("billing", 2)]
    assert listed(typed, "--stream", "ORDERS", "--group", "shipping") == [("shipping", 1)]
    assert typed("dead", "ls", "--stream", "OTHER").code == 4


def test_one_is_shown_with_its_body(typed: Cli, letters: list[int]) -> None:
    first, second = str(letters[0]), str(letters[1])
    shown = dict(line.split(maxsplit=1) for line in typed("dead", "show", first).out.splitlines())
    assert (shown["reason"], shown["id"], shown["body"]) == ("no billing", "17", '{"id": 1}')
    assert (shown["stream"], shown["group"], shown["headers"]) == ("ORDERS", "billing", '{"by": "me"}')
    letter = json.loads(typed("dead", "show", first, "--json").out)
    assert (letter["body"], letter["seq"], letter["tries"]) == ({"id": 1}, 1, 1)
    assert "body     two\\x1b[2J\n" in typed("dead", "show", second).out
    assert typed("dead", "show", second, "--raw").out == "two\33[2J"


def test_what_is_given_back_comes_to_the_group_that_did_not_take_it(
    typed: Cli, hub: Hub, orders: str, letters: list[int]
) -> None:
    assert typed("dead", "requeue", "--all", "--group", "shipping") == (0, "", "qulo: 1 given back\n")
    assert listed(typed) == [("billing", 1), ("billing", 2)]
    done = typed("dead", "requeue", str(letters[0]), "--json")
    assert json.loads(done.out) == {"number": letters[0], "seq": 4}
    assert listed(typed) == [("billing", 2)]
    for group, seq, body in (("shipping", 3, {"id": 1}), ("billing", 4, {"id": 1})):
        with hub.bus.consume(orders, group=group) as work:
            (message,) = work.fetch(10, PATIENCE)
            assert (message.seq, message.body) == (seq, body)
            message.ack()


def test_what_is_purged_is_forgotten(typed: Cli, letters: list[int]) -> None:
    assert typed("dead", "purge", str(letters[0]), str(letters[2])) == (0, "", "qulo: 2 forgotten\n")
    assert listed(typed) == [("billing", 2)]
    assert typed("dead", "purge", "--all", "--stream", "ORDERS").code == 0
    assert typed("dead", "ls").code == 4
    why = f"qulo: there is no dead letter {letters[0]}\n"
    assert typed("dead", "show", str(letters[0])) == (64, "", why)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("ls", "3"), "qulo dead ls takes no 3; `qulo dead show 3`?"),
        (("ls", "--all"), "qulo dead ls takes no --all"),
        (("show",), "qulo dead show needs one N"),
        (("show", "x"), "'x' is not a whole number, 1 or more"),
        (("purge",), "qulo dead purge needs either N or --all"),
        (("requeue", "3", "--all"), "qulo dead requeue needs either N or --all"),
        (("requeue", "3", "--group", "g"), "--stream and --group choose among all"),
        (("ls", "--raw"), "--raw is for `qulo dead show N`"),
        (("drop", "3"), "argument ACTION: invalid choice: 'drop'"),
    ],
)
def test_wrong_usage_is_said(typed: Cli, argv: tuple[str, ...], why: str) -> None:
    done = typed("dead", *argv)
    assert (done.code, done.out) == (64, "")
    assert why in done.err
    assert done.err.count("\n") == 1


def test_a_hub_that_is_no_agents_has_none_of_its_own(typed: Cli, hub: Hub) -> None:
    why = f"qulo: {hub.url} is no agent's, and has no dead letters of its own: without --agent\n"
    assert typed("dead", "ls", "--agent") == (4, "", why)


def test_a_closed_pipe_ends_it_in_silence(hub: Hub, letters: list[int]) -> None:
    done = hub.run("sh", "-c", "qulo dead ls | true")
    assert (done.returncode, done.stderr) == (0, b"")
