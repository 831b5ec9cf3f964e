"""What a check found, and what it may assume. It must never decide whether something is a violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

# Of one rule so many are kept with their text: one bug can break a million messages, and ten of them say it.
KEPT = 20


class Violation(NamedTuple):
    """A rule that does not hold."""

    rule: str
    key: str
    """The message, or who it is about."""
    text: str
    t: float
    """When it showed; of what is lost, when it was acknowledged. 0: unknown."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.key}: {self.text}" + f" (at {self.t:.3f})" * bool(self.t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """What is left when all is healed and quiet."""

    streams: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The topics of each stream."""
    left: Mapping[tuple[str, str], AbstractSet[str]] = field(default_factory=dict)
    """For each (stream, group) that was there before the first put: the keys that it has not acknowledged."""
    dead: AbstractSet[tuple[str, str]] = frozenset()
    """(group, key) of dead letters; group "" in an agent's."""
    gone: AbstractSet[str] = frozenset()
    """Keys that were removed as was asked: purged, or by a limit of their stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What may be, in this history."""

    lease: float = 30.0
    """Of a delivery that does not say its own."""
    early: float = 0.0
    """A lease that ends so much earlier on the hub's clock than on the holder's is no fault: delivery takes time."""
    grace: float = 0.0
    """So long after a disturbance its effects may still show: sessions have to expire or to come back."""
    gap_grace: float = 0.0
    """A Gap may come so long after the messages behind those it covers: a dead agent's session has to expire."""
    dedupe: float = float("inf")
    """Seconds within which an id is known."""
    puts_are_heard: bool = False
    """A put has to reach who subscribes to its topic, like a publish."""


class Report:
    """Collects violations."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._kept: list[Violation] = []

    def add(self, rule: str, key: str, text: str, t: float = 0.0) -> None:
        """One more."""
        self.counts[rule] += 1
        if self.counts[rule] <= KEPT:
            self._kept.append(Violation(rule, key, text, t))

    def violations(self) -> list[Violation]:
        """Those that were kept, and a line for the rest of each rule."""
        more = [
            Violation(rule, f"{count - KEPT} more", f"{count} in all", 0.0)
            for rule, count in self.counts.items()
            if count > KEPT
        ]
        return self._kept + more
