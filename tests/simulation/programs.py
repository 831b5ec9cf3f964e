"""A program: a link with what the client library does for it, and a record of what that gave it.

`qulo.client` runs on asyncio; what it decides is repeated here in as few words as possible: which puts and requests a
lost session ends, what a consumer hands out, extends, and drops when its lease has ended.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from qulo.client.streams import EXTENSIONS, _without
from qulo.errors import DeadlineExceeded, Disconnected, OutcomeUnknown
from qulo.protocol import events
from qulo.protocol.consuming import flat, spans_of
from qulo.protocol.events import Event
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.tracker import Gap, Item, Tracker
from tests.simulation.clock import Process
from tests.simulation.dialler import Dialler
from tests.simulation.hubs import HubNode
from tests.simulation.record import Asked, Delivery, Message, Put, Subscribed

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds that a program waits for a request's answer, and for a put's.
PATIENCE, PUT_PATIENCE = 3.0, 6.0

# What a worker does with a message, and how often.
HABITS = ("ack",) * 16 + ("nak", "nak later", "reject", "extend", "dawdle", "forget")


class Consumer:
    """A member of a group of a stream, as `qulo.client.streams.Consumer`, with somebody who works."""

    def __init__(self, program: Program, stream: str, group: str, prefetch: int, lease: float, habits: bool) -> None:
        self.program = program
        self.stream = stream
        self.group = group
        self.lease = lease
        self.sid = program.link.consume(stream, group, prefetch, int(lease * 1000), "first")
        self.ready = False
        self.closed = False
        self._habits = habits  # is it one that does anything but acknowledge?
        self._runs: deque[events.Deliver] = deque()
        self._busy: Delivery | None = None
        self._out: dict[int, Delivery] = {}
        self._unconfirmed: deque[Delivery] = deque()
        program.after(lease / EXTENSIONS, self._keep_alive)

    # -- what the hub says

    def take(self, run: events.Deliver) -> None:
        """Messages for us."""
        self._runs.append(run)
        if self._busy is None:
            self._next()

    def expired(self, spans: list[int]) -> None:
        """Leases have ended: what was not handed out yet is not ours any more."""
        if not spans:
            self._runs.clear()
            self._out.clear()
            self._unconfirmed.clear()
            return
        ended = list(zip(spans[::2], spans[1::2], strict=True))
        kept: deque[events.Deliver] = deque()
        for run in self._runs:
            kept.extend(_without(run, ended))
        self._runs = kept
        for seq in [seq for seq in self._out if any(first <= seq <= last for first, last in ended)]:
            del self._out[seq]
        # An acknowledgement on its way came too late then, perhaps: what is said of its record says nothing of it.
        late = [d for d in self._unconfirmed if any(first <= d.seq <= last for first, last in ended)]
        self._unconfirmed = deque(d for d in self._unconfirmed if d not in late)

    def acked(self, record: int) -> None:
        """What was settled up to there is on disk."""
        while self._unconfirmed and self._unconfirmed[0].record <= record:
            self._unconfirmed.popleft().confirmed = self.program.clock.count

    # -- work

    def _next(self) -> None:
        """Hand out the next message, and work on it."""
        self._busy = None
        if self.closed or not self._runs:
            return
        run = self._runs[0]
        if len(run.bodies) > 1:
            self._runs[0] = run._replace(seq=run.seq + 1, bodies=run.bodies[1:])
        else:
            self._runs.popleft()
        program, world = self.program, self.program.world
        delivery = Delivery(
            *(program, self.group, self.stream, run.seq, run.bodies[0].decode(), run.redelivered, run.tries),
            *(program.clock.count, program.clock.now, self.sid),
        )
        world.deliveries.append(delivery)
        if world.tracing:
            world.say(f"{program.name} ({self.group}) got {run.seq} {delivery.body} tries {run.tries}")
        self._busy = self._out[run.seq] = delivery
        habit = world.random.choice(HABITS) if self._habits else "ack"
        seconds = self.lease * 1.2 if habit == "dawdle" else 0.002 + 0.02 * world.random.random()
        program.after(seconds, partial(self._done, delivery, habit))

    def _done(self, delivery: Delivery, habit: str) -> None:
        link, seq = self.program.link, delivery.seq
        mine = self._out.get(seq) is delivery
        if self.closed:
            return
        if habit == "extend":
            link.extend(self.sid, [seq, seq])
            self.program.after(self.lease * 0.8, partial(self._done, delivery, "ack"))
            self.program.dialler.wake()
            return
        self._out.pop(seq, None)
        if habit in ("ack", "dawdle"):
            delivery.settled = "ack"
            delivery.record = link._settled.get(self.sid, 0) + 1  # all of a turn's are one record
            link.ack(self.sid, seq)
        elif habit in ("nak", "nak later"):
            delivery.settled = "nak"
            link.settled_by(self.sid)  # acknowledgements that wait go before
            link.nak(self.sid, [seq, seq], 700 if habit == "nak later" else 0, True)
        elif habit == "reject":
            delivery.settled = "reject"
            link.settled_by(self.sid)
            link.reject(self.sid, seq, "not this one")
        if delivery.settled:
            delivery.settled_at = self.program.clock.count
            delivery.record = delivery.record or link.settled_by(self.sid)
            if mine:
                self._unconfirmed.append(delivery)
        self.program.dialler.wake()
        self._next()

    def _keep_alive(self) -> None:
        if self.closed:
            return
        self.program.after(self.lease / EXTENSIONS, self._keep_alive)
        spans = [n for run in self._runs for n in (run.seq, run.seq + len(run.bodies) - 1)]
        if spans:
            self.program.link.extend(self.sid, spans)
            self.program.dialler.wake()

    def leave(self) -> None:
        """Give back what is not settled, uncounted, and go."""
        self.closed = True
        held = sorted(set(self._out).union(*(range(r.seq, r.seq + len(r.bodies)) for r in self._runs)))
        self._runs.clear()
        self._out.clear()
        if held:
            self.program.link.nak(self.sid, flat(spans_of(held)), 0, False)
        self.program.link.close(self.sid)
        self.program.consumers.pop(self.sid, None)
        self.program.dialler.wake()


class Program(Process):
    """A client of one hub."""

    def __init__(self, world: World, name: str, hub: HubNode, local: bool) -> None:
        super().__init__(world.clock, name)
        self.world = world
        self.hub = hub
        self.local = local
        self.link = Link(Identity(b"", name), world.limits)
        self.dialler = Dialler(world, (self, hub), self.link, self._deliver, self._went_away, local)
        self.subscriptions: dict[int, Subscribed] = {}
        self.members: list[int] = []
        self.responders: list[int] = []
        self.consumers: dict[int, Consumer] = {}
        self.work: list[str] = []
        self.unsettled: list[Message] = []
        self.rejected = 0
        self.gone: int | None = None  # the moment at which it ended
        self._asked: dict[int, Asked] = {}
        self._puts: dict[int, Put] = {}
        self._over: dict[int, Put] = {}  # puts that have ended without an answer
        self._oldest_unsent = 0
        self._welcomed_before = False
        self.dialler.start()

    # -- what it does

    def publish(self, topic: str, message: Message) -> None:
        """Publish."""
        self.unsettled.append(message)
        self.link.publish(topic, 0, message.body.encode())
        self.dialler.wake()

    def subscribe(self, pattern: str) -> Subscribed:
        """Ask for a subscription."""
        tracker = self.link.subscribe(pattern)
        subscribed = self.subscriptions[tracker.sid] = Subscribed(self, tracker)
        self.dialler.wake()
        return subscribed

    def unsubscribe(self, subscribed: Subscribed) -> None:
        """End it."""
        subscribed.closed = True
        self.subscriptions.pop(subscribed.tracker.sid, None)
        self.link.close(subscribed.tracker.sid)
        self.dialler.wake()

    def join(self, topic: str, group: str) -> None:
        """Become a member of a group."""
        self.members.append(self.link.join(topic, group))
        self.dialler.wake()

    def serve(self, topic: str) -> None:
        """Answer requests."""
        self.responders.append(self.link.respond(topic))
        self.dialler.wake()

    def retire(self) -> None:
        """Answer no more."""
        self.link.close(self.responders.pop())
        self.dialler.wake()

    def ask(self, topic: str, body: bytes, kind: int, many: bool) -> Asked:
        """A request."""
        rid = self.link.request(topic, int(PATIENCE * 1000), many, kind, body)
        asked = self._asked[rid] = Asked(self, rid, many, self.clock.count)
        self.after(PATIENCE, partial(self._late, rid))
        self.dialler.wake()
        return asked

    def _late(self, rid: int) -> None:
        code = DeadlineExceeded.code if self.link.phase is Phase.UP else Disconnected.code
        asked = self._asked.get(rid)
        if asked is not None:
            self._finish(rid, "" if asked.many and asked.answers else code)

    def _finish(self, rid: int, code: str) -> None:
        asked = self._asked.pop(rid, None)
        if asked is not None:
            asked.end = code
            self.link.give_up(rid)
            self.world.coverage.code("request", code)

    def put(self, put: Put) -> None:
        """Put a message into its stream."""
        extra: dict[str, object] = {}
        if put.id is not None:
            extra["ids"] = [put.id]
        if put.delay:
            extra["delay"] = int(put.delay * 1000)
        if put.ttl:
            extra["ttl"] = int(put.ttl * 1000)
        if put.require:
            extra["require"] = "master"
        rid = self.link.put(put.message.topic, 0, put.body.encode(), extra or None)
        self._puts[rid] = put
        self.after(PUT_PATIENCE, partial(self._put_late, rid))
        self.dialler.wake()

    def _put_late(self, rid: int) -> None:
        if rid in self._puts:
            unsent = self.link.give_up(rid)
            self._put_ended(rid, Disconnected.code if unsent else DeadlineExceeded.code)

    def _put_ended(self, rid: int, code: str) -> None:
        put = self._puts.pop(rid)
        self._over[rid] = put
        put.end, put.ended = code, self.clock.count
        self.world.coverage.code("put", code)
        if self.world.tracing:
            self.world.say(f"{self.name}: put {put.body} ends with {code or 'stored'} {put.at} {put.seq or ''}")

    def consume(self, stream: str, group: str, prefetch: int, lease: float, habits: bool) -> Consumer:
        """Become a consumer."""
        consumer = Consumer(self, stream, group, prefetch, lease, habits)
        self.consumers[consumer.sid] = consumer
        self.dialler.wake()
        return consumer

    def kill(self) -> None:
        """Kill -9."""
        self.end_life()
        self.dialler.killed()
        self._gone()

    def leave(self) -> None:
        """End in order."""
        self.dialler.close()
        self.end_life()
        self._gone()

    def _gone(self) -> None:
        for message in self.unsettled:
            message.certain = False
        self.unsettled.clear()
        self.gone = self.clock.count
        for subscribed in self.subscriptions.values():
            subscribed.closed = True
        for asked in self._asked.values():
            asked.end = "gone"
        for rid in list(self._puts):
            self._put_ended(rid, "gone")

    # -- what comes

    def _went_away(self) -> None:
        self._oldest_unsent = self.link.next_id

    def _deliver(self, happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        count = self.clock.count
        for tracker, item in items:
            subscribed = self.subscriptions.get(tracker.sid)
            if subscribed is not None:
                subscribed.items.append((count, item))
                if isinstance(item, Gap):
                    self.world.coverage.code("gap", item.reason)
        for event in happened:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)  # type: ignore[operator]
        if self.unsettled and self.link.settled:
            for message in self.unsettled:
                message.acked = count
            self.unsettled.clear()

    def _welcomed(self, event: events.Welcomed) -> None:
        if not event.resumed:
            for message in self.unsettled:
                message.certain = False
            if self._welcomed_before:
                self._lost_session()
        self._welcomed_before = True

    def _lost_session(self) -> None:
        """A new session knows nothing of what an old one had been given."""
        for rid in [rid for rid in self._puts if rid < self._oldest_unsent]:
            self._put_ended(rid, OutcomeUnknown.code)
        for consumer in self.consumers.values():
            consumer.expired([])
        for rid in [rid for rid in self._asked if rid < self._oldest_unsent]:
            self._finish(rid, Disconnected.code)

    def _ready(self, event: events.Ready) -> None:
        subscribed = self.subscriptions.get(event.sid)
        if subscribed is not None and subscribed.ready is None:
            subscribed.ready = self.clock.count
        consumer = self.consumers.get(event.sid)
        if consumer is not None:
            consumer.ready = True

    def _rejected(self, event: events.Rejected) -> None:
        self.rejected += 1
        self.world.coverage.code("refused", event.error.code)
        subscribed = self.subscriptions.pop(event.sid, None)
        if subscribed is not None:
            subscribed.closed = True
        if event.sid in self.responders:
            self.responders.remove(event.sid)
        consumer = self.consumers.pop(event.sid, None)
        if consumer is not None:
            consumer.closed = True

    def _forbidden(self, event: events.Forbidden) -> None:
        self.world.coverage.code("forbidden", event.error.code)

    def _called(self, event: events.Call) -> None:
        if self.world.random.random() < 0.1:
            return  # it hangs: the asker has a deadline
        code = "handler" if self.world.random.random() < 0.1 else ""
        seconds = self.world.random.choice((0.0, 0.0, 0.05, 1.0))

        def reply() -> None:
            self.link.reply(event.rid, code, 0, event.body)
            self.dialler.wake()

        self.after(seconds, reply)

    def _answered(self, event: events.Answer) -> None:
        asked = self._asked.get(event.rid)
        if asked is None:
            return
        asked.answers.append((event.code, event.body))
        if not asked.many or (asked.expected is None and event.code) or asked.expected == len(asked.answers):
            self._finish(event.rid, event.code if not asked.many else "")

    def _how_many(self, event: events.Asked) -> None:
        asked = self._asked.get(event.rid)
        if asked is not None:
            asked.expected = event.responders
            if asked.expected == len(asked.answers):
                self._finish(event.rid, "")

    def _worked(self, event: events.Work) -> None:
        self.work += [body.decode() for body in event.bodies]

    def _stored(self, event: events.Stored) -> None:
        step = event.seq > 0
        for offset in range(event.amount):
            rid = event.rid + offset
            put = self._puts.get(rid)
            if put is None:
                late = self._over.get(rid)
                if late is not None:
                    late.late = (late.late or "") + "stored "
                continue
            put.stream, put.seq, put.duplicate, put.at = (
                event.stream,
                event.seq + step * offset,
                event.duplicate,
                event.at,
            )
            self._put_ended(rid, "")

    def _unstored(self, event: events.Unstored) -> None:
        for rid in range(event.rid, event.rid + event.amount):
            if rid in self._puts:
                self._put_ended(rid, event.code)
            elif rid in self._over:
                self._over[rid].late = (self._over[rid].late or "") + event.code

    def _delivered(self, event: events.Deliver) -> None:
        consumer = self.consumers.get(event.sid)
        if consumer is not None:
            consumer.take(event)

    def _acked(self, event: events.Acked) -> None:
        consumer = self.consumers.get(event.sid)
        if consumer is not None:
            consumer.acked(event.record)

    def _expired(self, event: events.Expired) -> None:
        consumer = self.consumers.get(event.sid)
        if consumer is not None:
            consumer.expired(event.spans)


_HANDLERS: dict[type, object] = {
    events.Welcomed: Program._welcomed,
    events.Ready: Program._ready,
    events.Rejected: Program._rejected,
    events.Forbidden: Program._forbidden,
    events.Call: Program._called,
    events.Answer: Program._answered,
    events.Asked: Program._how_many,
    events.Work: Program._worked,
    events.Stored: Program._stored,
    events.Unstored: Program._unstored,
    events.Deliver: Program._delivered,
    events.Acked: Program._acked,
    events.Expired: Program._expired,
}
