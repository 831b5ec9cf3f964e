"""`permissions:` as somebody writes it: what is read, what is refused with its place, and back to YAML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qulo import config
from qulo.config import Settings
from qulo.errors import ConfigError
from qulo.protocol.permissions import DEFAULT, VERBS, Rule


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "qmaster.yaml"
    file.write_text(text)
    return config.load("qmaster", str(file), environ={}, uid=0)


def rules(tmp_path: Path, text: str) -> tuple[Rule, ...]:
    return load(tmp_path, text).permissions


def test_rules_are_read_with_their_places(tmp_path: Path) -> None:
    first, second = rules(
        tmp_path,
        "heartbeat: 1s\n"
        "permissions:\n"
        "  - allow: [publish, subscribe]\n"
        '    names: ["web*", "*/local"]\n'
        '    topics: ["metrics.>"]\n'
        "  - {deny: publish, names: web1, topics: metrics.secret}\n",
    )
    assert first == Rule(True, ("publish", "subscribe"), ("web*", "*/local"), ("metrics.>",))
    assert second == Rule(False, ("publish",), ("web1",), ("metrics.secret",))
    assert [rule.place for rule in (first, second)] == [f"{tmp_path}/qmaster.yaml:{line}" for line in (3, 6)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", DEFAULT), ("permissions: []\n", ()), ("permissions:\n", ()), ("permissions: null\n", ())],
)
def test_no_key_is_the_default_and_an_empty_one_is_nothing_at_all(
    tmp_path: Path, text: str, expected: tuple[Rule, ...]
) -> None:
    assert rules(tmp_path, text) == expected


GOOD = '{allow: [publish], names: ["*"], topics: [">"]}'


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("permissions: yes", "1:14", "permissions: expected a list of rules"),
        ("permissions: {allow: publish}", "1:14", "permissions: expected a list of rules"),
        ("permissions: [publish]", "1:15", r"permissions\[0\]: expected a rule: allow or deny, names and topics"),
        (f"permissions: [{GOOD}, []]", "1:64", r"permissions\[1\]: expected a rule"),
        (
            'permissions: [{allow: [pubish], names: ["*"], topics: [">"]}]',
            "1:24",
            r"permissions\[0\]\.allow: unknown verb 'pubish'; did you mean 'publish'\?",
        ),
        (
            "permissions:\n  - allow: [publish]\n    names: a\n    topics: a\n  - deny: [fly]\n    names: a",
            "5:12",
            r"permissions\[1\]\.deny: unknown verb 'fly'; there are publish, subscribe, request, respond,",
        ),
        (
            'permissions: [{allow: [publish], name: ["*"], topics: [">"]}]',
            "1:34",
            r"permissions\[0\]: unknown key 'name'; did you mean 'names'\?",
        ),
        ('permissions: [{names: ["*"], topics: [">"]}]', "1:15", "expected either allow or deny"),
        (
            "permissions: [{allow: publish, deny: publish, names: a, topics: a}]",
            "1:15",
            "expected either allow or deny",
        ),
        ("permissions: [{allow: publish, topics: a}]", "1:15", "expected names"),
        ("permissions: [{allow: publish, names: a}]", "1:15", "expected topics"),
        ("permissions: [{allow: publish, names: a, names: b, topics: a}]", "1:42", "names is there twice"),
        ("permissions: [{allow: [], names: a, topics: a}]", "1:23", r"\[0\]\.allow: expected one at least"),
        ("permissions: [{deny: publish, names: [], topics: a}]", "1:38", r"\[0\]\.names: expected one at least"),
        ("permissions: [{deny: publish, names: a, topics: []}]", "1:49", r"\[0\]\.topics: expected one at least"),
        ("permissions: [{allow: '', names: a, topics: a}]", "1:23", "unknown verb ''"),
        ("permissions: [{allow: publish, names: Web1, topics: a}]", "1:39", "'Web1' can be nobody's name: a-z 0-9"),
        ("permissions: [{allow: publish, names: web1/other, topics: a}]", "1:39", "can be nobody's name"),
        ("permissions: [{allow: publish, names: ../x, topics: a}]", "1:39", "can be nobody's name"),
        (
            "permissions: [{allow: publish, names: [[a]], topics: a}]",
            "1:40",
            "expected a word, found a list or mapping",
        ),
        ("permissions: [{allow: publish, names: a, topics: 'a b'}]", "1:50", "topic"),
        ("permissions: [{allow: publish, names: a, topics: a..b}]", "1:50", "topic"),
        ("permissions: [{allow: publish, names: a, topics: '>.a'}]", "1:50", "topic|pattern"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_column(tmp_path: Path, text: str, place: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        rules(tmp_path, text + "\n")
    assert str(caught.value).startswith(f"{tmp_path}/qmaster.yaml:{place}: permissions")


def test_permissions_are_not_read_from_the_environment(tmp_path: Path) -> None:
    environ = {"QULO_PERMISSIONS": "[]"}
    settings = config.load("qmaster", os.devnull, environ=environ, uid=0)
    assert settings.permissions == DEFAULT


def test_a_change_is_told_by_a_reload_and_needs_no_restart(tmp_path: Path) -> None:
    old, new = load(tmp_path, f"permissions: [{GOOD}]\n"), load(tmp_path, "permissions: []\n")
    (change,) = config.diff(old, new)
    assert (str(change), change.needs_restart) == ("permissions: 1 rules -> 0 rules", False)
    assert config.diff(new, load(tmp_path, "\npermissions:\n")) == []  # the place alone is no difference


words = st.lists(st.sampled_from(VERBS), min_size=1, max_size=3).map(tuple)
names = st.lists(st.from_regex(r"[a-z0-9._*?-]{1,64}(/(local|plain|\*))?", fullmatch=True), min_size=1, max_size=3)
patterns = st.lists(st.sampled_from([">", "a", "a.*.b", "$qulo.>", "metrics.>", "ä.b", "it's.'x'"]), min_size=1)


@hypothesis_settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.lists(st.builds(Rule, st.booleans(), words, names.map(tuple), patterns.map(tuple)), max_size=4))
def test_what_is_rendered_reads_back_the_same(many: list[Rule]) -> None:
    text = config.rules.render(tuple(many))
    found = config.reading.read_text("qmaster", "FILE", text)["permissions"].rules
    assert found == tuple(many)
