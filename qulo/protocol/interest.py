"""Who is interested in what: the patterns of a hub's subscribers, found by topic in O(tokens).

A hub keeps one Interest per distinct (pattern, local) and counts on it, once per run, what every subscription
with that pattern is owed; subscriptions remember the counts at which they began. So the cost of a run does not
grow with the number of subscribers, only with the number of distinct patterns that match its topic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PatternIndex(Generic[T]):
    """A trie from patterns to values; `match` gives the values of every pattern that matches a topic."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def setdefault(self, pattern: str, make: Callable[[], T]) -> T:
        """The value under exactly this pattern, made when it is not there."""
        node = self._root
        for token in pattern.split("."):
            node = node.setdefault(token, {})
        if "" not in node:  # "" is never a token
            node[""] = make()
        value: T = node[""]
        return value

    def get(self, pattern: str) -> T | None:
        """The value under exactly this pattern."""
        node = self._root
        for token in pattern.split("."):
            if token not in node:
                return None
            node = node[token]
        value: T | None = node.get("")
        return value

    def remove(self, pattern: str) -> None:
        """Forget the pattern and the branches that only it needed."""
        path = [self._root]
        tokens = pattern.split(".")
        for token in tokens:
            path.append(path[-1][token])
        del path[-1][""]
        for token, node in zip(reversed(tokens), reversed(path[:-1]), strict=True):
            if node[token]:
                break
            del node[token]

    def match(self, topic: str) -> list[T]:
        """The values of all patterns that match `topic`."""
        found: list[T] = []
        if topic[0] == "$":  # wildcards in the first place never match the system's topics
            tokens = topic.split(".")
            if tokens[0] in self._root:
                _collect(self._root[tokens[0]], tokens, 1, found)
        else:
            _collect(self._root, topic.split("."), 0, found)
        return found

    def values(self) -> list[tuple[str, T]]:
        """Every (pattern, value)."""
        found: list[tuple[str, T]] = []
        _walk(self._root, [], found)
        return found


def _collect(node: dict[str, Any], tokens: list[str], depth: int, found: list[Any]) -> None:
    if depth == len(tokens):
        if "" in node:
            found.append(node[""])
        return
    if ">" in node:
        found.append(node[">"][""])
    if tokens[depth] in node:
        _collect(node[tokens[depth]], tokens, depth + 1, found)
    if "*" in node:
        _collect(node["*"], tokens, depth + 1, found)


def _walk(node: dict[str, Any], path: list[str], found: list[tuple[str, Any]]) -> None:
    for token, child in node.items():
        if token == "":
            found.append((".".join(path), child))
        else:
            _walk(child, [*path, token], found)


@dataclass(slots=True, eq=False)
class Interest:
    """What all subscriptions with one pattern have in common.

    `local` tells whether the subscribers may see `local.>`: the same pattern of others matches less.
    """

    pattern: str
    local: bool
    since: int  # the hub's number when it began
    count: int = 0  # messages published that match, since this interest began
    frames: int = 0  # PUB frames they made
    on_pub: dict[Any, int] = field(default_factory=dict)  # listener → subscriptions served by its PUB
    direct: dict[Any, int] = field(default_factory=dict)  # sessions served over ROUTER → how many subscriptions
    users: int = 0  # subscriptions, in whatever state
