"""Connections that send garbage: counted, and ignored once it is too much. Pure; every table here is bounded.

A connection is ignored by the route that its frames come by, so that dropping one costs a look into a dict that is
empty as a rule; its user tells it from another connection that has the same route later. The driver closes it, too
(`Ignored.cut`): what is ignored then is what had been received already.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# Bad frames of one connection within so many seconds that are too many. A healthy link that has lost its session has
# at most channel.FLYING frames under way when it hears so, and connects anew.
BAD_FRAMES = 500
BAD_WITHIN = 10.0

# Seconds without a frame after which an ignored connection is heard again.
QUIET = 10.0

# Connections that are counted, and that are ignored; the ones heard of longest ago make room.
WATCHED = 1000


@dataclass(slots=True)
class _Count:
    since: float
    bad: int = 0


@dataclass(slots=True)
class Ignored:
    """One connection that is not heard."""

    user: str
    heard: float
    dropped: int = 0
    cut: bool = False
    """Has the driver closed its connection?"""


class Offenders:
    """The connections of one listener that send garbage."""

    __slots__ = ("_counts", "ignored")

    def __init__(self) -> None:
        self.ignored: OrderedDict[bytes, Ignored] = OrderedDict()  # by route; empty as a rule: look before you ask
        self._counts: OrderedDict[str, _Count] = OrderedDict()  # by user

    def is_ignored(self, route: bytes, user: str, now: float) -> bool:
        """Shall a frame be dropped that came from there? Its sender is heard again when it has been quiet."""
        known = self.ignored.get(route)
        if known is None:
            return False
        if known.user != user or now - known.heard > QUIET:
            del self.ignored[route]
            return False
        known.heard = now
        known.dropped += 1
        return True

    def bad(self, route: bytes, user: str, now: float, weight: int = 1) -> bool:
        """One more bad frame; True when the connection is ignored from now on.

        `weight` is how many peers' worth of bad frames it may send.
        """
        count = self._counts.get(user)
        if count is None or now - count.since > BAD_WITHIN:
            self._counts.pop(user, None)
            count = self._counts[user] = _Count(now)
            if len(self._counts) > WATCHED:
                self._counts.popitem(last=False)
        count.bad += 1
        if count.bad <= BAD_FRAMES * weight:
            return False
        del self._counts[user]
        self.ignored[route] = Ignored(user, now)
        if len(self.ignored) > WATCHED:
            self.ignored.popitem(last=False)
        return True

    def tidy(self, now: float) -> None:
        """Forget those that have been quiet, so that nothing is looked up in vain. From time to time."""
        for route in [route for route, known in self.ignored.items() if now - known.heard > QUIET]:
            del self.ignored[route]
