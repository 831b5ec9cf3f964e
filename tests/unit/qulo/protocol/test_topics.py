"""Topics and patterns: what is valid, what matches, what overlaps, and what PUB can express."""

from __future__ import annotations

import pytest

from qulo.errors import BadTopic
from qulo.protocol import topics, wire


@pytest.mark.parametrize("topic", ["a", "a.b", "a-b.C_1", "ä.ö", "$qulo.x", "a.$b", "x" * 255, "é" * 127])
def test_a_topic_is_dot_separated_tokens(topic: str) -> None:
    assert topics.check_topic(topic) == topic
    assert topics.check_pattern(topic) == topic


BAD = ["", ".", "a.", ".a", "a..b", "a b", "a\0", "a\n", "\x7f", "a\u00a0b", "\u2028", "\ud800", "x" * 256, "é" * 128]


@pytest.mark.parametrize("topic", BAD)
def test_what_is_no_topic_is_no_pattern_either(topic: str) -> None:
    for check in (topics.check_topic, topics.check_pattern):
        with pytest.raises(BadTopic):
            check(topic)


@pytest.mark.parametrize("topic", ["*", ">", "a.*", "a.>", "*.a"])
def test_a_topic_has_no_wildcard(topic: str) -> None:
    assert topics.check_pattern(topic) == topic
    with pytest.raises(BadTopic, match="wildcard"):
        topics.check_topic(topic)


@pytest.mark.parametrize("topic", ["a*", "a>b", "**", ">>"])
def test_a_wildcard_inside_a_token_is_none(topic: str) -> None:
    assert topics.check_topic(topic) == topic
    assert not topics.matches(topic, "a")


@pytest.mark.parametrize("pattern", [">.a", "a.>.b"])
def test_the_rest_comes_last(pattern: str) -> None:
    with pytest.raises(BadTopic, match="before its end"):
        topics.check_pattern(pattern)


MATCHES = [
    ("a", "a", True),
    ("a", "b", False),
    ("a", "a.b", False),
    ("a.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.b.c", False),
    ("*.b", "a.b", True),
    ("*", "a", True),
    ("*", "a.b", False),
    ("a.>", "a.b", True),
    ("a.>", "a.b.c", True),
    ("a.>", "a", False),
    ("a.>", "ab.c", False),
    (">", "a", True),
    (">", "a.b.c", True),
    ("*.>", "a.b", True),
    ("*.>", "a", False),
    ("a.*.>", "a.b.c", True),
    (">", "$qulo.x", False),
    ("*.x", "$qulo.x", False),
    ("$qulo.*", "$qulo.x", True),
    ("$qulo.>", "$qulo.x.y", True),
    ("a.>", "a.$b", True),
    ("local.>", "local.x", True),
    (">", "local.x", True),
]


@pytest.mark.parametrize(("pattern", "topic", "expected"), MATCHES)
def test_a_pattern_matches(pattern: str, topic: str, expected: bool) -> None:
    assert topics.matches(pattern, topic) is expected


OVERLAPS = [
    ("a", "a", True),
    ("a", "b", False),
    ("a.*", "*.b", True),
    ("a.*", "a.b.c", False),
    ("a.>", "a", False),
    ("a.>", "*.b.c", True),
    ("a.>", "b.>", False),
    (">", "a.b", True),
    (">", "$qulo.x", False),
    ("$qulo.*", "$qulo.x", True),
    ("*.x", "$a.x", False),
    ("a.*.c", "a.b.*", True),
    ("a.*", "a.>", True),
    ("a", "a.>", False),
    ("a.b", "a.b.>", False),
]


@pytest.mark.parametrize(("one", "other", "expected"), OVERLAPS)
def test_patterns_overlap_both_ways(one: str, other: str, expected: bool) -> None:
    assert topics.overlap(one, other) is expected
    assert topics.overlap(other, one) is expected


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("a.b", b".a.b\0"),
        ("a.>", b".a."),
        (">", b"."),
        ("$qulo.x", b"$qulo.x\0"),
        ("$qulo.x.>", b"$qulo.x."),
        ("*", None),
        ("a.*", None),
        ("*.>", None),
        ("$qulo.>", None),  # would bring the sessions' own frames
        ("$qulo.s.>", None),
        ("$qulo.s.00", None),
    ],
)
def test_a_prefix_says_exactly_the_pattern_or_there_is_none(pattern: str, prefix: bytes | None) -> None:
    assert topics.prefix(pattern) == prefix


def test_no_prefix_of_users_brings_the_systems_frames() -> None:
    own = wire.session_key(b"token")
    assert own.startswith(topics.SESSIONS)
    assert not any(own.startswith(topics.prefix(p) or b"none") for p in (">", "a.>", "$qulo.x", "$qulo.x.>"))


def test_system_and_local_topics_are_told_by_their_first_token() -> None:
    assert [topics.is_system(t) for t in ("$qulo.x", "$qulo", "$qulox", "a.$qulo")] == [True, True, False, False]
    assert [topics.is_local(t) for t in ("local.x", "local", "locally.x", "a.local")] == [True, True, False, False]
