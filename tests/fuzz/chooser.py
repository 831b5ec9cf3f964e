"""Bytes as a source of choices: targets build structured input from them, so that a mutation changes a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chooser:
    """Takes its bytes from the front; when there are none left every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Is nothing left to choose with?"""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """The next byte, 0 at the end."""
        if self.is_empty:
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def below(self, bound: int) -> int:
        """A number below `bound`, which is at most 256."""
        return self.byte() % bound

    def pick(self, among: Sequence[T]) -> T:
        """One of them."""
        return among[self.below(len(among))]

    def some(self, most: int = 255) -> bytes:
        """A piece of the input, its length first."""
        length = min(self.byte(), most)
        piece = self._data[self._at : self._at + length]
        self._at += length
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece
