"""The streams of a site's authority: what is stored, what is told about it, and when something goes. Pure.

Everything that changes a stream goes through the journal and is answered when it is on disk. `turn` is called once per
turn of the loop; then carry the journal's batch to the store, if there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from qulo.errors import NoStream, Overloaded, ProtocolError, QuloError, UsageError
from qulo.protocol import topics, wire
from qulo.protocol.consuming import (
    LEAST_LEASE,
    MOST_LEASE,
    MOST_PREFETCH,
    NEVER,
    Consumer,
    Group,
    tell_expired,
)
from qulo.protocol.journal import Journal, Then
from qulo.protocol.ports import Limits, Note, Put
from qulo.protocol.session import Session
from qulo.protocol.spans import Span
from qulo.protocol.storage import (
    Append,
    Appended,
    DeadLetter,
    Delayed,
    GroupAdd,
    GroupRemove,
    GroupState,
    Origin,
    Purge,
    Removed,
    Requeue,
    Result,
    Retried,
    Store,
    Stored,
    Stream,
    StreamAdd,
    StreamChange,
    StreamRemove,
    StreamState,
    Trim,
    check_name,
    check_stream,
)

# Topics whose stream is remembered; beyond it the table starts anew.
TOPICS = 50_000

# Delayed messages of a stream whose times are known; later ones are asked for when these are through.
DELAYED = 1000

# Groups that a stream can have, and streams that a hub can: each is looked at in every turn, and lasts.
MOST_GROUPS, MOST_STREAMS = 1000, 1000

# Messages that are removed in one batch, and seconds between two looks for some when there is no hurry.
TRIM, TRIM_EVERY = 2000, 1.0

# Seconds between two lines in the log about publishes that could not be stored.
UNSTORED_EVERY = 10.0

# Numbers that one record can settle: what a consumer holds, and as much again that comes late.
MOST_SETTLED = 2 * MOST_PREFETCH

# What a put may say beside topic and body, with the type that each has.
EXTRA: dict[str, type] = {
    "ids": list,
    "delay": int,
    "ttl": int,
    "agent": str,
    "number": int,
    "age": int,
    "require": str,
}

# What agents call themselves where their puts are numbered, and how many there can be behind one key: an agent that is
# restored from a backup is another one, and those below an agent come through it.
AGENT = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")
MOST_AGENTS = 1000

# Longest id of a message, and latest time that a delay or an expiry can have: 10 years from now, in ms.
ID, FAR = 255, 10 * 365 * 86_400_000

# Where a put was acknowledged.
AT_MASTER, AT_AGENT = "master", "agent"


class Wish(NamedTuple):
    """What a session wants to consume, and how; the lease in ms."""

    stream: str
    group: str
    prefetch: int
    lease: int
    start: str


class Loaded(NamedTuple):
    """What a store knows of one stream when a hub starts."""

    state: StreamState
    groups: list[GroupState]
    retries: dict[str, list[Retried]]
    delayed: list[Delayed]


def load(store: Store, now_ms: int) -> list[Loaded]:
    """Everything that `Streams.adopt` needs. Blocks; in the store's thread."""
    return [
        Loaded(
            state,
            groups := store.groups(state.stream.name),
            {group.group: _retries(store, state.stream.name, group.group) for group in groups if group.retries},
            store.delayed(state.stream.name, now_ms, DELAYED),
        )
        for state in store.streams()
    ]


def _retries(store: Store, stream: str, group: str) -> list[Retried]:
    found: list[Retried] = []
    while page := store.retries(stream, group, found[-1].seq if found else 0):
        found += page
    return found


class Open:
    """One stream while the hub runs."""

    def __init__(self, stream: Stream, last: int) -> None:
        self.stream = stream
        self.last = last
        self.groups: dict[str, Group] = {}
        self.delayed: list[Delayed] = []  # heap
        self.delayed_until = 0  # later ones than this (ms) may be on disk only; 0: all are known
        self.asked_delayed = False


