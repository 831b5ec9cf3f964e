"""The relay: what joins an agent's hub to its master. Pure; `net.relay` drives link and hub around it.

The rule. What a local program publishes goes to local subscribers at once and up; the master stamps it with our
instance, so what comes back with that origin is dropped after it was counted for gaps. What comes from above is
published below. Requests, groups and responders that are not `local.>` are registered above one by one, so that
the master, the site's one authority, knows each of them.

With the master away: subscriptions are confirmed locally and get a Gap when it returns, requests fail at once
with Disconnected, and publishes wait in the link's bounded buffer. What does not fit there is dropped, and a
Gap says so to whoever would have got it, as soon as there is a session again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qulo.errors import Disconnected, NoResponders, NoStream, QuloError, from_wire
from qulo.protocol import events, ports, topics, wire
from qulo.protocol.calls import GRACE
from qulo.protocol.events import Event
from qulo.protocol.groups import HARD_BOUND
from qulo.protocol.hub import Hub
from qulo.protocol.link import Link, Phase
from qulo.protocol.permissions import PING
from qulo.protocol.session import Session
from qulo.protocol.spool import Spool
from qulo.protocol.streams import refuse
from qulo.protocol.tracker import Gap, Item, Run, State, Tracker

# Topics whose loss is remembered one by one while the master is away; with more, one Gap speaks for all.
LOST_TOPICS = 1000

# Topics whose last number from above is remembered; forgetting one costs at most a repeat under overlapping patterns.
PUBLISHED_TOPICS = 50_000


@dataclass(slots=True, eq=False)
class Want:
    """One pattern that local subscribers want from above."""

    tracker: Tracker
    users: int
    away: bool  # confirmed to somebody while the master was away


@dataclass(slots=True, eq=False)
class Request:
    """One request of a local session at the master."""

    session: Session
    rid: int
    answers: int  # still to come
    deadline: float


class Relay:
    """Implements `ports.Upstream` for a hub on top of a link. Call `turn` once per turn of the loop."""

    def __init__(self, link: Link, spool: Spool | None = None) -> None:
        self.link = link
        self.spool = spool
        self.hub: Hub | None = None  # set by `attach`: hub and relay know each other
        self._wants: dict[str, Want] = {}
        self._sids: dict[int, tuple[Session, int]] = {}  # our sid above → session and sid below
        self._above: dict[tuple[Session, int], int] = {}
        self._requests: dict[int, Request] = {}
        self._forbidden: dict[str, QuloError] = {}  # by topic, what the master said; told with the next publish
        self._lost: dict[str, str] = {}  # pattern → reason
        self._published: dict[str, int] = {}  # by topic, the highest number from above that went below
        self._order: list[Tracker] = []  # as the master confirmed them
        self._first: dict[str, Tracker] = {}  # by topic, the first of those that match it
        self._left: dict[str, int] = {}  # by topic, the highest number that another one left to the first
        self._unused: dict[str, Want] = {}  # wants without users, to be closed when nobody relies on them
        self._epoch = 0  # of the numbers above
        self._now = 0.0  # of the last turn
        self.dropped = 0
        self._ping = 0  # our own responder above

    def attach(self, hub: Hub) -> None:
        """Join the two; before the first frame."""
        self.hub = hub
        hub.upstream = self
        self._ping = self.link.respond(PING)

    # -- ports.Upstream

    @property
    def connected(self) -> bool:
        """Is there a session with the master?"""
        return self.link.phase is Phase.UP

    @property
    def idle(self) -> bool:
        """See ports.Upstream."""
        return self.spool is None or self.spool.idle

    @property
    def spooled(self) -> int:
        """See ports.Upstream."""
        return 0 if self.spool is None else self.spool.open

    def publish(self, topic: str, kind: int, bodies: list[bytes]) -> QuloError | None:
        """Forward a run; what does not fit is dropped and remembered. See ports.Upstream."""
        if self.link.room < sum(map(len, bodies)):
            self.dropped += len(bodies)
            self.lost(topic, "overflow")
        else:
            self.link.publish_run(topic, kind, bodies)
        return self._forbidden.pop(topic, None) if self._forbidden else None

    def want(self, pattern: str) -> bool:
        """See ports.Upstream."""
        want = self._wants.get(pattern)
        if want is None:
            want = self._wants[pattern] = Want(self.link.subscribe(pattern), 0, False)
        want.users += 1
        self._unused.pop(pattern, None)
        if want.tracker.state is not State.ASKED:
            return True
        want.away = want.away or not self.connected
        return not self.connected

    def unwant(self, pattern: str) -> None:
        """See ports.Upstream."""
        want = self._wants.get(pattern)
        if want is not None:
            want.users -= 1
            if not want.users:
                self._unused[pattern] = want
                self._close_unused()

    def _close_unused(self) -> None:
        for pattern, want in list(self._unused.items()):
            if self._may_close(want.tracker):
                del self._unused[pattern], self._wants[pattern]
                self._forget(want.tracker)
                self.link.close(want.tracker.sid)

    def _may_close(self, tracker: Tracker) -> bool:
        """Not while it owes something that another one left to it (see `_is_news`)."""
        return tracker not in self._order or all(self._find_first(t, tracker) is not tracker for t in self._left)

    def _forget(self, tracker: Tracker) -> None:
        if tracker in self._order:
            self._order.remove(tracker)
        self._first.clear()

    def join(self, session: Session, sid: int, pattern: str, group: str) -> None:
        """See ports.Upstream."""
        self._remember(self.link.join(pattern, group), session, sid)

    def respond(self, session: Session, sid: int, pattern: str) -> None:
        """See ports.Upstream."""
        self._remember(self.link.respond(pattern), session, sid)

    def consume(self, session: Session, sid: int, what: list[Any]) -> None:
        """See ports.Upstream."""
        self._remember(self.link.consume(*what), session, sid)

    def settle(self, session: Session, record: list[Any]) -> None:
        """See ports.Upstream."""
        above = self._above.get((session, record[1]))
        if above is not None:
            self.link.settle([record[0], above, *record[2:]])

    def put(self, session: Session, put: ports.Put, now: float) -> None:
        """See ports.Upstream."""
        if self.spool is None:
            refuse(session, put, NoStream("this agent has no spool, and passes no puts on"))
        else:
            self.spool.put(session, put, now)

    def _remember(self, above: int, session: Session, sid: int) -> None:
        self.leave(session, sid)
        self._sids[above] = (session, sid)
        self._above[session, sid] = above
        if not self.connected and self.hub is not None:
            self.hub.confirm(session, sid)

    def leave(self, session: Session, sid: int) -> None:
        """See ports.Upstream."""
        above = self._above.pop((session, sid), None)
        if above is not None:
            del self._sids[above]
            self.link.close(above)

    def request(self, session: Session, rid: int, request: ports.Request) -> None:
        """See ports.Upstream."""
        if self.link.room < len(request.body):
            session.answer(rid, Disconnected.code, wire.RAW, b"the way to the master is full")
            return
        deadline = self._now + request.ttl / 1000 + GRACE
        self._requests[self.link.request(*request)] = Request(session, rid, 1, deadline)

    def answer(self, rid: int, code: str, kind: int, body: bytes) -> None:
        """See ports.Upstream."""
        self.link.reply(rid, code, kind, body)

    def lost(self, pattern: str, reason: str) -> None:
        """See ports.Upstream."""
        self._lost[pattern if len(self._lost) < LOST_TOPICS else ">"] = reason

    # -- what the driver calls

    def turn(self, happened: list[Event], items: list[tuple[Tracker, Item]], now: float) -> list[ports.Note]:
        """Carry what the link gave into the hub, and tell above what was lost; returns what to log."""
        hub = self._hub()
        self._now = now
        self._expire(now)
        notes: list[ports.Note] = []
        for event in happened:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                notes += handler(self, hub, event, now) or ()
        own = self.link.identity.instance
        for tracker, item in items:
            if isinstance(item, Gap):
                hub.pass_gap(item.pattern, item.epoch, item.first, item.last, item.reason)
                notes.append(ports.Note("warning", f"gap from above on {item.pattern}: {item.reason}"))
            elif self._is_news(tracker, item) and item[3] != own:
                hub.intake.take_from_above(item[0], item[1], item[2], own, now)
        if self._unused:
            self._close_unused()
        if self.spool is not None:
            self.spool.turn(now)
        notes += self._tell_lost()
        return notes

    def _tell_lost(self) -> list[ports.Note]:
        """Tell the master's subscribers what did not reach it, when something can again."""
        notes: list[ports.Note] = []
        if self._lost and self.connected and self.link.room > 0:
            for pattern, reason in self._lost.items():
                self.link.lost(pattern, reason)
            self._lost.clear()
            if self.dropped:
                text = f"{self.dropped} messages for the master were dropped: its buffer was full (link_buffer)"
                notes.append(ports.Note("error", text))
                self.dropped = 0
        return notes

    def _is_news(self, tracker: Tracker, run: Run) -> bool:
        """With overlapping patterns several trackers give the same run; the hub below publishes it once.

        On each topic that is up to the tracker which was confirmed first: another one may be ahead of it, while
        it waits for a repair. What is local on the master's host is nothing to us.
        """
        topic, end = run[0], run[4] + len(run[2]) - 1
        first = self._first.get(topic) or self._find_first(topic, tracker)
        if end <= self._published.get(topic, 0) or topics.is_local(topic):
            return False
        if first is not tracker:
            self._left[topic] = max(end, self._left.get(topic, 0))
            return False
        if end >= self._left.get(topic, end):
            self._left.pop(topic, None)
        if len(self._published) >= PUBLISHED_TOPICS:
            self._published.clear()
        self._published[topic] = end
        return True

    def _find_first(self, topic: str, tracker: Tracker) -> Tracker:
        if len(self._first) >= PUBLISHED_TOPICS:
            self._first.clear()
        first = next((t for t in self._order if topics.matches(t.pattern, topic)), tracker)
        self._first[topic] = first
        return first

    def _expire(self, now: float) -> None:
        """Forget requests that nobody answered; their askers have given up by themselves."""
        late = [rid for rid, request in self._requests.items() if request.deadline < now]
        for rid in late:
            request = self._requests.pop(rid)
            request.session.calls -= request.answers

    def went_away(self) -> None:
        """The connection is gone: whoever waits for the master gets an answer now."""
        hub = self._hub()
        for pattern, want in self._wants.items():
            want.away = want.away or not want.tracker.confirmed
            hub.upstream_ready(pattern)
        for session, sid in self._sids.values():
            hub.confirm(session, sid)
        requests, self._requests = self._requests, {}
        for request in requests.values():
            for _ in range(request.answers):
                text = b"the connection to the master was lost before it answered; the outcome is unknown"
                request.session.answer(request.rid, Disconnected.code, wire.RAW, text)
        if self.spool is not None:
            self.spool.went_away(self._now)

    def _hub(self) -> Hub:
        if self.hub is None:
            raise QuloError("a relay works between a link and the hub it was attached to")
        return self.hub

    # -- events from above

    def _ready(self, hub: Hub, event: events.Ready, now: float) -> list[ports.Note] | None:
        tracker = self.link.trackers.get(event.sid)
        if tracker is None:
            if event.sid in self._sids:
                hub.confirm(*self._sids[event.sid])
            return None
        if tracker not in self._order:
            self._order.append(tracker)
            self._first.clear()
        want = self._wants.get(tracker.pattern)
        if want is not None and want.away:
            want.away = False
            hub.pass_gap(tracker.pattern, tracker.epoch, None, tracker.verified, "window")
        hub.upstream_ready(tracker.pattern)
        return None

    def _rejected(self, hub: Hub, event: events.Rejected, now: float) -> list[ports.Note]:
        where = self._sids.pop(event.sid, None)
        if where is not None:
            del self._above[where]
            hub.refuse(*where, event.error)
        for pattern, want in list(self._wants.items()):
            if want.tracker.sid == event.sid:
                del self._wants[pattern]
                self._unused.pop(pattern, None)
                self._forget(want.tracker)
                hub.upstream_refused(pattern, event.error)
        return [ports.Note("warning", f"the master refused a subscription: {event.error}")]

    def _refused_publish(self, hub: Hub, event: events.Forbidden, now: float) -> list[ports.Note]:
        known = event.topic in self._forbidden
        if len(self._forbidden) >= LOST_TOPICS:
            self._forbidden.clear()
        self._forbidden[event.topic] = event.error
        return [] if known else [ports.Note("warning", f"the master did not take a publish: {event.error}")]

    def _work(self, hub: Hub, event: events.Work, now: float) -> list[ports.Note] | None:
        where = self._sids.get(event.sid)
        if where is None:
            return [
                ports.Note("error", f"{len(event.bodies)} messages on {event.topic} came for a member that has left")
            ]
        session, sid = where
        if session.channel.bytes > HARD_BOUND * session.channel.limit:
            session.dropped += len(event.bodies)
            hub.counters.dropped += len(event.bodies)
            text = f"{len(event.bodies)} messages on {event.topic} dropped: the member {session.name} is full"
            return [ports.Note("error", text)]
        session.channel.add_run([wire.WORK, sid, event.topic, event.kind], event.bodies)
        return None

    def _call(self, hub: Hub, event: events.Call, now: float) -> list[ports.Note] | None:
        if event.sid == self._ping:
            self.link.reply(event.rid, "", wire.PACKED, hub.pong())
            return None
        session, sid = self._sids.get(event.sid, (None, 0))
        responder = session.responders.get(sid) if session is not None else None
        if responder is None:
            text = f"the responder of {event.topic} has just left".encode()
            self.link.reply(event.rid, NoResponders.code, wire.RAW, text)  # it never saw the request
            return None
        request = ports.Request(event.topic, event.ttl, False, event.kind, event.body)
        hub.calls.ask(self, event.rid, responder, request, now)
        return None

    def _answer(self, hub: Hub, event: events.Answer, now: float) -> list[ports.Note] | None:
        request = self._requests.get(event.rid)
        if request is None:
            return None
        request.answers -= 1
        if not request.answers:
            del self._requests[event.rid]
        request.session.answer(request.rid, event.code, event.kind, event.body)
        return None

    def _asked(self, hub: Hub, event: events.Asked, now: float) -> list[ports.Note] | None:
        request = self._requests.get(event.rid)
        if request is not None:
            request.answers += event.responders - 1
            request.session.calls += event.responders - 1
            request.session.channel.add([wire.ASKED, request.rid, event.responders], wire.RECORD_OVERHEAD)
        return None

    def _stored(self, hub: Hub, event: events.Stored, now: float) -> None:
        hub.seen[event.stream] = max(event.seq + event.amount - 1, hub.seen.get(event.stream, 0))
        if self.spool is not None:
            self.spool.answered(event.rid, event.amount, event.stream, event.seq, event.duplicate)

    def _unstored(self, hub: Hub, event: events.Unstored, now: float) -> None:
        if self.spool is not None:
            self.spool.refused(event.rid, event.amount, from_wire(event.code, event.text), now)

    def _deliver(self, hub: Hub, event: events.Deliver, now: float) -> None:
        session, sid = self._sids.get(event.sid, (None, 0))
        if session is not None:
            size = sum(map(len, event.bodies)) + wire.BODY_OVERHEAD * len(event.bodies) + 4 * len(event.topic)
            session.channel.add([wire.DELIVER, sid, *event[1:]], size + wire.RECORD_OVERHEAD)

    def _acked(self, hub: Hub, event: events.Acked, now: float) -> None:
        session, sid = self._sids.get(event.sid, (None, 0))
        if session is not None:
            session.channel.add([wire.ACKED, sid, event.record], wire.RECORD_OVERHEAD)

    def _expired(self, hub: Hub, event: events.Expired, now: float) -> None:
        session, sid = self._sids.get(event.sid, (None, 0))
        if session is not None:
            session.channel.add([wire.EXPIRED, sid, event.spans], wire.RECORD_OVERHEAD + 9 * len(event.spans))

    def _welcomed(self, hub: Hub, event: events.Welcomed, now: float) -> list[ports.Note]:
        name = self.link.hub.get("name", "?")
        notes = [ports.Note("info", f"connected to master {name}")]
        if not event.resumed:  # the master has given what our consumers hold to others
            for session, sid in self._sids.values():
                if sid in session.consumers:
                    session.channel.add([wire.EXPIRED, sid, []], wire.RECORD_OVERHEAD)
        if self.link.epoch != self._epoch:  # the numbers are those of an epoch, also for a new session
            self._epoch = self.link.epoch
            self._published.clear()
            self._left.clear()
        if event.lost:
            count = sum(event.lost.values())
            notes.append(ports.Note("error", f"the master restarted: {count} messages had not been acknowledged"))
            for topic in event.lost:
                self.lost(topic, "restart")
        return notes


_HANDLERS: dict[type, Any] = {
    events.Ready: Relay._ready,
    events.Rejected: Relay._rejected,
    events.Forbidden: Relay._refused_publish,
    events.Work: Relay._work,
    events.Call: Relay._call,
    events.Answer: Relay._answer,
    events.Asked: Relay._asked,
    events.Stored: Relay._stored,
    events.Unstored: Relay._unstored,
    events.Deliver: Relay._deliver,
    events.Acked: Relay._acked,
    events.Expired: Relay._expired,
    events.Welcomed: Relay._welcomed,
}
