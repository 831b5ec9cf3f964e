"""A token bucket: so much per second on average, and bursts of a bounded size. Pure: time is an argument.

What is taken may exceed what is there, since a frame is taken in whole: the bucket is then in debt and stays shut
until that is paid.
"""

from __future__ import annotations


class Bucket:
    """`rate` per second, and bursts of up to `burst` seconds' worth; it starts full."""

    __slots__ = ("_at", "_burst", "_level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self._burst = burst
        self._level = rate * burst
        self._at = now

    def is_open(self, now: float) -> bool:
        """May something be taken?"""
        self._level = min(self.rate * self._burst, self._level + self.rate * max(0.0, now - self._at))
        self._at = now
        return self._level > 0

    def take(self, count: float) -> None:
        """Take `count`, whether or not it is there."""
        self._level -= count
