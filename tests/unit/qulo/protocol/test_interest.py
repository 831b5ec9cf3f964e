"""The trie of patterns: it finds what matches, and forgets what nobody needs."""

from __future__ import annotations

from functools import partial

from qulo.protocol.interest import PatternIndex

PATTERNS = ["a", "a.b", "a.*", "*.b", "a.>", ">", "*", "*.>", "$qulo.>", "$qulo.x"]


def filled() -> PatternIndex[str]:
    """An index in which each pattern stands for itself."""
    index: PatternIndex[str] = PatternIndex()
    for pattern in PATTERNS:
        index.setdefault(pattern, partial(str, pattern))
    return index


def test_a_topic_finds_every_pattern_that_matches_it() -> None:
    index = filled()
    assert sorted(index.match("a.b")) == sorted(["a.b", "a.*", "*.b", "a.>", ">", "*.>"])
    assert sorted(index.match("a")) == sorted(["a", ">", "*"])
    assert sorted(index.match("z.y.x")) == sorted([">", "*.>"])


def test_wildcards_in_the_first_place_never_find_the_systems_topics() -> None:
    assert sorted(filled().match("$qulo.x")) == ["$qulo.>", "$qulo.x"]
    assert filled().match("$other.x") == []


def test_a_value_is_made_once() -> None:
    index: PatternIndex[list[int]] = PatternIndex()
    index.setdefault("a.b", list).append(1)
    index.setdefault("a.b", list).append(2)
    assert index.get("a.b") == [1, 2]
    assert index.get("a") is None
    assert index.get("a.b.c") is None


def test_what_is_removed_is_gone_and_the_rest_stays() -> None:
    index = filled()
    index.remove("a.b")
    index.remove(">")
    assert sorted(index.match("a.b")) == sorted(["a.*", "*.b", "a.>", "*.>"])
    assert sorted(pattern for pattern, _ in index.values()) == sorted(set(PATTERNS) - {"a.b", ">"})


def test_an_empty_index_holds_no_branches() -> None:
    index = filled()
    for pattern in PATTERNS:
        index.remove(pattern)
    assert index.values() == []
    assert index._root == {}
