"""`qulo auth explain`: the answer, the rule, and the exit code for scripts."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import Hub


@pytest.mark.parametrize(
    ("argv", "code", "answer"),
    [
        (("web1", "publish", "metrics.load"), 0, r"yes: allow publish to web\* on metrics\.> \(FILE:\d+\)"),
        (("web2", "publish", "metrics.load"), 77, r"no: deny publish to web2 on > \(FILE:\d+\)"),
        (("web1", "publish", ">"), 77, "no: no rule allows it"),
        (("web1", "subscribe", "metrics.load"), 77, "no: no rule allows it"),
        (("token/1", "request", "$qulo.local.enrol"), 0, r"yes: a token may enrol one key \(built in\)"),
        (("web1", "request", "$qulo.local.admin.keys.ls"), 77, r"no: only root and .* over ipc:// \(built in\)"),
    ],
)
def test_the_rule_and_its_place_are_said(keyed: Hub, run: Cli, argv: tuple[str, ...], code: int, answer: str) -> None:
    done = run("auth", "explain", *argv)
    assert (done.code, done.err) == (code, "")
    assert re.fullmatch(answer.replace("FILE", re.escape(f"{keyed.place}/qulod.yaml")) + "\n", done.out)


def test_as_json(run: Cli) -> None:
    found = json.loads(run("auth", "explain", "db1", "publish", "t", "--json").out)
    assert found == {"name": "db1", "verb": "publish", "topic": "t", "allowed": False, "rule": "no rule allows it"}


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("explain", "web1", "pubish", "t"), "unknown verb 'pubish'; there are publish, subscribe, request, respond"),
        (("explain", "web1", "publish", "a b"), "the topic 'a b'|pattern"),
        (("explain", "web1", "publish"), "required: TOPIC"),
        (("show", "a", "publish", "t"), "invalid choice: 'show'"),
    ],
)
def test_wrong_usage_is_said(run: Cli, argv: tuple[str, ...], why: str) -> None:
    done = run("auth", *argv)
    assert (done.code, done.out) == (64, "")
    assert re.search(why, done.err)


def test_a_hub_without_keys_explains_too(hub: Hub, run: Cli) -> None:
    assert run("--url", hub.url, "auth", "explain", "x", "publish", "t").code == 0
