"""The link: one end of a session, for a program or for an agent towards its master. Pure; `net.link` drives it.

Drive it like this. `hello` when a DEALER has been connected, `frame_received` and `pub_received` for what comes,
`beat` once per heartbeat, `disconnected` when the sockets were closed. After each turn of the loop send what
`take` gives. What the program gets is in `take_items` (runs and gaps, in order) and `take_events`.

A link survives hubs: subscriptions, responders and whatever was not sent go on with the next connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from qulo.errors import BadTopic, ProtocolError, QuloError, from_wire
from qulo.protocol import topics, wire
from qulo.protocol.channel import Channel
from qulo.protocol.consuming import flat, spans_of
from qulo.protocol.events import (
    Acked,
    Acknowledged,
    Answer,
    Asked,
    Call,
    Deliver,
    Dismissed,
    Event,
    Expired,
    Forbidden,
    NewKey,
    Prefix,
    Pulsed,
    Ready,
    Rejected,
    Stored,
    Unstored,
    Welcomed,
    Work,
)
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Gap, Item, State, Tracker
from qulo.protocol.wire import Record

# The position on PUB is echoed this many times per high-water mark: often enough that a hub which waits at half
# of it always hears in time, seldom enough to cost nothing.
ECHOES = 16

# Distinct topics whose trackers are remembered; beyond it the table starts anew.
ROUTES = 50_000

# Numbers of spans in one record: acknowledgements out of order fit into a frame by the thousand.
MOST_SPANS = 4000

# No limit of a hub is larger: C's int, which libzmq keeps its own in, is the smallest of what has to hold one.
_MOST = 2**31 - 1

# What taking a run or a pulse of the wrong shape apart raises: checking each one before would cost more than all else.
_MISSHAPEN = (ValueError, TypeError, AttributeError, BadTopic)


class Phase(Enum):
    """Where the link is."""

    DOWN = "down"
    GREETING = "greeting"  # HELLO is under way
    UP = "up"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.DOWN, "hello"): Phase.GREETING,
    (Phase.GREETING, "welcome"): Phase.UP,
    (Phase.GREETING, "disconnected"): Phase.DOWN,
    (Phase.UP, "disconnected"): Phase.DOWN,
    (Phase.DOWN, "disconnected"): Phase.DOWN,
}


@dataclass(slots=True, eq=False)
class Registration:
    """A group membership or a responder: told to every new session."""

    record: Record
    told: bool = False  # in this session; one that is resumed still has it
    ready: bool = False


@dataclass(slots=True, eq=False)
class Route:
    """Which live trackers a topic goes to."""

    pub: list[Tracker]  # the hub counts a frame on PUB once for each
    direct: list[Tracker]


@dataclass(slots=True)
class Identity:
    """Who the link is to its hub."""

    instance: bytes
    name: str
    kind: str = "client"
    info: dict[str, Any] = field(default_factory=dict)


class Link:
    """The state of one session from the dialling side."""

    def __init__(self, identity: Identity, limits: Limits) -> None:
        self.identity = identity
        self.limits = limits
        self.phase = Phase.DOWN
        self.epoch = 0
        self.hub: dict[str, Any] = {}  # what the hub told of itself
        self.heartbeat = limits.heartbeat
        self.max_message = limits.max_message
        self.high_water = limits.high_water
        self.channel = Channel(limits.link_buffer)
        self.trackers: dict[int, Tracker] = {}
        self.rtt = 0  # µs, of the last heartbeat
        self._registered: dict[int, Registration] = {}
        self._token: bytes | None = None
        self._prefixes: dict[int, list[bytes]] = {}
        self._routes: dict[str, Route] = {}
        self._items: list[tuple[Tracker, Item]] = []
        self._events: list[Event] = []
        self._fresh: list[Item] = []  # what one tracker just released
        self._run: list[bytes] = []  # the run that is being published
        self._run_topic = ""
        self._run_kind = 0
        self._run_size = 0
        self._puts: list[bytes] = []  # consecutive puts on one topic
        self._put_topic = ""
        self._put_kind = 0
        self._put_size = 0
        self._acks: dict[int, list[int]] = {}  # by consumer, numbers that are done
        self._settled: dict[int, int] = {}  # by consumer, records that settled something
        self._next = 0
        self._reached = 0
        self._echoed = 0
        self._pulse = -1  # the last pulse on PUB that every tracker agreed with
        self._tied = False
        self._stale: deque[tuple[int, int]] = deque()  # given up: the frame it was sent in, or a later one; request
        self._unasked: dict[int, Record] = {}  # requests and puts made while there is no session

    # -- connection

    def hello(self, instance: bytes) -> bytes:
        """The first frame on a new DEALER. `instance` is a fresh one: it is used until a hub has welcomed us.

        (A WELCOME may get lost; the hub then has a session that we cannot prove to be ours.)
        """
        self._step("hello")
        if self._token is None:
            self.identity.instance = instance
        i = self.identity
        record: Record = [wire.HELLO, wire.VERSION, i.instance, i.name, i.kind]
        record += [self._token, self.epoch, self.channel.received, i.info]
        return wire.encode(0, 0, [record])

    def disconnected(self) -> None:
        """The sockets are closed. Trackers keep what they know; READY comes again with the next session."""
        self._step("disconnected")
        self._close_run()
        stale = {rid for _, rid in self._stale}
        self._stale.clear()
        self.channel.withdraw(lambda r: _of_connection(r) or (r[0] == wire.REQUEST and r[1] in stale))
        self._tied = False
        self._pulse = -1
        self._prefixes.clear()
        self._routes.clear()
        for tracker in self.trackers.values():
            tracker.disconnected()

    def bye(self) -> bytes:
        """The last frame of a session that ends well; `take` before it."""
        return self.channel.unnumbered([[wire.BYE]])

    def beat(self, now_us: int) -> bytes:
        """The heartbeat; the hub answers with its pulse over both sockets."""
        self._echoed = self._reached
        return self.channel.unnumbered([[wire.BEAT, now_us, self.rtt, self._reached, self._pulse]])

    def _step(self, event: str) -> None:
        self.phase = PHASES[self.phase, event]

    # -- what the program does

    def publish(self, topic: str, kind: int, body: bytes) -> bool:
        """Queue a message. True when a batch is full: `take` and send now.

        Never blocks: the caller looks at `room` before, and waits for Acknowledged when there is none.
        """
        size = len(body) + wire.BODY_OVERHEAD
        if topic != self._run_topic or kind != self._run_kind or self._run_size + size > wire.BATCH:
            self._close_run()
            self._run_topic, self._run_kind = topic, kind
            self._run_size = wire.RECORD_OVERHEAD + 4 * len(topic)
        self._run.append(body)
        self._run_size += size
        return self._run_size + self.channel.pending_size >= wire.BATCH

    def publish_run(self, topic: str, kind: int, bodies: list[bytes]) -> None:
        """Queue a whole run, as a relay does."""
        self._close_run()
        self.channel.add_run([wire.PUBLISH, topic, kind], bodies)

    @property
    def room(self) -> int:
        """Bytes of credit left."""
        return self.channel.room - self._run_size - self._put_size

    def _close_run(self) -> None:
        """Of the two at most one is open: their order is that of the program."""
        if self._run:
            self.channel.add([wire.PUBLISH, self._run_topic, self._run_kind, self._run], self._run_size)
            self._run, self._run_size, self._run_topic = [], 0, ""
        if self._puts:
            first = self._next - len(self._puts) + 1
            self.channel.add([wire.PUT, first, self._put_topic, self._put_kind, None, self._puts], self._put_size)
            self._puts, self._put_size, self._put_topic = [], 0, ""

    def put(self, topic: str, kind: int, body: bytes, extra: dict[str, Any] | None = None) -> int:
        """Put a message into its stream; Stored or Unstored carries the number that this returns.

        Look at `room` before. Without a session it waits for one, and `give_up` takes it back.
        """
        if self.phase is not Phase.UP:
            rid = self._new_id()
            self._unasked[rid] = [wire.PUT, rid, topic, kind, extra, [body]]
            return rid
        if extra is not None:
            return self.put_run(topic, kind, [body], extra)
        size = len(body) + wire.BODY_OVERHEAD
        if topic != self._put_topic or kind != self._put_kind or self._put_size + size > wire.BATCH:
            self._close_run()
            self._put_topic, self._put_kind = topic, kind
            self._put_size = wire.RECORD_OVERHEAD + 4 * len(topic)
        self._puts.append(body)
        self._put_size += size
        self._next += 1
        return self._next

    def put_run(self, topic: str, kind: int, bodies: list[bytes], extra: dict[str, Any] | None) -> int:
        """Put consecutive messages, as many as fit a frame; returns the first one's number. `extra` is for all."""
        self._close_run()
        first = self._next + 1
        self._next += len(bodies)
        size = sum(map(len, bodies)) + wire.BODY_OVERHEAD * len(bodies) + 4 * len(topic) + wire.RECORD_OVERHEAD
        size += len(wire.pack(extra))
        self.channel.add([wire.PUT, first, topic, kind, extra, bodies], size)
        return first

    def subscribe(self, pattern: str) -> Tracker:
        """Ask for a pattern; Ready (or Rejected) with the tracker's sid follows, at once or when there is a hub."""
        tracker = Tracker(self._new_id(), topics.check_pattern(pattern))
        self.trackers[tracker.sid] = tracker
        self._ask(tracker)
        return tracker

    def join(self, pattern: str, group: str) -> int:
        """Become a member of a group; returns the sid that Work comes with."""
        sid = self._new_id()
        self._register(sid, [wire.SUBSCRIBE, sid, topics.check_pattern(pattern), group])
        return sid

    def respond(self, pattern: str) -> int:
        """Answer requests on a pattern; returns the sid that Call comes with."""
        sid = self._new_id()
        self._register(sid, [wire.RESPOND, sid, topics.check_pattern(pattern)])
        return sid

    def consume(self, stream: str, group: str, prefetch: int, lease_ms: int, start: str) -> int:
        """Become a consumer of a group; returns the sid that Deliver comes with. Bounds: see `consuming`."""
        sid = self._new_id()
        self._register(sid, [wire.CONSUME, sid, stream, group, prefetch, lease_ms, start])
        return sid

    def ack(self, sid: int, seq: int) -> None:
        """This message is done; goes out with the next `take`."""
        self._acks.setdefault(sid, []).append(seq)

    def nak(self, sid: int, spans: list[int], delay_ms: int, tried: bool) -> None:
        """Give these (first, last, first, last, …) back, to be delivered again after the delay.

        `tried` counts it against them. Without it nothing more is delivered: that is what comes before `close`.
        """
        self.settle([wire.NAK, sid, self._number(sid), spans, delay_ms, tried])

    def reject(self, sid: int, seq: int, reason: str) -> None:
        """To the dead letters with this one."""
        self.settle([wire.REJECT, sid, self._number(sid), seq, reason])

    def extend(self, sid: int, spans: list[int], lease_ms: int = 0) -> None:
        """The leases of these go on from now, for as long as the consumer's do, or for `lease_ms`."""
        self.settle([wire.EXTEND, sid, spans, lease_ms])

    def settled_by(self, sid: int) -> int:
        """The last of the records that have settled something: Acked tells up to which they have taken effect."""
        self._close_acks()
        return self._settled.get(sid, 0)

    def settle(self, record: Record) -> None:
        """Say what a consumer says of its messages; a relay passes its records on."""
        if record[1] in self._registered:
            self._add(record, len(wire.pack(record)))

    def _number(self, sid: int) -> int:
        self._settled[sid] = number = self._settled.get(sid, 0) + 1
        return number

    def _close_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for sid, seqs in acks.items():
            seqs.sort()
            spans = flat(spans_of(seqs))
            for start in range(0, len(spans), MOST_SPANS):
                self.settle([wire.ACK, sid, self._number(sid), spans[start : start + MOST_SPANS]])

    def close(self, sid: int) -> None:
        """End a subscription, membership, responder or consumer."""
        self._close_acks()
        tracker = self.trackers.pop(sid, None)
        if tracker is not None:
            tracker.step("close")
            self._routes.clear()
            for prefix in self._prefixes.pop(sid, ()):
                self._events.append(Prefix(prefix, False))
        elif self._registered.pop(sid, None) is None:
            return
        self._settled.pop(sid, None)
        self._add([wire.UNSUBSCRIBE, sid], 0)  # also while down: a session that is resumed still has it

    def request(self, topic: str, ttl_ms: int, many: bool, kind: int, body: bytes) -> int:
        """Ask; Answer events carry the rid that this returns."""
        rid = self._new_id()
        record: Record = [wire.REQUEST, rid, topic, ttl_ms, many, kind, body]
        if self.phase is Phase.UP:
            self._add(record, len(body) + 4 * len(topic))
        else:
            self._unasked[rid] = record
        return rid

    def give_up(self, rid: int) -> bool:
        """The asker's deadline is past; True if the request was never sent, so that nobody acts on it later.

        One that was sent and not acknowledged is not sent again after a reconnect.
        """
        if self._unasked.pop(rid, None) is not None:
            return True
        while self._stale and self._stale[0][0] <= self.channel.acked:
            self._stale.popleft()
        self._stale.append((self.channel.number + 1, rid))
        return False

    def reply(self, rid: int, code: str, kind: int, body: bytes) -> None:
        """Answer a Call."""
        self._add([wire.REPLY, rid, code, kind, body], len(body) + 4 * len(code))

    def withdraw_puts(self) -> None:
        """Take back all puts that the hub has not acknowledged the receipt of; whether it has them is unknown."""
        self._close_run()
        self._unasked = {rid: record for rid, record in self._unasked.items() if record[0] != wire.PUT}
        self.channel.withdraw(lambda record: record[0] == wire.PUT)

    def lost(self, pattern: str, reason: str) -> None:
        """Tell the hub's subscribers that messages on `pattern` could not be forwarded."""
        self._add([wire.LOST, pattern, reason], 4 * len(pattern))

    @property
    def next_id(self) -> int:
        """The number that the next subscription or request will get."""
        return self._next + 1

    def _new_id(self) -> int:
        if self._puts:  # theirs are consecutive
            self._close_run()
        self._next += 1
        return self._next

    def _add(self, record: Record, size: int) -> None:
        self._close_run()
        self.channel.add(record, size + wire.BODY_OVERHEAD + wire.RECORD_OVERHEAD)

    def _register(self, sid: int, record: Record) -> None:
        self._registered[sid] = Registration(record, told=self.phase is Phase.UP)
        if self.phase is Phase.UP:
            self._add(record, 4 * len(record[2]))

    def _ask(self, tracker: Tracker) -> None:
        """SUBSCRIBE, when the SUB is tied; until then the tracker waits."""
        if not self._tied:
            return
        self._add([wire.SUBSCRIBE, tracker.sid, tracker.pattern, None], 4 * len(tracker.pattern))

    # -- what comes out

    def take(self) -> list[bytes]:
        """Frames to send on the DEALER now; nothing while there is no session."""
        if self.phase is not Phase.UP:
            return []
        if self._acks:
            self._close_acks()
        if self._run or self._puts:
            self._close_run()
        out = self.channel.take()
        if self._reached - self._echoed >= max(1, self.high_water // ECHOES):
            self._echoed = self._reached
            out.append(self.channel.unnumbered([[wire.ECHO, self._reached]]))
        return out

    def take_items(self) -> list[tuple[Tracker, Item]]:
        """Runs and gaps for the subscriptions, in order."""
        items = self._items
        if items:
            self._items = []
        return items

    def take_events(self) -> list[Event]:
        """Everything else, in order."""
        events = self._events
        if events:
            self._events = []
        return events

    @property
    def settled(self) -> bool:
        """Has the hub acknowledged everything?"""
        return self.channel.idle and not self._run and not self._puts and not self._acks

    # -- what comes in

    def frame_received(self, data: bytes) -> None:
        """A frame from the DEALER. Raises ProtocolError; then close the sockets and connect anew."""
        number, ack, records = wire.decode(data)
        if self.phase is Phase.UP and self.channel.acknowledged(ack):
            self._events.append(Acknowledged())
        if number and not (self.phase is Phase.UP and self.channel.accept(number, len(data))):
            return
        try:
            for record in records:
                _HANDLERS[wire.check(record, "down")](self, record)
        except _MISSHAPEN as error:
            raise ProtocolError(f"not a record: {error}") from None

    def pub_received(self, data: bytes) -> None:
        """A frame from the SUB. Raises ProtocolError."""
        end = data.find(b"\0") + 1
        try:
            if data.startswith(topics.SESSIONS):
                self._own(data, end)
                return
            runs = self._bundle(data, end)
            # All runs of a frame match the same subscriptions; the hub counts a frame once for each on PUB.
            self._reached += len(self._route_of(runs[0][0]).pub)
            self._runs_received(runs, direct=False)
        except _MISSHAPEN as error:
            raise ProtocolError(f"not a run: {error}") from None

    def _bundle(self, data: bytes, end: int) -> list[wire.Run]:
        epoch, runs = wire.decode_bundle(data, end)
        if epoch != self.epoch:
            raise ProtocolError("a frame of another epoch")
        return runs

    def _runs_received(self, runs: list[wire.Run], direct: bool) -> None:
        """A subscription takes from its own path only: between the two there is no order."""
        fresh, items = self._fresh, self._items
        for topic, seq, prev, origin, kind, bodies in runs:
            item = (topic, kind, bodies, origin, seq)
            route = self._routes.get(topic) or self._route_of(topic)
            for tracker in route.direct if direct else route.pub:
                if tracker.take(prev, item, fresh):
                    self._ask_repair(tracker)
                if fresh:
                    items.append((tracker, fresh.pop()))

    def _route_of(self, topic: str) -> Route:
        route = self._routes.get(topic)
        if route is not None:
            return route
        try:
            topics.check_topic(topic)
        except (QuloError, TypeError):
            raise ProtocolError("a run begins with a topic") from None
        route = Route([], [])
        for tracker in self.trackers.values():
            if tracker.state is not State.ASKED and topics.matches(tracker.pattern, topic):
                (route.pub if tracker.sid in self._prefixes else route.direct).append(tracker)
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        self._routes[topic] = route
        return route

    def _release(self, tracker: Tracker) -> None:
        self._items += [(tracker, item) for item in self._fresh]
        self._fresh.clear()

    def _own(self, data: bytes, end: int) -> None:
        """A frame for this session on PUB."""
        for record in wire.decode_own(data, end):
            verb = wire.check(record, "down")
            if not self._tied:
                self._tied_now()  # TIED itself can be lost like any frame on PUB; what comes here proves as much
            if verb == wire.PULSE:
                self._pub_pulse(record)
            elif verb == wire.READY:
                self._ready(record)

    def _tied_now(self) -> None:
        self._tied = True
        for tracker in self.trackers.values():
            self._ask(tracker)

    def _pub_pulse(self, record: Record) -> None:
        _, _, at, reached, pairs = record
        self._reached = self._echoed = reached
        if self._agree(at, pairs):
            self._pulse = at

    def _agree(self, at: int, pairs: list[Any]) -> bool:
        """Compare the hub's counts with the trackers'; what was lost is asked for."""
        agreed = True
        if not {int}.issuperset(map(type, pairs)):
            raise ProtocolError("counts are numbers")
        for sid, count in zip(pairs[::2], pairs[1::2], strict=True):
            tracker = self.trackers.get(sid)
            if tracker is None:
                continue
            if tracker.state is State.ASKED:
                self._ask(tracker)  # the hub serves it already: its READY was lost on PUB
            elif tracker.told(at, count):
                self._ask_repair(tracker)
            agreed &= tracker.state is State.LIVE and tracker.verified >= at
        return agreed

    def _ask_repair(self, tracker: Tracker) -> None:
        verified, newer = tracker.resume()
        self._add([wire.REPAIR, tracker.sid, verified, newer], sum(4 * len(t) + 16 for t in newer))

    # -- verbs

    def _welcome(self, record: Record) -> None:
        _, version, epoch, token, resumed, received, publish, limits, hub = record
        if version != wire.VERSION:
            raise ProtocolError(f"the hub speaks version {version} of the protocol, not {wire.VERSION}")
        if self.phase is not Phase.GREETING:
            raise ProtocolError("WELCOME answers HELLO")
        self._step("welcome")
        self.hub = hub
        self.max_message = _number(limits, "max_message", self.max_message)
        self.high_water = _number(limits, "high_water", self.high_water)
        self.heartbeat = _number(limits, "heartbeat", int(self.heartbeat * 1000)) / 1000
        self.channel.limit = min(self.channel.limit, _number(limits, "link_buffer", self.channel.limit))
        lost: dict[str, int] = {}
        if resumed:
            self.channel.rewind(received)
        else:
            lost = self.channel.forget_sent()
            self.channel.withdraw(_of_session)
            for sid in self._acks:  # as if they had been sent, and lost: whoever waits for them is told
                self._number(sid)
            self._acks.clear()
        self.epoch, self._token = epoch, token
        self._reached = self._echoed = 0
        self._introduce(resumed)
        self._events.append(Welcomed(publish, token, resumed, lost))

    def _introduce(self, resumed: bool) -> None:
        """Say what this session has not been told yet."""
        for registration in self._registered.values():
            if not (resumed and registration.told):
                registration.told = True
                self._add(registration.record, 4 * len(registration.record[2]))
        for record in self._unasked.values():
            self._add(record, len(wire.pack(record)))
        self._unasked.clear()

    def _refused(self, record: Record) -> None:
        self._events.append(Dismissed(from_wire(record[1], record[2])))

    def _pulse_received(self, record: Record) -> None:
        _, time, at, _, pairs = record
        self._events.append(Pulsed(time))
        self._agree(at, pairs)

    def _granted(self, record: Record) -> None:
        _, sid, prefixes = record
        if sid in self.trackers and prefixes:
            if any(type(prefix) is not bytes for prefix in prefixes):
                raise ProtocolError("prefixes are bytes")
            self._prefixes[sid] = prefixes
            self._events += [Prefix(prefix, True) for prefix in prefixes]

    def _ready(self, record: Record) -> None:
        _, sid, at, count = record
        tracker = self.trackers.get(sid)
        if tracker is not None:
            if tracker.ready(self.epoch, at, count, self._fresh):
                self._ask_repair(tracker)
            self._release(tracker)
            self._routes.clear()
        elif sid in self._registered:
            self._registered[sid].ready = True
        else:
            return
        self._events.append(Ready(sid))

    def _denied(self, record: Record) -> None:
        _, sid, code, text = record
        if self.trackers.pop(sid, None) or self._registered.pop(sid, None):
            self._events.append(Rejected(sid, from_wire(code, text)))

    def _forbidden(self, record: Record) -> None:
        _, topic, code, text = record
        self._events.append(Forbidden(topic, from_wire(code, text)))

    def _new_key(self, record: Record) -> None:
        self._events.append(NewKey(record[1]))

    def _run_direct(self, record: Record) -> None:
        _, sid, data = record
        runs = self._bundle(data, data.find(b"\0") + 1)
        if not sid:
            self._runs_received(runs, direct=True)
            return
        tracker = self.trackers.get(sid)
        if tracker is None:
            return
        for topic, seq, _, origin, kind, bodies in runs:
            self._route_of(topic)  # raises for what is no topic
            if topics.matches(tracker.pattern, topic):  # others' runs can share a frame that is sent again
                tracker.repair((topic, kind, bodies, origin, seq), self._fresh)
        self._release(tracker)

    def _repaired(self, record: Record) -> None:
        _, sid, at, count = record
        tracker = self.trackers.get(sid)
        if tracker is not None:
            if tracker.repaired(at, count, self._fresh):
                self._ask_repair(tracker)
            self._release(tracker)

    def _gap(self, record: Record) -> None:
        _, sid, pattern, epoch, first, last, reason = record
        topics.check_pattern(pattern)
        tracker = self.trackers.get(sid)
        if tracker is not None:
            tracker.pass_gap(Gap(pattern, epoch, first, last, reason), self._fresh)
            self._release(tracker)

    def _work(self, record: Record) -> None:
        wire.check_bodies(record[3], record[4])
        self._events.append(Work._make(record[1:]))

    def _call(self, record: Record) -> None:
        self._events.append(Call._make(record[1:]))

    def _answer(self, record: Record) -> None:
        self._events.append(Answer._make(record[1:]))

    def _asked(self, record: Record) -> None:
        self._events.append(Asked(*record[1:]))

    def _stored(self, record: Record) -> None:
        self._events.append(Stored._make(record[1:]))

    def _unstored(self, record: Record) -> None:
        self._events.append(Unstored._make(record[1:]))

    def _deliver(self, record: Record) -> None:
        wire.check_bodies(record[7], record[8])
        self._events.append(Deliver._make(record[1:]))

    def _acked(self, record: Record) -> None:
        self._events.append(Acked._make(record[1:]))

    def _expired(self, record: Record) -> None:
        if len(record[2]) % 2 or not {int}.issuperset(map(type, record[2])):
            raise ProtocolError("spans are pairs of numbers")
        self._events.append(Expired._make(record[1:]))


def _number(limits: dict[str, Any], name: str, default: int) -> int:
    value = limits.get(name)
    return value if type(value) is int and 0 < value <= _MOST else default


def _of_connection(record: Record) -> bool:
    """Is this said anew on every connection?"""
    return record[0] == wire.REPAIR or (record[0] == wire.SUBSCRIBE and record[3] is None)


_OF_SESSION = frozenset(
    (
        *(wire.SUBSCRIBE, wire.UNSUBSCRIBE, wire.RESPOND, wire.REPLY),
        *(wire.PUT, wire.CONSUME, wire.ACK, wire.NAK, wire.EXTEND, wire.REJECT),
    )
)


def _of_session(record: Record) -> bool:
    """Is this said anew to every session, or means nothing to another one?"""
    return record[0] in _OF_SESSION


def _out_of_place(link: Link, record: Record) -> None:
    raise ProtocolError("TIED comes on PUB")


_HANDLERS: dict[int, Callable[[Link, Record], None]] = {
    wire.WELCOME: Link._welcome,
    wire.REFUSED: Link._refused,
    wire.PULSE: Link._pulse_received,
    wire.TIED: _out_of_place,
    wire.GRANTED: Link._granted,
    wire.READY: Link._ready,
    wire.DENIED: Link._denied,
    wire.FORBIDDEN: Link._forbidden,
    wire.NEWKEY: Link._new_key,
    wire.RUN: Link._run_direct,
    wire.REPAIRED: Link._repaired,
    wire.GAP: Link._gap,
    wire.WORK: Link._work,
    wire.CALL: Link._call,
    wire.ANSWER: Link._answer,
    wire.ASKED: Link._asked,
    wire.STORED: Link._stored,
    wire.UNSTORED: Link._unstored,
    wire.DELIVER: Link._deliver,
    wire.ACKED: Link._acked,
    wire.EXPIRED: Link._expired,
}
