"""What strangers can cause is told, but not each time: so that nobody can fill a disk with it. Pure.

told = telling.tell(address, now)     None: write nothing; a number: write, and how many were left out before
for key, count in telling.overdue(now): …    what was left out and is over, in one line each
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Told:
    """Of one key, in its current period."""

    since: float
    told: int = 0
    untold: int = 0


class Telling:
    """At most `each` tellings per key and `total` of all keys within `period` seconds; of `keys` keys at a time.

    The limit for all is there because keys (addresses) can be as many as somebody likes.
    """

    def __init__(self, each: int, total: int, period: float = 60.0, keys: int = 1000) -> None:
        self._each, self._total, self._period, self._most = each, total, period, keys
        self._keys: OrderedDict[str, _Told] = OrderedDict()  # by when their period began
        self._all = _Told(0.0)
        self._forgotten = 0  # left out, of keys that had to make room

    def tell(self, key: str, now: float) -> int | None:
        """Something happened: None when it shall not be told, else how many of this key were not told before."""
        if now - self._all.since >= self._period:
            self._all = _Told(now)
        known = self._keys.get(key)
        untold = 0
        if known is not None and now - known.since >= self._period:
            untold = known.untold
            del self._keys[key]
            known = None
        if known is None:
            known = self._keys[key] = _Told(now)
            if len(self._keys) > self._most:
                self._forgotten += self._keys.popitem(last=False)[1].untold
        if known.told >= self._each or self._all.told >= self._total:
            known.untold += 1 + untold
            return None
        known.told += 1
        self._all.told += 1
        return untold

    def overdue(self, now: float) -> list[tuple[str, int]]:
        """Keys whose period is over, with how many were not told; "" for keys that were forgotten. Once each."""
        found: list[tuple[str, int]] = []
        while self._keys:
            key, known = next(iter(self._keys.items()))
            if now - known.since < self._period:
                break
            del self._keys[key]
            if known.untold:
                found.append((key, known.untold))
        if self._forgotten:
            found.append(("", self._forgotten))
            self._forgotten = 0
        return found
