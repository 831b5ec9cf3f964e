"""Groups: every message on the pattern goes to one member of the group.

Members that are up and have room take turns, message by message, so that a batch of work spreads over all of
them. When all are full the work goes to the emptiest up to a hard bound, `crowded` makes the hub hold the
publishers back, and only what exceeds the bound is dropped, and said so.
"""

from __future__ import annotations

from qulo.protocol.session import Life, Session
from qulo.protocol.wire import WORK

# A member may hold this many times its channel's limit before work is dropped: publishers are held back from
# half the limit on, so more than their last batches never comes.
HARD_BOUND = 4


class Group:
    """The members of one group on one pattern, in the order in which they take turns."""

    __slots__ = ("_turn", "crowded", "dropped", "members", "name", "pattern")

    def __init__(self, pattern: str, name: str) -> None:
        self.pattern = pattern
        self.name = name
        self.members: list[tuple[Session, int]] = []
        self.crowded = False
        self.dropped = 0  # messages, since the members are all full
        self._turn = 0

    def add(self, session: Session, sid: int) -> None:
        """One more member; one session may be several."""
        self.members.append((session, sid))

    def remove(self, session: Session, sid: int) -> None:
        """A member has left; what it was given and did not take is its own affair."""
        self.members.remove((session, sid))

    def deal(self, topic: str, kind: int, bodies: list[bytes], local: bool = False) -> int:
        """Give each body to one member; returns how many were dropped because all members are full.

        A local topic is for members on this host; others have it in no pattern.
        """
        members = [m for m in self.members if m[0].listener.local] if local else self.members
        if not members:
            return 0
        up = [m for m in members if m[0].life is Life.UP] or members
        able = [m for m in up if m[0].channel.room > m[0].channel.limit // 2]
        self.crowded = not able
        if not able:
            member = max(up, key=lambda m: m[0].channel.room)
            if member[0].channel.bytes > HARD_BOUND * member[0].channel.limit:
                return len(bodies)
            able = [member]
        self._turn += 1
        share = min(len(able), len(bodies))
        for number in range(share):
            session, sid = able[(self._turn + number) % len(able)]
            session.channel.add_run([WORK, sid, topic, kind], bodies[number::share])
        self._turn += share - 1
        return 0
