"""Bugs to be sown: each a patch of the core or of the simulated disk, which the checks must find within some seeds.

A bug is a function that takes `patch(owner, name, broken)`, as pytest's monkeypatch.setattr. They are the mistakes that
this kind of code invites, one each; none of them may ever be found in `qulo/`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappush
from typing import Any

from qulo.protocol import consuming, topics
from qulo.protocol.channel import Channel
from qulo.protocol.consuming import Consumer
from qulo.protocol.groups import Group as WorkGroup
from qulo.protocol.hub import Hub
from qulo.protocol.intake import Intake
from qulo.protocol.journal import Batch
from qulo.protocol.link import Link
from qulo.protocol.relay import Relay
from qulo.protocol.router import Router
from qulo.protocol.spans import Span
from qulo.protocol.spool import Spool
from qulo.protocol.storage import Append, Appended, Read, Requeue, SpoolRelease, Stored
from qulo.protocol.streams import Streams
from qulo.protocol.tracker import Item, Run, Tracker
from qulo.protocol.window import Missed, Window
from qulo.store.memory import MemoryStore
from tests.simulation.disk import Disk

Patch = Callable[[object, str, object], None]
Bug = Callable[[Patch], None]


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _no(*args: Any, **kwargs: Any) -> bool:
    return False


def _yes(*args: Any, **kwargs: Any) -> bool:
    return True


# -- publish and subscribe, groups, requests


def hole_not_seen(patch: Patch) -> None:
    """A hole before a run is not seen."""
    take = Tracker.take

    def blind(self: Tracker, prev: int, run: Run, out: list[Item]) -> bool:
        return take(self, 0, run, out)

    patch(Tracker, "take", blind)


def tail_not_seen(patch: Patch) -> None:
    """A loss at the tail is not seen."""
    patch(Tracker, "told", _no)


def gap_dropped(patch: Patch) -> None:
    """What fell out of the window is not told."""
    missed = Window.missed

    def silent(self: Window, *args: Any) -> Missed:
        return Missed(missed(self, *args).frames, None)

    patch(Window, "missed", silent)


def never_had_dropped(patch: Patch) -> None:
    """What an agent never had is not told."""
    patch(Router, "_never_came", _nothing)


def gap_not_passed(patch: Patch) -> None:
    """A gap is passed to nobody."""
    patch(Router, "pass_gaps", _nothing)


def not_sent_again(patch: Patch) -> None:
    """Nothing is sent again after a reconnection."""
    patch(Channel, "rewind", _nothing)


def repair_brings_nothing(patch: Patch) -> None:
    """A repair brings nothing."""
    patch(Tracker, "repair", _nothing)


def no_repair(patch: Patch) -> None:
    """A link asks for no repair."""
    patch(Link, "_ask_repair", _nothing)


def unsent_forgotten(patch: Patch) -> None:
    """A new session forgets what was not sent."""

    def forget(self: Channel) -> dict[str, int]:
        mark = self.mark
        self.__init__(self.limit)  # type: ignore[misc]
        self.mark = mark
        return {}

    patch(Channel, "forget_sent", forget)


def work_for_two(patch: Patch) -> None:
    """Work is given to two members."""
    deal = WorkGroup.deal

    def twice(self: WorkGroup, *args: Any) -> int:
        deal(self, *args)
        return deal(self, *args)

    patch(WorkGroup, "deal", twice)


def never_released(patch: Patch) -> None:
    """Publishers that wait are never released."""

    def measure(self: Intake, now: float) -> None:
        self.blocked = not self._router.measure(now)

    patch(Intake, "measure", measure)


def own_come_back(patch: Patch) -> None:
    """An agent does not know its own messages."""
    turn = Relay.turn

    def forgetful(self: Relay, *args: Any) -> Any:
        self.link.identity.instance, kept = b"somebody", self.link.identity.instance
        try:
            return turn(self, *args)
        finally:
            self.link.identity.instance = kept

    patch(Relay, "turn", forgetful)


def overlapping_twice(patch: Patch) -> None:
    """Overlapping patterns are published twice."""
    patch(Relay, "_is_news", _yes)


def lost_not_told(patch: Patch) -> None:
    """An agent does not tell what it lost."""
    patch(Relay, "lost", _nothing)


def local_goes_out(patch: Patch) -> None:
    """Local topics are like all others."""
    patch(topics, "is_local", _no)


def answer_lost(patch: Patch) -> None:
    """An agent that loses its master leaves its programs' requests open."""
    went_away = Relay.went_away

    def silent(self: Relay) -> None:
        self._requests.clear()
        went_away(self)

    patch(Relay, "went_away", silent)


