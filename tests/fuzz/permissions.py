"""covers, overlap and matches agree with each other, and decide never raises and never allows more than its rules.

covers(w, n) and matches(n, t)   ⇒ matches(w, t)
matches(a, t) and matches(b, t)  ⇒ overlap(a, b), which is symmetric
covers(w, n)                     ⇒ overlap(w, n)
a rule that denies a topic       ⇒ no pattern that has it is allowed; what is allowed for a pattern is for its topics
"""

from __future__ import annotations

from qulo.errors import BadTopic
from qulo.protocol import topics
from qulo.protocol.permissions import VERBS, Actor, Permissions, Rights, Rule
from tests.fuzz.chooser import Chooser

TOKENS = ("a", "b", "*", ">", "local", "$qulo", "ping", "admin", "enrol", "s", "")
NAMES = ("web1", "web1/local", "*", "web?", "token/x", "*/local", "uid:0")


def _word(chooser: Chooser) -> str:
    if not chooser.below(8):
        return chooser.some(60).decode("utf-8", "surrogateescape")
    return ".".join(chooser.pick(TOKENS) for _ in range(1 + chooser.below(5)))


def _pattern(chooser: Chooser) -> str | None:
    word = _word(chooser)
    try:
        return topics.check_pattern(word)
    except BadTopic:
        return None


def _topic(chooser: Chooser) -> str | None:
    word = _word(chooser)
    try:
        return topics.check_topic(word)
    except BadTopic:
        return None


def check(data: bytes) -> None:
    """Two patterns, a topic, and rules."""
    chooser = Chooser(data)
    one, two, topic = _pattern(chooser), _pattern(chooser), _topic(chooser)
    if one is None or two is None or topic is None:
        return
    _check_relations(one, two, topic)
    rules = tuple(_rule(chooser, (one, two)) for _ in range(chooser.below(4)))
    actor = Actor(chooser.pick(NAMES), bool(chooser.below(2)), bool(chooser.below(2)))
    permissions = Permissions(rules)
    rights = Rights(permissions, actor, Actor("web1/local", False) if chooser.below(2) else None)
    for verb in VERBS:
        decision = permissions.decide(actor, verb, one)
        str(decision.rule)
        for pattern in (one, two, topic):
            assert rights.decide(verb, pattern) == rights.decide(verb, pattern)
        # A pattern has no local topics for whoever is not on this host: the router and the calls leave those out.
        within = topics.matches(one, topic) and (actor.local or not topics.is_local(topic))
        if decision.allowed and within:
            assert permissions.decide(actor, verb, topic).allowed, (verb, one, topic)
        if not rules:
            assert not decision.allowed or decision.rule is not None


def _check_relations(one: str, two: str, topic: str) -> None:
    assert topics.overlap(one, two) == topics.overlap(two, one)
    assert topics.covers(one, one)
    if topics.covers(one, two):
        assert topics.overlap(one, two), (one, two)
        if topics.matches(two, topic):
            assert topics.matches(one, topic), (one, two, topic)
    if topics.matches(one, topic):
        assert topics.covers(one, topic)
        assert topics.overlap(one, topic)
        if topics.matches(two, topic):
            assert topics.overlap(one, two), (one, two, topic)
    prefix = topics.prefix(one)
    if prefix is not None:
        assert topics.key(topic).startswith(prefix) is topics.matches(one, topic)


def _rule(chooser: Chooser, patterns: tuple[str, str]) -> Rule:
    names = tuple(chooser.pick(NAMES) for _ in range(chooser.below(3)))
    return Rule(bool(chooser.below(2)), VERBS, names, (chooser.pick(patterns),))
