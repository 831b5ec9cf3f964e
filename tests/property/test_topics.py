"""Matching against a naive reference that only knows the definition of `*` and `>`."""

from __future__ import annotations

import contextlib
import re
from functools import partial

from hypothesis import example, given
from hypothesis import strategies as st

from qulo.errors import BadTopic
from qulo.protocol import topics as core
from qulo.protocol.interest import PatternIndex
from qulo.protocol.wire import session_key
from tests.property.strategies import patterns, topics


def reference(pattern: str, topic: str) -> bool:
    """The definition as a regular expression."""
    if topic.startswith("$") and pattern[0] in "*>":
        return False
    parts = {"*": r"[^.]+", ">": r".+"}
    return (
        re.fullmatch(r"\.".join(parts.get(token, re.escape(token)) for token in pattern.split(".")), topic) is not None
    )


@given(patterns, topics)
def test_matches_is_what_the_definition_says(pattern: str, topic: str) -> None:
    assert core.matches(pattern, topic) is reference(pattern, topic)


@given(topics, topics)
def test_a_topic_matches_itself_only(one: str, other: str) -> None:
    assert core.matches(one, other) is (one == other)


@given(patterns, patterns, topics)
def test_patterns_that_match_one_topic_overlap(one: str, other: str, topic: str) -> None:
    if core.matches(one, topic) and core.matches(other, topic):
        assert core.overlap(one, other)


def witness(one: str, other: str) -> str:
    """A topic that both match, if there is any: each side's choices where the other has a wildcard."""
    a, b = one.split("."), other.split(".")
    length = max(len(a), len(b))
    topic = []
    for place in range(length):
        x = a[min(place, len(a) - 1)] if a[-1] == ">" or place < len(a) else "*"
        y = b[min(place, len(b) - 1)] if b[-1] == ">" or place < len(b) else "*"
        topic.append(next((token for token in (x, y) if token not in ("*", ">")), "z"))
    return ".".join(topic)


@given(patterns, patterns)
def test_patterns_that_overlap_match_one_topic(one: str, other: str) -> None:
    assert core.overlap(one, other) is core.overlap(other, one)
    if core.overlap(one, other):
        topic = witness(one, other)
        assert core.matches(one, topic)
        assert core.matches(other, topic)


@given(patterns, topics)
def test_a_prefix_on_pub_says_exactly_what_the_pattern_matches(pattern: str, topic: str) -> None:
    prefix = core.prefix(pattern)
    if prefix is not None:
        assert core.key(topic).startswith(prefix) is core.matches(pattern, topic)


@given(patterns, st.binary(max_size=20))
def test_no_prefix_brings_the_sessions_own_frames(pattern: str, token: bytes) -> None:
    prefix = core.prefix(pattern)
    assert prefix is None or not session_key(token).startswith(prefix)


@given(st.dictionaries(patterns, st.integers(), max_size=20), st.sets(patterns), topics)
def test_the_index_finds_what_matches_and_nothing_else(values: dict[str, int], removed: set[str], topic: str) -> None:
    index: PatternIndex[str] = PatternIndex()
    for pattern in [*values, *removed]:
        index.setdefault(pattern, partial(str, pattern))
    for pattern in removed - set(values):
        index.remove(pattern)
    assert sorted(index.match(topic)) == sorted(pattern for pattern in values if reference(pattern, topic))
    assert sorted(pattern for pattern, _ in index.values()) == sorted(values)


@given(st.text(max_size=300))
@example("a.\x00")
@example(".")
def test_a_topic_is_valid_or_says_why_not(text: str) -> None:
    with contextlib.suppress(BadTopic):
        assert core.check_topic(text) == text
        assert core.check_pattern(text) == text
        assert b"\0" not in core.key(text)[:-1]
        assert core.matches(">", text) is not text.startswith("$")