class Streams:
    """All streams of a hub that is a site's authority."""

    def __init__(
        self,
        limits: Limits,
        note: Callable[[Note], None],
        publish: Callable[[Session, str, int, list[bytes]], None],
    ) -> None:
        """`publish` reaches those who subscribe now, with what a session has put."""
        self.journal = Journal()
        self.limits = limits
        self.offset_ms = 0
        """Wall clock minus the clock of `now`; the driver keeps it."""
        self.due: float | None = None
        """When `turn` has something to do even if nothing happens; it does no harm before."""
        self.unstored = 0
        """Messages that were published on a stream's topic and not stored."""
        self.table: dict[str, Open] = {}
        self._note = note
        self._publish = publish
        self._by_topic: dict[str, Open | None] = {}
        self._turned_ms = 0  # the wall clock at the last turn: delays until then have ended
        self._trim_due = 0.0
        self._trimming = False
        self._untold = 0
        self._told = -UNSTORED_EVERY
        self._names: set[str] = set()  # of streams that are being made
        self._agents: dict[str, set[str]] = {}  # by principal, the agents whose numbers are kept, for ever

    def adopt(self, loaded: list[Loaded], marks: Iterable[str], now: float) -> None:
        """Begin with what the store has; `marks` are the agents whose numbers it keeps."""
        for principal, _, agent in (mark.rpartition("/") for mark in marks):
            self._agents.setdefault(principal, set()).add(agent)
        self._turned_ms = self.wall(now)
        for state, groups, retries, delayed in loaded:
            name = state.stream.name
            opened = self.table[name] = Open(state.stream, state.last)
            self._know_delayed(opened, delayed)
            for group in groups:
                made = self._add_group(opened, group, opened.last)
                made.load(retries.get(group.group, ()), now, self.wall(now))

    def _add_group(self, opened: Open, state: GroupState, before: int) -> Group:
        group = Group(opened.stream.name, state, before, opened.stream.max_tries, self.journal)
        opened.groups[state.group] = group
        return group

    def wall(self, now: float) -> int:
        """Milliseconds since 1970."""
        return int(now * 1000) + self.offset_ms

    # -- what sessions say

    def find(self, topic: str) -> Open | None:
        """The stream that stores this topic."""
        try:
            return self._by_topic[topic]
        except KeyError:
            pass
        found = None
        if not topics.is_local(topic):
            for opened in self.table.values():
                if any(topics.matches(pattern, topic) for pattern in opened.stream.topics):
                    found = opened
                    break
        if len(self._by_topic) >= TOPICS:
            self._by_topic.clear()
        self._by_topic[topic] = found
        return found

    def topics_of(self, name: str) -> tuple[str, ...]:
        """What the stream stores; nothing if there is none of that name."""
        opened = self.table.get(name)
        return opened.stream.topics if opened is not None else ()

    def put(self, session: Session, put: Put, now: float) -> None:
        """Store it, then answer. Raises ProtocolError for what cannot be said like that."""
        ids = check_put(put)
        opened = self.find(put.topic)
        if opened is None:
            refuse(session, put, NoStream(f"no stream stores {put.topic}: `qulo stream add` makes one"))
            return
        extra = put.extra or {}
        time_ms = self.wall(now) - max(0, extra.get("age", 0))
        visible = time_ms + extra["delay"] if extra.get("delay") else 0
        expires = time_ms + extra["ttl"] if extra.get("ttl") else 0
        name, topic, kind = opened.stream.name, put.topic, put.kind
        if "agent" in extra:
            agent, number = self._numbering(session, extra["agent"]), extra["number"]
            operations = [
                Append(name, topic, kind, body, time_ms, ids[i], visible, expires, Origin(agent, number + i))
                for i, body in enumerate(put.bodies)
            ]
        elif ids or visible or expires:
            operations = [
                Append(name, topic, kind, body, time_ms, ids[i], visible, expires) for i, body in enumerate(put.bodies)
            ]
        else:
            operations = [Append(name, topic, kind, body, time_ms) for body in put.bodies]
        self.journal.submit(operations, partial(self._put_done, session, opened, put, operations), _bytes(put.bodies))

    def _numbering(self, session: Session, agent: str) -> str:
        """Whose numbers these are: no agent can say that it is another one. Raises ProtocolError."""
        known = self._agents.setdefault(session.principal, set())
        if agent not in known:
            if len(known) >= MOST_AGENTS:
                raise ProtocolError(f"more than {MOST_AGENTS} agents number their puts behind one key")
            known.add(agent)
        return f"{session.principal}/{agent}"

    def _put_done(
        self, session: Session, opened: Open, put: Put, operations: list[Append], results: list[Result], now: float
    ) -> None:
        """Answer in runs: most often it is one."""
        name, channel = opened.stream.name, session.channel
        at, count = 0, len(results)
        while at < count:
            result = results[at]
            end = at + 1
            if isinstance(result, Appended):
                seq, duplicate = result
                step = seq > 0  # of what an agent sends again nobody knows the number any more
                while end < count and results[end] == (seq + step * (end - at), duplicate):
                    end += 1
                channel.add(
                    [wire.STORED, put.rid + at, end - at, name, seq, duplicate, AT_MASTER],
                    wire.RECORD_OVERHEAD + len(name),
                )
                if not duplicate:
                    self._is_stored(opened, operations[at:end], seq, now)
                    self._publish(session, put.topic, put.kind, put.bodies[at:end])
            elif isinstance(result, QuloError):
                while end < count and type(results[end]) is type(result):
                    end += 1
                refuse(session, put, result, at, end - at)
            at = end

    def published(self, session: Session, topic: str, kind: int, bodies: list[bytes], now: float) -> None:
        """Store what was published on a stream's topic; nobody waits for it, but a failure is told."""
        opened = self.find(topic)
        if opened is None:
            return
        time_ms, name = self.wall(now), opened.stream.name
        operations = [Append(name, topic, kind, body, time_ms) for body in bodies]
        self.journal.submit(operations, partial(self._published, session, opened, operations), _bytes(bodies))

    def _published(
        self, session: Session, opened: Open, operations: list[Append], results: list[Result], now: float
    ) -> None:
        stored = [result.seq for result in results if isinstance(result, Appended)]
        if stored:
            kept = [op for op, result in zip(operations, results, strict=True) if isinstance(result, Appended)]
            self._is_stored(opened, kept, stored[0], now)
        errors = [result for result in results if isinstance(result, QuloError)]
        if errors:
            self.unstored += len(errors)
            self._untold += len(errors)
            error = errors[0]
            if session.channel.bytes <= 2 * session.channel.limit:
                text = f"published, but not stored: {error}"
                record = [wire.FORBIDDEN, operations[0].topic, error.code, text]
                session.channel.add(record, 4 * len(text) + wire.RECORD_OVERHEAD)
            if now - self._told >= UNSTORED_EVERY:
                self._told, untold, self._untold = now, self._untold, 0
                self._note(Note("error", f"{untold} messages were published and not stored: {error}"))

    def _is_stored(self, opened: Open, operations: Sequence[Append], first: int, now: float) -> None:
        """Consecutive new messages are on disk: consumers that wait get them at once."""
        last = first + len(operations) - 1
        opened.last = max(opened.last, last)
        visible = operations[0].visible_ms
        if visible and visible > self._turned_ms:
            for seq in range(first, last + 1):
                self._is_delayed(opened, Delayed(visible, seq))
            return
        if visible:  # it took so long to store them that their time has come
            for group in opened.groups.values():
                for seq in range(first, last + 1):
                    group.visible(seq, now)
        waiting = [group for group in opened.groups.values() if group.consumers]
        if waiting:
            messages = [
                Stored(first + i, op.topic, op.kind, op.body, op.time_ms, None, op.visible_ms, op.expires_ms)
                for i, op in enumerate(operations)
            ]
            for group in waiting:
                group.appended(messages)

    # -- consumers

    def consume(self, session: Session, sid: int, wish: Wish, now: float) -> None:
        """Make the session a consumer; READY when its group is there. Raises a QuloError that says why not."""
        opened = self._check_wish(session, sid, wish)
        stream, group, prefetch, lease, start = wish
        self.leave(session, sid, now)
        if group in opened.groups:
            self._join(session, sid, opened.groups[group], prefetch, lease / 1000)
            return
        session.consumers[sid] = None
        floor = opened.last if start == "new" else 0
        made_ms = self.wall(now)

        def made(results: list[Result], now: float) -> None:
            if group not in opened.groups:  # else another consumer was quicker
                if isinstance(results[0], QuloError) or self.table.get(stream) is not opened:
                    _deny(session, sid, NoStream(f"the stream {stream} was removed"))
                    session.consumers.pop(sid, None)
                    return
                self._add_group(opened, GroupState(group, floor, (), 0, made_ms), 0)
            if sid in session.consumers and session.consumers[sid] is None:
                self._join(session, sid, opened.groups[group], prefetch, lease / 1000)

        self.journal.submit([GroupAdd(stream, group, floor, made_ms)], made)

    def _check_wish(self, session: Session, sid: int, wish: Wish) -> Open:
        """The stream that is wanted; raises a QuloError that says what cannot be."""
        stream, group, prefetch, lease, start = wish
        held = len(session.subscriptions) + len(session.members) + len(session.responders) + len(session.consumers)
        if held >= self.limits.max_subscriptions * session.weight and sid not in session.consumers:
            raise Overloaded(f"this peer has {held} subscriptions; the limit is max_subscriptions")
        opened = self._the(stream)
        check_name(group, "group")
        if start not in ("first", "new"):
            raise UsageError(f"a group starts at first or new, not at {start[:32]!r}")
        if not 0 < prefetch <= MOST_PREFETCH:
            raise UsageError(f"prefetch is 1 to {MOST_PREFETCH}, not {prefetch}")
        if not LEAST_LEASE <= lease <= MOST_LEASE:
            raise UsageError(f"a lease is {LEAST_LEASE} ms to {MOST_LEASE // 3_600_000} h, not {lease} ms")
        if len(opened.groups) >= MOST_GROUPS and group not in opened.groups:
            raise Overloaded(f"the stream {stream} has {MOST_GROUPS} groups: remove some with `qulo stream group rm`")
        return opened

    def _join(self, session: Session, sid: int, group: Group, prefetch: int, lease: float) -> None:
        consumer = Consumer(session, sid, group, prefetch, lease)
        session.consumers[sid] = consumer
        group.join(consumer)
        session.channel.add([wire.READY, sid, 0, 0], wire.RECORD_OVERHEAD)

    def leave(self, session: Session, sid: int, now: float) -> bool:
        """It consumes no more: what it held comes to others. Who leaves in order gives everything back before."""
        if sid not in session.consumers:
            return False
        consumer = session.consumers.pop(sid)
        if consumer is not None:
            consumer.group.leave(consumer, now, self.wall(now))
        return True

    def forget(self, session: Session, now: float) -> None:
        """The session has ended."""
        for sid in list(session.consumers):
            self.leave(session, sid, now)

    def settle(self, session: Session, record: wire.Record, now: float) -> None:
        """ACK, NAK, EXTEND or REJECT. Raises ProtocolError."""
        consumer: Consumer | None = session.consumers.get(record[1])
        if consumer is None:
            return  # it has left, or was told that it may not
        group = consumer.group
        verb = record[0]
        if verb == wire.EXTEND:
            wanted = record[3] / 1000 if record[3] else consumer.lease
            seconds = min(max(LEAST_LEASE / 1000, wanted), MOST_LEASE / 1000)
            group.extend(consumer, _spans(record[2]), seconds, now)
            return
        if verb == wire.ACK:
            group.ack(consumer, _spans(record[3]))
        elif verb == wire.NAK:
            delay = min(max(0, record[4]), FAR) / 1000
            group.nak(consumer, _spans(record[3]), delay, record[5], now, self.wall(now))
        else:
            group.reject(consumer, record[3], record[4], now, self.wall(now))
        group.settled(consumer, record[2])

    # -- every turn

    def turn(self, now: float) -> None:
        """Deliver, end leases, write acknowledgements, remove what is not to be kept. Sets `due`."""
        wall = self.wall(now)
        if wall < self._turned_ms:
            self._went_back(wall)
        self._turned_ms = wall
        everything = self.due is not None and now >= self.due
        due = NEVER if everything or self.due is None else self.due
        for opened in self.table.values():
            if opened.delayed or opened.delayed_until:
                self._end_delays(opened, now, wall)
                if opened.delayed:
                    due = min(due, (opened.delayed[0].visible_ms - self.offset_ms) / 1000)
            last = opened.last
            for group in opened.groups.values():
                if not group.is_quiet(last, now):
                    group.turn(last, now, wall)
                elif not everything:  # when it is due is in `due` already
                    continue
                due = min(due, group.next_due(now))
        self.due = due if due < NEVER else None
        if now >= self._trim_due and not self._trimming and self.table:
            self._trim(wall)

    def _trim(self, wall: int) -> None:
        self._trimming = True
        self.journal.submit([Trim(wall, TRIM)], self._trimmed)

    def _trimmed(self, results: list[Result], now: float) -> None:
        self._trimming = False
        more = isinstance(results[0], Removed) and results[0].more
        self._trim_due = now if more else now + TRIM_EVERY

    # -- delays

    def _is_delayed(self, opened: Open, delayed: Delayed) -> None:
        if opened.delayed_until and delayed.visible_ms > opened.delayed_until:
            return  # asked for when it is its turn
        heappush(opened.delayed, delayed)
        if len(opened.delayed) > 2 * DELAYED:
            opened.delayed = sorted(opened.delayed)[:DELAYED]
            opened.delayed_until = opened.delayed[-1].visible_ms

    def _know_delayed(self, opened: Open, delayed: list[Delayed]) -> None:
        opened.delayed = sorted({*opened.delayed, *delayed})
        opened.delayed_until = delayed[-1].visible_ms if len(delayed) >= DELAYED else 0

    def _went_back(self, wall: int) -> None:
        """The clock was set back: what is delayed again is known again, for the groups that had not come that far."""
        for opened in self.table.values():

            def ask(store: Store, name: str = opened.stream.name) -> list[Delayed]:
                return store.delayed(name, wall, DELAYED)

            def tell(delayed: list[Delayed], now: float, opened: Open = opened) -> None:
                self._know_delayed(opened, delayed)

            self.journal.ask(ask, tell)

    def _end_delays(self, opened: Open, now: float, wall: int) -> None:
        while opened.delayed and opened.delayed[0].visible_ms <= wall:
            seq = heappop(opened.delayed).seq
            for group in opened.groups.values():
                group.visible(seq, now)
        if not opened.delayed and opened.delayed_until and not opened.asked_delayed:
            opened.asked_delayed = True
            name, until = opened.stream.name, opened.delayed_until - 1

            def ask(store: Store) -> list[Delayed]:
                return store.delayed(name, until, DELAYED)

            def tell(delayed: list[Delayed], now: float) -> None:
                opened.asked_delayed = False
                self._know_delayed(opened, delayed)

            self.journal.ask(ask, tell)

    # -- what administrators do; `then` is called with None or the error, once that is on disk

    def add(self, stream: Stream, then: Callable[[QuloError | None], None], now: float) -> None:
        """Make a stream. Raises UsageError."""
        if stream.name in self.table or stream.name in self._names:
            raise UsageError(f"there is a stream {stream.name} already: change it with change, or remove it first")
        if len(self.table) >= MOST_STREAMS:
            raise Overloaded(f"there are {MOST_STREAMS} streams already")
        self._check(stream)
        stream = replace(stream, created_ms=self.wall(now))
        self._names.add(stream.name)

        def made(results: list[Result], now: float) -> None:
            self._names.discard(stream.name)
            if not isinstance(results[0], QuloError):
                self.table[stream.name] = Open(stream, 0)
                self._by_topic.clear()
            then(_error(results[0]))

        self.journal.submit([StreamAdd(stream)], made)

    def change(self, stream: Stream, then: Callable[[QuloError | None], None]) -> None:
        """Give a stream another definition. Raises NoStream or UsageError."""
        opened = self._the(stream.name)
        self._check(stream, opened.stream)
        stream = replace(stream, created_ms=opened.stream.created_ms)

        def changed(results: list[Result], now: float) -> None:
            if not isinstance(results[0], QuloError):
                opened.stream = stream
                self._by_topic.clear()
                for group in opened.groups.values():
                    group.max_tries = stream.max_tries
            then(_error(results[0]))

        self.journal.submit([StreamChange(stream)], changed)

    def _check(self, stream: Stream, before: Stream | None = None) -> None:
        check_stream(stream, before)
        for pattern in stream.topics:
            if topics.is_local(pattern) or topics.is_system(pattern):
                raise UsageError(f"{pattern}: a stream stores neither a host's local topics nor the system's")
            for other in self.table.values():
                if other.stream.name == stream.name:
                    continue
                for theirs in other.stream.topics:
                    if topics.overlap(pattern, theirs):
                        raise UsageError(
                            f"{pattern} and {theirs} of the stream {other.stream.name} have topics in common: "
                            "a message goes to one stream"
                        )

    def remove(self, name: str, then: Callable[[QuloError | None], None]) -> None:
        """Forget a stream; its consumers are told. Raises NoStream."""
        opened = self._the(name)

        def removed(results: list[Result], now: float) -> None:
            if self.table.get(name) is opened:
                del self.table[name]
            self._by_topic.clear()
            for group in opened.groups.values():
                self._end_group(group, NoStream(f"the stream {name} was removed"))
            then(_error(results[0]))

        self.journal.submit([StreamRemove(name)], removed)

    def remove_group(self, name: str, group: str, then: Callable[[QuloError | None], None]) -> None:
        """Forget a group; its consumers are told. Raises NoStream."""
        opened = self._the(name)
        if group not in opened.groups:
            raise NoStream(f"the stream {name} has no group {group[:64]!r}")

        def removed(results: list[Result], now: float) -> None:
            found = opened.groups.pop(group, None)
            if found is not None:
                self._end_group(found, NoStream(f"the group {group} of {name} was removed"))
            then(_error(results[0]))

        self.journal.submit([GroupRemove(name, group)], removed)

    @staticmethod
    def _end_group(group: Group, error: QuloError) -> None:
        for consumer in group.consumers:
            consumer.session.consumers.pop(consumer.sid, None)
            tell_expired(consumer, [])
            _deny(consumer.session, consumer.sid, error)
        group.consumers = []

    def purge(self, name: str, upto: int, then: Callable[[QuloError | int], None]) -> None:
        """Remove messages up to a number, 0: all that there are; `then` gets how many. Raises NoStream."""
        opened = self._the(name)
        upto = min(upto, opened.last) if upto else opened.last
        gone = 0

        def purged(results: list[Result], now: float) -> None:
            nonlocal gone
            if not isinstance(results[0], Removed):
                then(_error(results[0]) or gone)
                return
            gone += results[0].gone
            if results[0].more:
                self.journal.submit([Purge(name, upto, TRIM)], purged)
                return
            for group in opened.groups.values():
                group.purged(upto)
            then(gone)

        self.journal.submit([Purge(name, upto, TRIM)], purged)

    def _the(self, name: str) -> Open:
        opened = self.table.get(name)
        if opened is None:
            known = ", ".join(sorted(self.table)[:10]) or "none"
            raise NoStream(f"there is no stream {name[:64]!r}; there are: {known}")
        return opened

    def requeue(self, letter: DeadLetter, then: Then, now: float) -> None:
        """Give a dead letter back to its stream, for its own group; `then` gets the result of the Requeue.

        Raises NoStream when there is no such group any more: nobody would get it.
        """
        if letter.group not in self._the(letter.stream).groups:
            raise NoStream(f"the stream {letter.stream} has no group {letter.group} any more, which alone would get it")

        def requeued(results: list[Result], now: float) -> None:
            opened, result = self.table.get(letter.stream), results[0]
            if opened is not None and isinstance(result, Appended):
                opened.last = max(opened.last, result.seq)
                for group in opened.groups.values():
                    if group.name != letter.group:
                        group.done.add(result.seq, result.seq)
            then(results, now)

        self.journal.submit([Requeue(letter.number, self.wall(now))], requeued)

    def group_report(self, name: str) -> list[dict[str, Any]]:
        """What each group of a stream is at."""
        opened = self._the(name)
        return [
            {
                "group": group.name,
                "consumers": len(group.consumers),
                "floor": group.done.floor,
                "cursor": group.cursor,
                "held": len(group.held),
                "pending": opened.last - group.done.floor - sum(s.last - s.first + 1 for s in group.done.spans()),
                **asdict(group.numbers),
            }
            for group in opened.groups.values()
        ]


