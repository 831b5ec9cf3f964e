"""What agents say they have lost: collected in bounded tables, and told in one walk over the subscriptions. Pure.

A record of loss is a few bytes, and telling it is a walk over all that everybody subscribes to. So a record only adds
to its session's table, at the cost of its size; what is in the tables is told once per turn, and no more often than
once per tick. It must never forget a loss: what does not fit makes what is told wider.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qulo.protocol import topics
from qulo.protocol.session import Session

# Topics of one session's table; beyond it one `>` speaks for all. As many as its relay tells apart.
MOST = 1000

# Subscriptions that are looked at per tick: with more, or when several agents lose, a walk is followed by a longer
# pause. 100,000 take 0.4 s.
PER_TICK = 20_000

# Characters of a reason that are passed on; ours are words.
REASON = 32


@dataclass(slots=True)
class _Table:
    """Topics by name, which cost one look each, and one pattern with wildcards, which costs a look at everything."""

    topics: dict[str, str] = field(default_factory=dict)  # topic → reason
    wide: tuple[str, str] | None = None  # pattern, reason

    def add(self, pattern: str, reason: str) -> None:
        if topics.is_wide(pattern):
            if self.wide is None or topics.covers(pattern, self.wide[0]):
                self.wide = (pattern, reason)
            elif not topics.covers(self.wide[0], pattern):
                self.wide = (">", reason)
        elif len(self.topics) < MOST or pattern in self.topics:
            self.topics[pattern] = reason
        else:
            self.wide = (">", reason)

    def all(self) -> dict[str, str]:
        """Pattern → reason."""
        return self.topics | (dict([self.wide]) if self.wide is not None else {})


@dataclass(slots=True)
class _Lost:
    """Of one session: what it may publish on, and what only those topics can have lost that it had published on."""

    allowed: _Table = field(default_factory=_Table)
    denied: _Table = field(default_factory=_Table)


class Losses:
    """The losses that are still to be told."""

    def __init__(self) -> None:
        self._lost: dict[Session, _Lost] = {}
        self._pause = 0  # ticks until something may be told again

    def add(self, session: Session, pattern: str, reason: str) -> None:
        """An agent could not forward everything on `pattern`, which it may publish on."""
        self._of(session).allowed.add(pattern, reason[:REASON])

    def add_denied(self, session: Session, pattern: str, reason: str) -> None:
        """The same of a pattern that it may not publish on: it speaks of those topics that it had published on."""
        self._of(session).denied.add(pattern, reason[:REASON])

    def _of(self, session: Session) -> _Lost:
        lost = self._lost.get(session)
        if lost is None:
            lost = self._lost[session] = _Lost()
        return lost

    @property
    def due(self) -> bool:
        """Is there something to tell now?"""
        return bool(self._lost) and not self._pause

    def tick(self) -> None:
        """Time has passed: what waits may be told, if the last walk was no long one."""
        self._pause = max(0, self._pause - 1)

    def take(self, subscriptions: int) -> list[tuple[bytes, dict[str, str]]]:
        """(instance of who lost it, pattern → reason) of each, to be told now to whom of so many it concerns."""
        self._pause = 1 + subscriptions * len(self._lost) // PER_TICK
        lost, self._lost = self._lost, {}
        return [(session.instance, _topics_of(session, each)) for session, each in lost.items()]


def _topics_of(session: Session, lost: _Lost) -> dict[str, str]:
    for pattern, reason in lost.denied.topics.items():
        if pattern in session.forwarded or ">" in session.forwarded:
            lost.allowed.add(pattern, reason)
    if lost.denied.wide is not None:
        pattern, reason = lost.denied.wide
        for topic in session.forwarded:
            if topics.overlap(topic, pattern):
                lost.allowed.add(topic, reason)
    return lost.allowed.all()
