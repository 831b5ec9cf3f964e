"""A set of acknowledged numbers: a floor, below which all are in, and the spans above it.

Acks in order are one number, and a message that stays open for days costs one span, not one row for each later one.

Pure: no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """The numbers from `first` to `last`, both included."""

    first: int
    last: int


class Spans:
    """Numbers from 1 on; spans above the floor are ascending and neither touch nor overlap."""

    __slots__ = ("_first", "_last", "floor", "touched")

    def __init__(self, floor: int = 0, spans: Iterable[Span] = ()) -> None:
        self.floor = floor
        self._first: list[int] = []
        self._last: list[int] = []
        self.touched: set[int] = set()
        """First numbers of spans that came, went or grew; whoever writes them down clears it."""
        for span in spans:
            self.add(*span)
        self.touched.clear()

    def add(self, first: int, last: int) -> list[Span]:
        """Add numbers; returns those that were not in."""
        first = max(first, self.floor + 1)
        if first > last:
            return []
        i = bisect_left(self._last, first - 1)
        j = bisect_right(self._first, last + 1)  # i to j - 1 overlap or adjoin
        if i == j and first == self.floor + 1:  # in order, the common case
            self.floor = last
            return [Span(first, last)]
        fresh, at, low, high = [], first, first, last
        if i < j:
            low, high = min(first, self._first[i]), max(last, self._last[j - 1])
            for k in range(i, j):
                if self._first[k] > at:
                    fresh.append(Span(at, min(self._first[k] - 1, last)))
                at = max(at, self._last[k] + 1)
            self.touched.update(self._first[i:j])
        if at <= last:
            fresh.append(Span(at, last))
        if low == self.floor + 1:
            self.floor = high
            self._first[i:j], self._last[i:j] = [], []
        else:
            self._first[i:j], self._last[i:j] = [low], [high]
            self.touched.add(low)
        return fresh

    def last_of(self, first: int) -> int | None:
        """The end of the span above the floor that begins with `first`; None if none does."""
        i = bisect_left(self._first, first)
        return self._last[i] if i < len(self._first) and self._first[i] == first else None

    def spans(self) -> tuple[Span, ...]:
        """Those above the floor."""
        return tuple(map(Span, self._first, self._last))

    def within(self, span: Span) -> list[Span]:
        """Which of these numbers are in."""
        first, last = span
        found = [Span(first, min(last, self.floor))] if first <= self.floor else []
        overlapping = range(bisect_left(self._last, first), bisect_right(self._first, last))
        found += [Span(max(first, self._first[k]), min(last, self._last[k])) for k in overlapping]
        return found

    def __contains__(self, number: int) -> bool:
        return bool(self.within(Span(number, number)))
