"""A group of a stream and its consumers: who holds which message, until when, and what comes back. Pure.

Every message of the stream is, for each group, in exactly one of these places:

    beyond `cursor`     not looked at yet
    `ready`             read, waits for a consumer with room
    `held`              at a consumer, until it is settled or its lease ends
    `_waiting`          was given back; comes again when its time has come
    delayed             may not be delivered yet; the stream knows when
    `done`              acknowledged: in the store, or in a batch on its way there

Leases live in memory: after a restart everything that is not done is delivered again, and says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import chain

from qulo.errors import StoreFull
from qulo.protocol.journal import Journal, ignore
from qulo.protocol.session import Life, Session
from qulo.protocol.spans import Span, Spans
from qulo.protocol.storage import Ack, Bury, GroupState, Operation, Read, Result, Retried, Retry, Store, Stored
from qulo.protocol.wire import ACKED, BATCH, BODY_OVERHEAD, DELIVER, EXPIRED, RECORD_OVERHEAD

# Messages, and bytes of them, that are read ahead for a group; with half of that the next are asked for.
READ_COUNT, READ_BYTES = 1000, 1024 * 1024

# Messages that one consumer is given at a time, while others have room as well.
SHARE = 100

# Messages that were given back and wait, per group: a hundred bytes each. With more nothing new is delivered.
MOST_WAITING = 100_000

# Seconds until a message that could not be buried for want of space is tried again.
BURY_AGAIN = 10.0

# Leases that are remembered beyond twice those that hold something: long ones would heap up otherwise.
TIDY = 10_000

# A consumer can hold so many messages, whatever it asks for, and a lease be so long (ms).
MOST_PREFETCH = 10_000
LEAST_LEASE, MOST_LEASE = 100, 24 * 3600 * 1000

# A time that does not come.
NEVER = float("inf")

# A reason is told and kept up to this length.
REASON = 500


@dataclass(slots=True, eq=False)
class Consumer:
    """One `consume` of one session."""

    session: Session
    sid: int
    group: Group
    prefetch: int
    lease: float  # seconds
    held: int = 0
    is_stuck: bool = False  # a lease of its ended, and it has settled nothing since: others come first
    record: int = 0  # the last that settled something: told when it is on disk

    @property
    def room(self) -> int:
        """Messages that it can be given now."""
        session = self.session
        if session.life is not Life.UP or not session.connected or session.channel.room <= 0:
            return 0
        return self.prefetch - self.held


@dataclass(slots=True, eq=False)
class Lease:
    """Messages that a consumer was given at one time."""

    consumer: Consumer
    deadline: float


@dataclass(slots=True)
class Numbers:
    """What a group counts since the hub started."""

    delivered: int = 0
    redelivered: int = 0
    acked: int = 0
    naked: int = 0
    expired: int = 0
    buried: int = 0
    late: int = 0  # settled by one whose lease had ended
    missed: int = 0  # gone by a limit of the stream before the group had them


class Group:
    """The cursor of one group in its stream."""

    def __init__(self, stream: str, state: GroupState, last: int, max_tries: int, journal: Journal) -> None:
        self.stream = stream
        self.name = state.group
        self.max_tries = max_tries
        self.done = Spans(state.floor, state.acked)
        self.cursor = state.floor
        self.consumers: list[Consumer] = []
        self.held: dict[int, Lease] = {}
        self.numbers = Numbers()
        self._last_before = last  # up to here, everything may have been delivered before this start
        self._journal = journal
        self._ready: deque[Stored] = deque()
        self._tries: dict[int, int] = {}  # deliveries that came to nothing, of what was delivered and is not done
        self._waiting: list[tuple[float, int]] = []  # heap of (not before, number)
        self._reading = False
        self._early: set[int] = set()  # beyond the cursor, delays that ended while it was being read on
        self._coming: set[int] = set()  # what had a delay that ended, and is in `_ready` or `_waiting`
        self._fetching = False
        self._deadlines: list[tuple[float, int, Lease, Sequence[int]]] = []
        self._leases = 0
        self._settled_early: set[int] = set()  # acknowledged by a late consumer while they wait here
        self._acks: list[Span] = []
        self._others: list[Operation] = []
        self._settlers: dict[Consumer, None] = {}
        self._turn = 0
        self._not_yet: dict[int, float] = {}  # given back before this start, until then
        self._tidy_at = TIDY

    def load(self, retried: Iterable[Retried], now: float, now_ms: int) -> None:
        """What the store says of earlier tries."""
        for seq, tries, not_before_ms in retried:
            self._tries[seq] = tries
            if not_before_ms > now_ms:
                self._not_yet[seq] = now + (not_before_ms - now_ms) / 1000

    # -- consumers

    def join(self, consumer: Consumer) -> None:
        """One more consumer."""
        self.consumers.append(consumer)

    def leave(self, consumer: Consumer, now: float, now_ms: int) -> None:
        """It is gone, and what it held comes again; what it held longest counts as tried.

        That is what it was at, most likely: with all counted, one message that kills its workers would take
        everything with it that they had only been about to get.
        """
        self.consumers.remove(consumer)
        seqs = [seq for seq, lease in self.held.items() if lease.consumer is consumer]
        if seqs:
            oldest = min(seqs)
            seqs.remove(oldest)
            self._tried(oldest, f"{consumer.session.name} was lost", now, now, now_ms)
        for seq in seqs:
            self._give_back(seq, now)
        if not self.consumers:
            for message in self._ready:  # do not hold what nobody may ever want
                heappush(self._waiting, (now, message.seq))
            self._ready.clear()

    def _give_back(self, seq: int, when: float) -> None:
        lease = self.held.pop(seq)
        lease.consumer.held -= 1
        self._tries.setdefault(seq, 0)
        heappush(self._waiting, (when, seq))

    def _tried(self, seq: int, why: str, when: float, now: float, now_ms: int) -> None:
        """A delivery came to nothing: it comes again, unless that was the last one."""
        tries = self._tries.get(seq, 0) + 1
        if self.max_tries and tries >= self.max_tries:
            self._bury(seq, f"{tries} times delivered; {why}", tries, now, now_ms)
            return
        self._give_back(seq, when)
        self._tries[seq] = tries
        self._others.append(Retry(self.stream, self.name, seq, tries, now_ms + int((when - now) * 1000)))

    def _bury(self, seq: int, reason: str, tries: int, now: float, now_ms: int) -> None:
        self.held.pop(seq).consumer.held -= 1
        self._tries[seq] = tries
        bury = Bury(self.stream, self.name, seq, reason[:REASON], tries, now_ms)
        self._journal.submit((bury,), partial(self._buried, seq))

    def _buried(self, seq: int, results: list[Result], now: float) -> None:
        if isinstance(results[0], StoreFull):
            heappush(self._waiting, (now + BURY_AGAIN, seq))
            return
        self.done.add(seq, seq)
        self._tries.pop(seq, None)
        self.numbers.buried += 1

    # -- what consumers say

    def ack(self, consumer: Consumer, spans: Iterable[Span]) -> None:
        """These are done."""
        held, tries = self.held, self._tries
        for first, last in spans:
            start = end = 0  # of a run of numbers that are done
            for seq in range(first, last + 1):
                lease = held.get(seq)
                if lease is not None and lease.consumer is consumer:
                    del held[seq]
                    consumer.held -= 1
                elif lease is not None or not self._was_given(seq):
                    self.numbers.late += 1
                    continue
                if tries:
                    tries.pop(seq, None)
                if seq != end + 1 or not start:
                    if start:
                        self._acks += self.done.add(start, end)
                    start = seq
                end = seq
            if start:
                self._acks += self.done.add(start, end)

    def _was_given(self, seq: int) -> bool:
        """Is it one that waits to be delivered again? Whoever had it may still settle it, before another one has it."""
        if not 0 < seq <= max(self.cursor, self._last_before) or seq in self.done:
            return False
        if seq <= self.cursor:
            self._settled_early.add(seq)
        return True

    def settled(self, consumer: Consumer, record: int) -> None:
        """That was its record of this number: it is told when all of it is on disk."""
        consumer.record = max(consumer.record, record)
        consumer.is_stuck = False
        self._settlers[consumer] = None

    def nak(
        self, consumer: Consumer, spans: Iterable[Span], delay: float, tried: bool, now: float, now_ms: int
    ) -> None:
        """It does not want these now, which counts as a try; if it has not tried them it is about to leave."""
        if not tried:
            consumer.prefetch = 0
        for seq in self._of(consumer, spans):
            self.numbers.naked += 1
            if tried:
                self._tried(seq, f"{consumer.session.name} gave it back", now + delay, now, now_ms)
            else:
                self._give_back(seq, now + delay)

    def extend(self, consumer: Consumer, spans: Iterable[Span], seconds: float, now: float) -> None:
        """Its leases of these go on from now."""
        seqs = self._of(consumer, spans)
        if seqs:
            self._lease(consumer, seqs, now + seconds)

    def reject(self, consumer: Consumer, seq: int, reason: str, now: float, now_ms: int) -> None:
        """To the dead letters with it."""
        if seq in self._of(consumer, (Span(seq, seq),)):
            self._bury(seq, reason or "rejected", self._tries.get(seq, 0) + 1, now, now_ms)

    def _of(self, consumer: Consumer, spans: Iterable[Span]) -> list[int]:
        """Those of the numbers that it holds."""
        held = self.held
        return [
            seq
            for first, last in spans
            for seq in range(first, last + 1)
            if seq in held and held[seq].consumer is consumer
        ]

    # -- what the stream says

    def appended(self, messages: list[Stored]) -> None:
        """New messages, visible now: without a detour over the disk, if everything before them was looked at."""
        if (
            self._reading
            or not self.consumers
            or messages[0].seq != self.cursor + 1
            or len(self._ready) >= READ_COUNT
            or len(self._waiting) >= MOST_WAITING
        ):
            return
        self._ready.extend(messages)
        self.cursor = messages[-1].seq

    def visible(self, seq: int, now: float) -> None:
        """A delayed message may be delivered from now on. May be said twice: clocks are set back."""
        if seq > self.cursor:
            if self._reading:  # what is on its way may have found it delayed
                self._early.add(seq)
            return
        if seq in self._coming or seq in self._tries or seq in self.held or seq in self.done:
            return
        self._coming.add(seq)
        heappush(self._waiting, (now, seq))

    def purged(self, upto: int) -> None:
        """Messages up to a number were removed: what waits here of them does not exist any more."""
        gone = [message.seq for message in self._ready if message.seq <= upto]
        if gone:
            self._ready = deque(message for message in self._ready if message.seq > upto)
        for seq in gone:
            self._forget(seq)

    # -- every turn

    def is_quiet(self, last: int, now: float) -> bool:
        """Has `turn` nothing to do?"""
        return not (
            self._settlers
            or self._acks
            or self._others
            or (
                self.consumers and (self._ready or self.cursor < last or (self._waiting and self._waiting[0][0] <= now))
            )
            or (self._deadlines and self._deadlines[0][0] <= now)
        )

    def turn(self, last: int, now: float, now_ms: int) -> None:
        """End leases, give consumers what there is, ask for what is needed, and write down what was settled."""
        self._end_leases(now, now_ms)
        if self.consumers:
            self._fetch_due(now)
            self._deal(now, now_ms)
            self._read_on(last, now_ms)
        self._write()

    def next_due(self, now: float) -> float:
        """When the next lease ends, or something comes again; what is due already waits for room."""
        due = NEVER
        if self._deadlines and self._deadlines[0][0] > now:
            due = self._deadlines[0][0]
        if self._waiting and self.consumers and self._waiting[0][0] > now:
            due = min(due, self._waiting[0][0])
        return due

    def _end_leases(self, now: float, now_ms: int) -> None:
        expired: dict[Consumer, list[int]] = {}
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, lease, seqs = heappop(self._deadlines)
            for seq in seqs:
                if self.held.get(seq) is lease:
                    expired.setdefault(lease.consumer, []).append(seq)
        for consumer, seqs in expired.items():
            self.numbers.expired += len(seqs)
            consumer.is_stuck = True
            for seq in seqs:
                self._tried(seq, f"{consumer.session.name} had it until its lease ended", now, now, now_ms)
            tell_expired(consumer, flat(spans_of(sorted(seqs))))

    def _fetch_due(self, now: float) -> None:
        """What was given back and has waited long enough is read again."""
        if self._fetching or not self._waiting or self._waiting[0][0] > now or len(self._ready) >= READ_COUNT:
            return
        due: set[int] = set()
        while self._waiting and self._waiting[0][0] <= now and len(due) < READ_COUNT:
            due.add(heappop(self._waiting)[1])
        self._fetching = True
        seqs = sorted(due)
        stream = self.stream

        def fetch(store: Store) -> list[Stored]:
            return store.fetch(stream, seqs)

        self._journal.ask(fetch, partial(self._fetched, seqs))

    def _fetched(self, seqs: list[int], messages: list[Stored], now: float) -> None:
        self._fetching = False
        gone = set(seqs).difference(message.seq for message in messages)
        for seq in gone:
            self._forget(seq)
        self._ready.extendleft(reversed(messages))

    def _forget(self, seq: int) -> None:
        """It does not exist any more: done, as far as this group goes."""
        self._tries.pop(seq, None)
        self._coming.discard(seq)
        self._settled_early.discard(seq)
        self._acks += self.done.add(seq, seq)

    def _read_on(self, last: int, now_ms: int) -> None:
        if (
            self._reading
            or self.cursor >= last
            or len(self._ready) > READ_COUNT // 2
            or len(self._waiting) >= MOST_WAITING
        ):
            return
        self._reading = True
        stream, after = self.stream, self.cursor

        def read(store: Store) -> Read:
            return store.read(stream, after, READ_COUNT, READ_BYTES, now_ms)

        self._journal.ask(read, self._have_read)

    def _have_read(self, read: Read, now: float) -> None:
        self._reading = False
        after, self.cursor = self.cursor, max(self.cursor, read.upto)
        known = [message.seq for message in read.messages]
        if read.delayed:
            known = sorted(chain(known, (delayed.seq for delayed in read.delayed)))
            for _, seq in read.delayed:
                if seq in self._early:
                    self.visible(seq, now)
        self._early.clear()
        done = self.done.within(Span(after + 1, max(after + 1, read.upto)))
        if len(known) < read.upto - after:
            self._note_holes(after, known, read.upto)
        messages = read.messages
        if done or self._not_yet:
            messages = [m for m in messages if m.seq not in self.done and not self._put_off(m.seq, now)]
        self._coming.update(message.seq for message in messages if message.visible_ms)
        self._ready.extend(messages)

    def _put_off(self, seq: int, now: float) -> bool:
        """Was it given back before this start, until later?"""
        when = self._not_yet.pop(seq, 0.0)
        if when <= now:
            return False
        heappush(self._waiting, (when, seq))
        return True

    def _note_holes(self, after: int, known: list[int], upto: int) -> None:
        """Numbers that do not exist any more are done: else the floor would stay below them for ever."""
        at = after + 1
        for seq in chain(known, (upto + 1,)):
            if seq > at:
                fresh = self.done.add(at, seq - 1)
                self._acks += fresh
                self.numbers.missed += sum(last - first + 1 for first, last in fresh)
            at = seq + 1

    # -- dealing

    def _deal(self, now: float, now_ms: int) -> None:
        """Consumers with room take turns."""
        ready = self._ready
        while ready:
            able = [consumer for consumer in self.consumers if consumer.room > 0]
            if not able:
                return
            able = [consumer for consumer in able if not consumer.is_stuck] or able
            self._turn += 1
            share = min(SHARE, -(-len(ready) // len(able))) if len(able) > 1 else len(ready)
            for number in range(len(able)):
                consumer = able[(self._turn + number) % len(able)]
                messages = self._take(min(share, consumer.room), now_ms)
                if messages:
                    self._give(consumer, messages, now)

    def _take(self, count: int, now_ms: int) -> list[Stored]:
        ready = self._ready
        if count >= len(ready):
            messages = list(ready)
            ready.clear()
        else:
            messages = [ready.popleft() for _ in range(count)]
        if self._settled_early:
            early = self._settled_early
            kept = [m for m in messages if m.seq not in early]
            early.difference_update(m.seq for m in messages)
            messages = kept
        for message in messages:
            if message.expires_ms and message.expires_ms <= now_ms:
                self._forget(message.seq)
        return [m for m in messages if not m.expires_ms or m.expires_ms > now_ms]

    def _give(self, consumer: Consumer, messages: list[Stored], now: float) -> None:
        """Runs of consecutive messages that have everything but their bodies in common are one record."""
        tries, before = self._tries, self._last_before
        channel, sid = consumer.session.channel, consumer.sid
        bodies: list[bytes] = []
        run: tuple[int, bool, int, str, int] | None = None
        first = size = 0
        for message in messages:
            seq, topic, kind, body, time_ms = message[:5]
            tried = tries.get(seq) if tries else None
            like = (tried or 0, tried is not None or seq <= before, time_ms, topic, kind)
            if like != run or seq != first + len(bodies) or size + len(body) > BATCH:
                if run is not None:
                    channel.add([DELIVER, sid, first, run[0] + 1, *run[1:], bodies], size)
                run, first, bodies, size = like, seq, [], RECORD_OVERHEAD + 4 * len(topic)
            bodies.append(body)
            size += len(body) + BODY_OVERHEAD
            self.numbers.redelivered += like[1]
        if run is not None:
            channel.add([DELIVER, sid, first, run[0] + 1, *run[1:], bodies], size)
        self.numbers.delivered += len(messages)
        seqs = [message.seq for message in messages]
        if self._coming:
            self._coming.difference_update(seqs)
        consumer.held += len(seqs)
        self._lease(consumer, seqs, now + consumer.lease)

    def _lease(self, consumer: Consumer, seqs: Sequence[int], deadline: float) -> None:
        lease = Lease(consumer, deadline)
        self.held.update(dict.fromkeys(seqs, lease))
        self._leases += 1
        seqs = sorted(seqs)  # what was given back comes before newer ones, and stands anywhere in an EXTEND
        if seqs[-1] - seqs[0] == len(seqs) - 1:
            seqs = range(seqs[0], seqs[-1] + 1)
        heappush(self._deadlines, (deadline, self._leases, lease, seqs))
        if len(self._deadlines) > self._tidy_at:
            held = self.held
            self._deadlines = [entry for entry in self._deadlines if any(held.get(seq) is entry[2] for seq in entry[3])]
            heapify(self._deadlines)
            self._tidy_at = 2 * len(self._deadlines) + TIDY

    # -- to the store

    def _write(self) -> None:
        """One operation for all acknowledgements of this turn."""
        if not self._settlers and not self._acks and not self._others:
            return
        acks, others, settlers = self._acks, self._others, self._settlers
        self._acks, self._others, self._settlers = [], [], {}
        operations: list[Operation] = []
        if acks:
            self.numbers.acked += sum(last - first + 1 for first, last in acks)
            operations.append(Ack(self.stream, self.name, merged(acks)))
        operations += others
        told = [(consumer, consumer.record) for consumer in settlers]
        self._journal.submit(operations, partial(self._written, told) if told else ignore)

    def _written(self, told: list[tuple[Consumer, int]], results: list[Result], now: float) -> None:
        for consumer, record in told:
            consumer.session.channel.add([ACKED, consumer.sid, record], RECORD_OVERHEAD)


def tell_expired(consumer: Consumer, spans: list[int]) -> None:
    """Its leases of these have ended."""
    consumer.session.channel.add([EXPIRED, consumer.sid, spans], RECORD_OVERHEAD + 9 * len(spans))


def spans_of(numbers: Iterable[int]) -> list[Span]:
    """Ascending numbers as spans."""
    spans: list[Span] = []
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            spans.append(Span(first, last))
        first = last = number
    if first:
        spans.append(Span(first, last))
    return spans


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same numbers in as few spans as possible."""
    whole: list[Span] = []
    for span in sorted(spans):
        if whole and span.first <= whole[-1].last + 1:
            whole[-1] = Span(whole[-1].first, max(whole[-1].last, span.last))
        else:
            whole.append(span)
    return tuple(whole)


def flat(spans: Iterable[Span]) -> list[int]:
    """As they are on the wire: first, last, first, last, …"""
    return [number for span in spans for number in span]