def check_put(put: Put) -> list[str | None]:
    """Hold a PUT against what may be said, and return the ids, one per message. Raises ProtocolError."""
    wire.check_bodies(put.kind, put.bodies)
    if not put.extra:
        return [None] * len(put.bodies)
    for name, value in put.extra.items():
        if type(value) is not EXTRA.get(name):
            raise ProtocolError("a put says more than it may")
    if any(not 0 <= put.extra.get(name, 0) <= FAR for name in ("delay", "ttl", "age")):
        raise ProtocolError("a put's times are not negative, and not later than ten years from now")
    if ("agent" in put.extra) != ("number" in put.extra) or not 0 < put.extra.get("number", 1) < 2**62:
        raise ProtocolError("an agent's puts have a number from 1 on")
    if not AGENT.match(put.extra.get("agent", "0")):
        raise ProtocolError("an agent that numbers its puts is called by 1 to 64 of a-z A-Z 0-9 . _ -")
    ids = put.extra.get("ids") or [None] * len(put.bodies)
    if len(ids) != len(put.bodies) or any(i is not None and not (type(i) is str and 0 < len(i) <= ID) for i in ids):
        raise ProtocolError(f"an id is text of 1 to {ID} characters")
    return ids


def refuse(session: Session, put: Put, error: QuloError, at: int = 0, count: int = 0) -> None:
    """These of its messages are not stored."""
    text = str(error)
    record = [wire.UNSTORED, put.rid + at, count or len(put.bodies), error.code, text]
    session.channel.add(record, 4 * len(text) + wire.RECORD_OVERHEAD)


def _deny(session: Session, sid: int, error: QuloError) -> None:
    text = str(error)
    session.channel.add([wire.DENIED, sid, error.code, text], 4 * len(text) + wire.RECORD_OVERHEAD)


def _error(result: Result) -> QuloError | None:
    return result if isinstance(result, QuloError) else None


def _bytes(bodies: list[bytes]) -> int:
    return sum(map(len, bodies)) + 100 * len(bodies)


def _spans(numbers: list[Any]) -> list[Span]:
    """As on the wire: first, last, first, last, … Raises ProtocolError, also for more than consumers ever hold."""
    if len(numbers) % 2 or not {int}.issuperset(map(type, numbers)):
        raise ProtocolError("spans are pairs of numbers")
    spans = list(map(Span, numbers[::2], numbers[1::2]))
    if not all(0 < first <= last for first, last in spans):
        raise ProtocolError("a span has a first number and a last one")
    if sum(last - first + 1 for first, last in spans) > MOST_SETTLED:
        raise ProtocolError("more numbers than a consumer can hold")
    return spans