# -- streams


def ack_before_commit(patch: Patch) -> None:
    """A put is answered before it is on disk."""

    def begin(self: Disk, batch: Batch) -> None:
        before = copy.deepcopy(self.store.__dict__ | {"_handlers": None})
        outcome = batch.carry_out(self.store)
        self._batch = batch

        def interrupt() -> None:
            if self._batch is batch and self._random.random() < 0.5:
                handlers = self.store._handlers
                self.store.__dict__.update(before)
                self.store._handlers = handlers
            self._batch = None

        def finish() -> None:
            if self._batch is batch:
                self._batch = None
                del self._interrupt

        self._interrupt = interrupt  # type: ignore[method-assign]
        self.process.after(0.05 + 0.2 * self._random.random(), finish)
        core = self._core
        if core is not None:
            core.journal.done(outcome, self.process.clock.now)
            self._woken()

    patch(Disk, "_begin", begin)


def dedupe_forgotten(patch: Patch) -> None:
    """An id is not remembered."""
    append = MemoryStore._append

    def forget(self: MemoryStore, op: Append) -> Any:
        return append(self, op._replace(id=None))

    def init(self: MemoryStore, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._handlers[Append] = partial(forget, self)

    original = MemoryStore.__init__
    patch(MemoryStore, "__init__", init)


def mark_not_stored(patch: Patch) -> None:
    """The highest number of an agent's puts is not kept."""
    append = MemoryStore._append

    def forget(self: MemoryStore, op: Append) -> Any:
        result = append(self, op)
        self._marks.clear()
        return result

    def init(self: MemoryStore, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._handlers[Append] = partial(forget, self)

    original = MemoryStore.__init__
    patch(MemoryStore, "__init__", init)


def spool_out_of_order(patch: Patch) -> None:
    """While the spool drains, new puts go past it."""
    patch(Spool, "_is_online", property(lambda self: self._link.phase.value == "up"))
    queue_up = Spool._queue_up

    def past(self: Spool, *args: Any) -> None:
        kept, self.open = self.open, 0
        try:
            queue_up(self, *args)
        finally:
            self.open += kept

    patch(Spool, "_queue_up", past)


def spool_acked_unstored(patch: Patch) -> None:
    """An agent answers for its spool before that is on disk."""
    spool = Spool._spool

    def early(self: Spool, *args: Any, **kwargs: Any) -> None:
        submit = self.journal.submit

        def at_once(operations: Sequence[Any], then: Callable[[list[Any], float], None], size: int = 0) -> None:
            then([None] * len(operations), 0.0)
            self._unstored = list(operations)  # type: ignore[attr-defined]

        self.journal.submit = at_once  # type: ignore[method-assign]
        try:
            spool(self, *args, **kwargs)
        finally:
            self.journal.submit = submit  # type: ignore[method-assign]

    patch(Spool, "_spool", early)


def flights_forgotten(patch: Patch) -> None:
    """What was on its way to a master that went away is forgotten."""

    def forget(self: Spool, now: float) -> None:
        self._flying.clear()
        self._link.withdraw_puts()
        self._spool_flying = 0
        self._sent = self._answered

    patch(Spool, "went_away", forget)


def spool_released_early(patch: Patch) -> None:
    """The spool forgets what it has sent, before the master has answered."""
    send = Spool._send

    def release(self: Spool, run: list[Any], wall: int) -> None:
        send(self, run, wall)
        self.journal.submit([SpoolRelease(run[-1].number)], _nothing)

    patch(Spool, "_send", release)


def lease_not_ended(patch: Patch) -> None:
    """Leases do not end."""
    patch(consuming.Group, "_end_leases", _nothing)


def lease_out_of_order(patch: Patch) -> None:
    """A lease of numbers out of order is taken for one of all between the first and the last; it was in the product."""

    def lease(self: consuming.Group, consumer: Consumer, seqs: Sequence[int], deadline: float) -> None:
        lease = consuming.Lease(consumer, deadline)
        self.held.update(dict.fromkeys(seqs, lease))
        self._leases += 1
        if seqs[-1] - seqs[0] == len(seqs) - 1:
            seqs = range(seqs[0], seqs[-1] + 1)
        heappush(self._deadlines, (deadline, self._leases, lease, seqs))

    patch(consuming.Group, "_lease", lease)


def two_holders(patch: Patch) -> None:
    """A message is given to somebody else while its lease goes on."""
    give = consuming.Group._give

    def again(self: consuming.Group, consumer: Consumer, messages: list[Stored], now: float) -> None:
        give(self, consumer, messages, now)
        others = [other for other in self.consumers if other is not consumer and other.room > 0]
        if others and len(messages) == 1:
            consumer.held -= 1
            self._tries.setdefault(messages[0].seq, 0)
            self._give(others[0], messages, now)

    patch(consuming.Group, "_give", again)


def extend_unheard(patch: Patch) -> None:
    """A lease ends although it was extended."""
    patch(consuming.Group, "extend", _nothing)


def flag_forgotten(patch: Patch) -> None:
    """What comes again does not say so."""
    give_back = consuming.Group._give_back

    def forget(self: consuming.Group, seq: int, when: float) -> None:
        give_back(self, seq, when)
        if not self._tries.get(seq):
            self._tries.pop(seq, None)

    patch(consuming.Group, "_give_back", forget)


def flag_forgotten_by_restart(patch: Patch) -> None:
    """What was delivered before a restart comes again without saying so."""
    add_group = Streams._add_group

    def fresh(self: Streams, opened: Any, state: Any, before: int) -> Any:
        return add_group(self, opened, state, 0)

    patch(Streams, "_add_group", fresh)


def cursor_beyond_unacked(patch: Patch) -> None:
    """After a restart a group goes on behind what was acknowledged last, not at its floor."""
    init = consuming.Group.__init__

    def beyond(self: consuming.Group, stream: str, state: Any, last: int, *args: Any) -> None:
        init(self, stream, state, last, *args)
        self.cursor = max([state.floor, *(span.last for span in state.acked)])

    patch(consuming.Group, "__init__", beyond)


def floor_beyond_unacked(patch: Patch) -> None:
    """An acknowledgement counts for everything before it."""
    ack = MemoryStore._ack

    def all_before(self: MemoryStore, op: Any) -> Any:
        return ack(self, op._replace(spans=[Span(1, max(span.last for span in op.spans))]))

    def init(self: MemoryStore, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        handlers: dict[type, Callable[[Any], Any]] = self._handlers
        for kind in list(handlers):
            if kind.__name__ == "Ack":
                handlers[kind] = partial(all_before, self)

    original = MemoryStore.__init__
    patch(MemoryStore, "__init__", init)


def requeue_twice(patch: Patch) -> None:
    """A dead letter that was given back stays, and other groups get it as well."""
    requeue = Streams.requeue

    def both(self: Streams, letter: Any, then: Any, now: float) -> None:
        requeue(self, letter, then, now)
        self.journal.submit([Requeue(letter.number, self.wall(now))], _nothing)

    def stays(self: MemoryStore, op: Requeue) -> Any:
        kept = self._dead.get(op.letter)
        result = original_requeue(self, op)
        if kept is not None and isinstance(result, Appended):
            self._dead[op.letter] = kept
        return result

    def init(self: MemoryStore, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._handlers[Requeue] = partial(stays, self)

    original, original_requeue = MemoryStore.__init__, MemoryStore._requeue
    patch(MemoryStore, "__init__", init)
    patch(Streams, "requeue", both)


def holes_forgotten(patch: Patch) -> None:
    """Numbers that do not exist any more keep the floor down."""
    patch(consuming.Group, "_note_holes", _nothing)


def delay_forgotten(patch: Patch) -> None:
    """A delay that ends while a group reads is forgotten; this one was in the product."""

    def visible(self: consuming.Group, seq: int, now: float) -> None:
        if seq <= self.cursor and seq not in self.done and seq not in self.held:
            heappush(self._waiting, (now, seq))

    patch(consuming.Group, "visible", visible)


def read_skips(patch: Patch) -> None:
    """A group that has read a page leaves out the last message of it."""
    have_read = consuming.Group._have_read

    def skip(self: consuming.Group, read: Read, now: float) -> None:
        have_read(self, read._replace(messages=read.messages[:-1] or read.messages), now)

    patch(consuming.Group, "_have_read", skip)


def lost_worker_keeps(patch: Patch) -> None:
    """What a lost worker held is given to nobody."""

    def leave(self: consuming.Group, consumer: Consumer, now: float, now_ms: int) -> None:
        self.consumers.remove(consumer)
        self._settlers.pop(consumer, None)
        self._deadlines = [entry for entry in self._deadlines if entry[2].consumer is not consumer]

    patch(consuming.Group, "leave", leave)


def nak_loses(patch: Patch) -> None:
    """What was given back is taken for done."""

    def done(
        self: consuming.Group, consumer: Consumer, spans: Iterable[Span], delay: float, tried: bool, *now: Any
    ) -> None:
        self.ack(consumer, spans)

    patch(consuming.Group, "nak", done)


def acks_kept_back(patch: Patch) -> None:
    """It is said that acknowledgements are on disk before they are."""
    write = consuming.Group._write

    def early(self: consuming.Group) -> None:
        told = [(consumer, consumer.record) for consumer in self._settlers]
        self._settlers = {}
        write(self)
        self._written(told, [], 0.0)

    patch(consuming.Group, "_write", early)


def duplicates_published(patch: Patch) -> None:
    """A duplicate is called new, and reaches subscribers again."""
    put_done: Any = Streams._put_done

    def new(self: Streams, *args: Any) -> None:
        said = [r._replace(duplicate=False) if isinstance(r, Appended) and r.seq else r for r in args[-2]]
        put_done(self, *args[:-2], said, args[-1])

    patch(Streams, "_put_done", new)


def expire_keeps_consumers(patch: Patch) -> None:
    """A session that has ended goes on consuming."""
    patch(Hub, "_stop_consuming", _nothing)


BUGS: tuple[Bug, ...] = (
    *(hole_not_seen, tail_not_seen, gap_dropped, never_had_dropped, gap_not_passed, not_sent_again),
    *(repair_brings_nothing, no_repair, unsent_forgotten, work_for_two, never_released, own_come_back),
    *(overlapping_twice, lost_not_told, local_goes_out, answer_lost),
    *(ack_before_commit, dedupe_forgotten, mark_not_stored, spool_out_of_order, spool_acked_unstored),
    *(flights_forgotten, spool_released_early, lease_not_ended, lease_out_of_order, two_holders, extend_unheard),
    *(flag_forgotten, flag_forgotten_by_restart, cursor_beyond_unacked, floor_beyond_unacked, requeue_twice),
    *(holes_forgotten, delay_forgotten, read_skips, lost_worker_keeps, nak_loses, acks_kept_back),
    *(duplicates_published, expire_keeps_consumers),
)
