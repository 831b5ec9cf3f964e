"""Watches a master from outside: no message of a group has two holders at a time. Knows not how the core does it.

A message is its consumer's from DELIVER, for as long as the lease says, unless that consumer settles it, leaves, or its
session ends. Whoever is given it before that is a second holder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qulo.protocol import wire
from qulo.protocol.consuming import Consumer, Group
from qulo.protocol.session import Session
from qulo.protocol.storage import Stored
from qulo.protocol.streams import Streams, Wish

Member = tuple[bytes, int]  # token of the session, sid

# A lease may end this much early (seconds): timers of the core and of this watch are not the same.
SLACK = 1e-6


class Broken(AssertionError):
    """Something that must never be."""


class LeaseWatch:
    """One life of one master."""

    def __init__(self, streams: Streams, given: Callable[[str, str, int], None]) -> None:
        """`given` is told of all that is given to somebody: stream, group, number."""
        self._given = given
        self._members: dict[Member, tuple[str, str, float]] = {}  # stream, group, lease
        self._held: dict[tuple[Group, int], tuple[Member, float]] = {}
        self._consume, self._settle, self._leave = streams.consume, streams.settle, streams.leave
        self._add_group = streams._add_group
        streams._add_group = self._watch  # type: ignore[method-assign, assignment]
        streams.consume = self.consume  # type: ignore[method-assign]
        streams.settle = self.settle  # type: ignore[method-assign]
        streams.leave = self.leave  # type: ignore[method-assign]

    def consume(self, session: Session, sid: int, wish: Wish, now: float) -> None:
        """A consumer comes, or comes again with other wishes."""
        self._consume(session, sid, wish, now)
        self._members[session.token, sid] = (wish.stream, wish.group, wish.lease / 1000)

    def _watch(self, *args: Any) -> Group:
        group = self._add_group(*args)
        give = group._give

        def given(consumer: Consumer, messages: list[Stored], now: float) -> None:
            self.delivered(consumer, [message.seq for message in messages], now)
            give(consumer, messages, now)

        group._give = given  # type: ignore[method-assign]
        return group

    def delivered(self, consumer: Consumer, seqs: list[int], now: float) -> None:
        """The hub gives messages to a consumer."""
        session, sid = consumer.session, consumer.sid
        member = session.token, sid
        known = self._members.get(member)
        if known is None:
            raise Broken(f"{session.name} is given {seqs} without having asked")
        stream, group, lease = known
        for number in seqs:
            holder = self._held.get((consumer.group, number))
            if holder is not None and now < holder[1] - SLACK:
                raise Broken(f"{stream}/{group} {number} has two holders: {holder} at {now}, and {member}")
            self._held[consumer.group, number] = (member, now + lease)
            self._given(stream, group, number)

    def settle(self, session: Session, record: wire.Record, now: float) -> None:
        """A consumer says something of its messages."""
        member = session.token, record[1]
        known = self._members.get(member)
        consumer: Consumer | None = session.consumers.get(record[1])
        if known is not None and consumer is not None:
            group, lease = consumer.group, known[2]
            verb = record[0]
            spans = record[2] if verb == wire.EXTEND else [record[3]] * 2 if verb == wire.REJECT else record[3]
            for first, last in zip(spans[::2], spans[1::2], strict=True):
                for number in range(first, last + 1):
                    holder = self._held.get((group, number))
                    if holder is None or holder[0] != member:
                        continue
                    if verb != wire.EXTEND:
                        del self._held[group, number]
                    elif now < holder[1]:
                        self._held[group, number] = (member, now + (record[3] / 1000 or lease))
        self._settle(session, record, now)

    def leave(self, session: Session, sid: int, now: float) -> bool:
        """A consumer goes, or its session ends."""
        member = session.token, sid
        if self._members.pop(member, None) is not None:
            for key in [key for key, (holder, _) in self._held.items() if holder == member]:
                del self._held[key]
        return self._leave(session, sid, now)
