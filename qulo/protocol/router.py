"""Publish/subscribe inside a hub: numbering, routing by topic, the replay window, repairs, and lag.

The router numbers every message it is given, hands each run once to every listener that has a subscriber for it
(PUB), and to single sessions where PUB cannot express their pattern (ROUTER). It keeps the runs for repairs and
counts what every subscription is owed. It never waits and never drops for a healthy subscriber: `measure` tells
how many more runs fit, and the hub parks publishers when none do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from qulo.errors import Overloaded
from qulo.protocol import topics, wire
from qulo.protocol.groups import Group
from qulo.protocol.interest import Interest, PatternIndex
from qulo.protocol.ports import Counters, Limits, Note
from qulo.protocol.session import Life, Listener, Repair, Session, Subscription, crowd_of
from qulo.protocol.window import Frame, Topic, Window

# Bytes of repair runs handed to one session per turn of the loop, so that a repair never starves live traffic.
REPAIR_BUDGET = 512 * 1024

# With less room than this share of the limit the hub waits for echoes, instead of measuring at every run.
HYSTERESIS = 8

# Seconds that a principal is known to be slow: a session of its that lags meanwhile holds nobody up for long, or one
# could stop a site with a new session every slow_after.
SLOW_KNOWN = 60.0
SLOW_MANY = 1000  # principals that are remembered; then the table starts anew

# Gaps from elsewhere that are remembered for sessions that had ended when they were told, and come back.
GAPS = 1000

# Those of one moment that are remembered one by one: beyond it they are remembered as `>`, so that one peer's many
# do not make all others' be forgotten.
GAPS_EACH = 20

# Gaps of one moment that one subscription is told one by one: beyond it one on all of its pattern.
GAPS_TOLD = 20

# What a run costs in a bundle beside its bodies and topic: two numbers, an origin, msgpack headers.
RUN_OVERHEAD = 48

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Route:
    """Who gets the runs of the topics that the same interests match."""

    interests: tuple[Interest, ...]
    listeners: tuple[Listener, ...]
    direct: tuple[Session, ...]
    key: bytes


class Router:
    """The publish/subscribe half of a hub. `frames` collects what has to be sent on each listener's PUB."""

    def __init__(self, epoch: int, limits: Limits, counters: Counters, note: Callable[[Note], None]) -> None:
        self.epoch = epoch
        self.limits = limits
        self.counters = counters
        self.seq = 0  # number of the last message
        self.window = Window(limits.replay_window)
        self.frames: list[tuple[Listener, bytes]] = []
        self.sessions: dict[Session, None] = {}  # those with subscriptions or memberships, in order
        self.lag_limit = max(1, limits.high_water // 2)
        self.budget = self.lag_limit  # runs that may still be published before the next `measure`
        self._note = note
        self._index: PatternIndex[dict[bool, Interest]] = PatternIndex()
        self._groups: PatternIndex[dict[str, Group]] = PatternIndex()
        self._generation = 0
        self._gaps: deque[tuple[int, str]] = deque(maxlen=GAPS)
        self._routes: dict[tuple[bool, tuple[Interest, ...]], Route] = {}
        self._routes_of = -1  # the generation that they are of
        self._slow: dict[str, float] = {}  # by principal: when one of its sessions was slow
        self._open: Route | None = None  # the route of the bundle that is being filled
        self._runs: list[tuple[str, int, int, bytes, int, list[bytes]]] = []
        self._frame = Frame()
        self._size = 0
        self.decides: Callable[[str], bool] = lambda topic: True  # or does a master?

    # -- publishing

    def publish(self, name: str, kind: int, bodies: list[bytes], origin: bytes) -> None:
        """Number a run and send it to whoever subscribed. `name` and `bodies` have been checked."""
        topic = self.window.topics.get(name)
        if topic is None:
            topic = self.add_topic(name)
        if topic.generation != self._generation:
            self._route(topic)
        count = len(bodies)
        prev = topic.last
        first = self.seq + 1
        end = self.seq = topic.last = self.seq + count
        topic.messages += count
        route = topic.route
        if route is None:
            topic.gone = end
        else:
            size = RUN_OVERHEAD + 4 * len(name) + count * wire.BODY_OVERHEAD + sum(map(len, bodies))
            if route is not self._open or self._size + size > wire.BATCH:
                self.close_bundle()
                self._open = route
            frame = self._frame
            self._runs.append((name, first, prev, origin, kind, bodies))
            frame.topics.append(topic)
            topic.runs.append((first, end, frame))
            self._size += size
            for interest in route.interests:
                interest.count += count
        if topic.groups:
            for group in topic.groups:
                self._work(group, topic, kind, bodies)

    def close_bundle(self) -> None:
        """Make the open runs one frame and send it. Whoever adds to `frames` calls this first."""
        route = self._open
        if route is None:
            return
        frame, self._frame = self._frame, Frame()
        frame.data = data = wire.encode_bundle(route.key, self.epoch, self._runs)
        self._open, self._runs, self._size = None, [], 0
        self.window.add(frame)
        for interest in route.interests:
            interest.frames += 1
        for listener in route.listeners:
            self.frames.append((listener, data))
        self.budget -= 1
        for session in route.direct:
            self._send_direct(session, data)

    def add_topic(self, name: str) -> Topic:
        """Begin to know a topic; raises BadTopic."""
        topics.check_topic(name)
        self.window.forget_topics()  # before there is one more, which has no runs yet
        floor = self.window.floor
        topic = Topic(name, topics.is_local(name), last=floor, gone=floor)
        self.window.topics[name] = topic
        return topic

    def _route(self, topic: Topic) -> None:
        """Work out who gets what is published on `topic`, until interest changes again."""
        interests = tuple(
            interest
            for by_locality in self._index.match(topic.name)
            for interest in by_locality.values()
            if interest.local or not topic.local
        )
        topic.route = self._find_route(topic.local, interests) if interests else None
        topic.groups = ()
        if self.decides(topic.name):
            topic.groups = tuple(group for by_name in self._groups.match(topic.name) for group in by_name.values())
        topic.generation = self._generation

    def _find_route(self, local: bool, interests: tuple[Interest, ...]) -> Route:
        """The one route for these interests: runs on topics that share it can share a frame.

        Local topics never share one with others, even if only local programs listen to both now: the frame may
        be sent again, as a repair, to somebody beyond this host.
        """
        if self._routes_of != self._generation:
            self._routes.clear()
            self._routes_of = self._generation
        route = self._routes.get((local, interests))
        if route is None:
            # Each prefix is a prefix of the topic's key, so that all are prefixes of the longest.
            prefixes = [topics.prefix(interest.pattern) or b"" for interest in interests if interest.on_pub]
            longest = max(prefixes, key=len, default=b"")
            route = self._routes[local, interests] = Route(
                interests,
                tuple({listener: None for i in interests for listener in i.on_pub}),
                tuple({session: None for i in interests for session in i.direct}),
                longest if longest[-1:] == b"\0" else longest + b"\0",
            )
        return route

    def _send_direct(self, session: Session, frame: bytes) -> None:
        size = len(frame) + wire.RECORD_OVERHEAD
        if (session.slow or session.life is not Life.UP) and session.channel.room < size:
            session.dropped += 1  # its count tells it at the next pulse, and it asks for a repair
            self.counters.dropped += 1
            return
        session.channel.add([wire.RUN, 0, frame], size)
        if session.channel.room < session.channel.limit // 2:
            self.budget = 0

    def _work(self, group: Group, topic: Topic, kind: int, bodies: list[bytes]) -> None:
        dropped = group.deal(topic.name, kind, bodies, topic.local)
        if dropped:
            self.counters.dropped += dropped
            if not group.dropped:
                self._note_group(group, "messages are dropped, every member is full")
            group.dropped += dropped
        elif group.dropped:
            self._note_group(group, f"{group.dropped} messages were dropped, members have room again")
            group.dropped = 0
        if group.crowded:
            self.budget = 0

    def _note_group(self, group: Group, text: str) -> None:
        self._note(Note("error", f"group {group.name} on {group.pattern}: {text}"))

    # -- subscriptions

    def subscribe(self, session: Session, sid: int, pattern: str) -> Subscription:
        """Register a subscription; `serve` starts it. Raises a QuloError that says why not."""
        topics.check_pattern(pattern)
        self._check_new(session, sid)
        old = session.subscriptions.get(sid)
        instead = None if old is None else crowd_of(old.pattern, shared=False)
        session.enter(crowd_of(pattern, shared=False), self.limits.max_subscriptions, instead)
        local = session.listener.local
        by_locality = self._index.setdefault(pattern, dict)
        if local not in by_locality:
            self.seq += 1  # a number of its own: whoever has that has nothing from before this interest
            by_locality[local] = Interest(pattern, local, self.seq)
        interest = by_locality[local]
        interest.users += 1
        before = self.unsubscribe(session, sid)  # after the line above, so that one interest goes on
        since = self.seq if before is None or before.pattern != pattern else before.since
        subscription = Subscription(session, sid, pattern, interest, since)
        session.subscriptions[sid] = subscription
        self.sessions[session] = None
        self._generation += 1
        return subscription

    def _check_new(self, session: Session, sid: int) -> None:
        held = len(session.subscriptions) + len(session.members) + len(session.responders)
        known = sid in session.subscriptions or sid in session.members
        if held >= self.limits.max_subscriptions * session.weight and not known:
            raise Overloaded(f"this peer has {held} subscriptions; the limit is max_subscriptions")

    def serve(self, subscription: Subscription) -> None:
        """Grant a subscription. On ROUTER it begins at once, on PUB when its prefix arrives (`installed`)."""
        session = subscription.session
        prefix = topics.prefix(subscription.pattern)
        if prefix is not None:
            subscription.prefix = prefix
            session.granted.setdefault(prefix, {})[subscription] = None
            self._tell(session, [wire.GRANTED, subscription.sid, [prefix]])
            return
        self.close_bundle()
        direct = subscription.interest.direct
        direct[session] = direct.get(session, 0) + 1
        subscription.path = "router"
        self._generation += 1
        self._tell(session, [wire.GRANTED, subscription.sid, []])
        self._tell(session, self._ready(subscription))

    def installed(self, session: Session, prefix: bytes) -> bool:
        """The session's SUB asks for a prefix: may PUB serve it? If so READY has been queued on PUB, once.

        It may be served already: where one of two subscriptions with the same prefix ends, the SUB takes the
        prefix back and asks for it again, and there is no order between that and SUBSCRIBE.
        """
        granted = session.granted.get(prefix, ())
        for subscription in granted:
            if not subscription.path:
                self._begin_pub(subscription)
        return bool(granted)

    def _begin_pub(self, subscription: Subscription) -> None:
        session, interest = subscription.session, subscription.interest
        self.close_bundle()
        interest.on_pub[session.listener] = interest.on_pub.get(session.listener, 0) + 1
        subscription.path = "pub"
        subscription.base = interest.frames
        self._generation += 1
        self.own(session, self._ready(subscription))

    def own(self, session: Session, record: wire.Record) -> None:
        """Send a record on the session's own PUB channel, after everything that was published before."""
        self.close_bundle()
        self.frames.append((session.listener, wire.encode_own(session.token, [record])))

    def _ready(self, subscription: Subscription) -> wire.Record:
        return [wire.READY, subscription.sid, self.seq, subscription.interest.count]

    def unsubscribe(self, session: Session, sid: int) -> Subscription | None:
        """End a subscription; unknown ones are none of anybody's business."""
        subscription = session.subscriptions.pop(sid, None)
        if subscription is None:
            return None
        self._stop(subscription)
        session.quit(crowd_of(subscription.pattern, shared=False))
        session.repairs.pop(subscription, None)
        interest = subscription.interest
        interest.users -= 1
        if not interest.users:
            by_locality = self._index.get(interest.pattern)
            if by_locality is not None:
                del by_locality[interest.local]
                if not by_locality:
                    self._index.remove(interest.pattern)
        self._generation += 1
        return subscription

    def _stop(self, subscription: Subscription) -> None:
        """Serve it no more, but keep it: what it misses stays in the window."""
        self.close_bundle()
        session, interest = subscription.session, subscription.interest
        if subscription.path == "pub":
            session.closed_frames += interest.frames - subscription.base
            _decrement(interest.on_pub, session.listener)
        elif subscription.path == "router":
            _decrement(interest.direct, session)
        subscription.path = ""
        if subscription.prefix is not None:
            granted = session.granted[subscription.prefix]
            del granted[subscription]
            if not granted:
                del session.granted[subscription.prefix]
            subscription.prefix = None
        self._generation += 1

    def suspend(self, session: Session) -> None:
        """The session's connection was replaced: its Link subscribes anew, naming what it has."""
        for subscription in session.subscriptions.values():
            self._stop(subscription)
        session.repairs.clear()
        session.tied = None
        session.closed_frames = session.reached = 0
        session.pulse = (0, {})

    def forget(self, session: Session) -> list[Subscription]:
        """The session has ended; returns the subscriptions it had."""
        for sid in list(session.members):
            self.leave(session, sid)
        ended = [self.unsubscribe(session, sid) for sid in list(session.subscriptions)]
        self.sessions.pop(session, None)
        return [subscription for subscription in ended if subscription]

    # -- groups

    def join(self, session: Session, sid: int, pattern: str, name: str) -> None:
        """Add a member to a group. Raises a QuloError that says why not."""
        topics.check_pattern(pattern)
        self._check_new(session, sid)
        old = session.members.get(sid)
        instead = None if old is None else crowd_of(old.pattern, shared=True)
        session.enter(crowd_of(pattern, shared=True), self.limits.max_subscriptions, instead)
        self.leave(session, sid)
        group = self._groups.setdefault(pattern, dict).setdefault(name, Group(pattern, name))
        session.members[sid] = group
        group.add(session, sid)
        self.sessions[session] = None
        self._generation += 1

    def leave(self, session: Session, sid: int) -> bool:
        """Take a member out of its group."""
        group: Group | None = session.members.pop(sid, None)
        if group is None:
            return False
        group.remove(session, sid)
        session.quit(crowd_of(group.pattern, shared=True))
        if not group.members:
            by_name = self._groups.get(group.pattern)
            if by_name is not None:
                del by_name[group.name]
                if not by_name:
                    self._groups.remove(group.pattern)
        self._generation += 1
        return True

    # -- repairs and gaps

    def repair(self, subscription: Subscription, verified: int, newer: dict[str, int]) -> None:
        """Queue what a subscription missed; `send_repairs` works it out and sends it, within a budget a turn."""
        self.counters.repairs += 1
        subscription.session.repairs[subscription] = Repair(subscription, verified, newer)

    def _work_out(self, repair: Repair) -> None:
        subscription = repair.subscription
        interest = subscription.interest
        self.close_bundle()
        missed = self.window.missed(self._topics_of(interest), repair.verified, repair.newer)
        repair.lost = missed.lost
        never = self._never_came(subscription, repair.verified)
        if never is not None:
            repair.lost = (repair.verified + 1, max(never, repair.lost[1] if repair.lost else 0))
        repair.frames = deque(missed.frames)
        repair.at, repair.count = self.seq, interest.count

    def _only(self, frame: Frame, interest: Interest) -> bytes:
        """A frame as its subscription may see it: others' runs can be in one with its own, of topics denied to it."""

        def matches(name: str, local: bool) -> bool:
            return (interest.local or not local) and topics.matches(interest.pattern, name)

        if all(matches(topic.name, topic.local) for topic in frame.topics):
            return frame.data
        start = frame.data.index(b"\0") + 1
        epoch, runs = wire.decode_bundle(frame.data, start)
        kept = [run for run in runs if matches(run[0], topics.is_local(run[0]))]
        return wire.encode_bundle(frame.data[:start], epoch, kept)

    def _never_came(self, subscription: Subscription, verified: int) -> int | None:
        """Up to which number things may have been missed that this hub never had, and has not told of?"""
        pattern, interest = subscription.pattern, subscription.interest
        ends = [at for at, gap in self._gaps if verified < at <= subscription.since and topics.overlap(gap, pattern)]
        if verified < interest.since and not self.decides(pattern):
            ends.append(interest.since)  # what the master published while nobody here wanted it
        return max(ends, default=None)

    def _topics_of(self, interest: Interest) -> Iterable[Topic]:
        known = self.window.topics
        if "*" not in interest.pattern and not interest.pattern.endswith(">"):
            return [known[interest.pattern]] if interest.pattern in known else []
        return [
            topic
            for topic in known.values()
            if (interest.local or not topic.local) and topics.matches(interest.pattern, topic.name)
        ]

    def send_repairs(self, session: Session) -> None:
        """Move repair runs into the session's channel, as far as this turn's budget and its room go.

        One repair is worked out per turn: that is a walk over topics and the window.
        """
        budget = min(REPAIR_BUDGET, session.channel.room)
        fresh = True
        while session.repairs and budget > 0:
            subscription, repair = next(iter(session.repairs.items()))
            if repair.frames is None:
                if not fresh:
                    return
                fresh = False
                self._work_out(repair)
            if repair.lost is not None:  # before the runs: what is gone is older than what is not
                self.counters.gaps += 1
                gap = [wire.GAP, subscription.sid, subscription.pattern, self.epoch, *repair.lost, "window"]
                self._tell(session, gap)
                repair.lost = None
            if repair.frames:
                data = self._only(repair.frames.popleft(), subscription.interest)
                size = len(data) + wire.RECORD_OVERHEAD
                session.channel.add([wire.RUN, subscription.sid, data], size)
                budget -= size
                continue
            del session.repairs[subscription]
            self._tell(session, [wire.REPAIRED, subscription.sid, repair.at, repair.count])

    def pass_gaps(
        self,
        gaps: Mapping[str, str],
        where: tuple[int, int | None, int | None] = (0, None, None),  # epoch, first and last number
        but: bytes = b"",
    ) -> None:
        """Tell everyone whose subscription overlaps one of `gaps` (pattern → reason), which happened elsewhere.

        Costs a look into the index for each topic, a look at every pattern for each of them that has wildcards, and
        one walk over the subscriptions.
        """
        if not gaps:
            return
        self.seq += 1  # a number of its own, for those who come back later (see `_never_came`)
        self._gaps.extend((self.seq, pattern) for pattern in (gaps if len(gaps) <= GAPS_EACH else (">",)))
        concerned = self._concerned(gaps)
        for session in self.sessions if concerned else ():
            if session.instance == but:
                continue
            for subscription in session.subscriptions.values():
                found = concerned.get(subscription.interest)
                if found is None:
                    continue
                for pattern in found if len(found) <= GAPS_TOLD else (subscription.pattern,):
                    self.counters.gaps += 1
                    reason = gaps.get(pattern) or gaps[found[0]]
                    self._tell(session, [wire.GAP, subscription.sid, pattern, *where, reason])

    def _concerned(self, gaps: Mapping[str, str]) -> dict[Interest, list[str]]:
        """Those of the gaps that overlap with each interest."""
        concerned: dict[Interest, list[str]] = {}
        for pattern in gaps:
            if topics.is_wide(pattern):
                known = {each.interest for session in self.sessions for each in session.subscriptions.values()}
                found = [interest for interest in known if topics.overlap(interest.pattern, pattern)]
            else:
                found = [interest for each in self._index.match(pattern) for interest in each.values()]
            for interest in found:
                concerned.setdefault(interest, []).append(pattern)
        return concerned

    # -- lag

    def measure(self, now: float) -> bool:
        """How far behind are the healthy subscribers? Sets `budget`; True if publishers may go on."""
        worst = 0
        for session in self.sessions:
            lag = self._lag_of(session)
            if session.slow:
                if lag < self.lag_limit // 4:
                    session.slow, session.lag_since = False, None
                    self._note(Note("info", f"{session.name} keeps up again"))
            elif lag < self.lag_limit - self.lag_limit // HYSTERESIS:
                session.lag_since = None
                worst = max(worst, lag)
            elif session.life is not Life.UP:
                continue
            else:
                worst = max(worst, self._hold_for(session, lag, now))
        self.budget = self.lag_limit - worst
        return self.budget > self.lag_limit // HYSTERESIS

    def _lag_of(self, session: Session) -> int:
        """Lag in PUB frames; a channel that is half full counts as half the high-water mark."""
        channel = session.channel
        return max(session.lag, 2 * channel.bytes * self.lag_limit // channel.limit)

    def _hold_for(self, session: Session, lag: int, now: float) -> int:
        """Publishers wait for this one, until it has been behind for `slow_after`."""
        if session.lag_since is None:
            session.lag_since = now
        known = now - self._slow.get(session.principal, -SLOW_KNOWN) < SLOW_KNOWN
        if now - session.lag_since < self.limits.slow_after and not known:
            return lag
        session.slow = True
        if len(self._slow) >= SLOW_MANY:
            self._slow.clear()
        self._slow[session.principal] = now
        self._note(
            Note(
                "warning",
                f"{session.name} ({session.address}) is slow: {lag} frames behind for {self.limits.slow_after:g} s; "
                "nobody waits for it any more, it gets repairs or gaps",
            )
        )
        return 0

    def pulse(self, session: Session, echo: int) -> tuple[wire.Record, wire.Record]:
        """The heartbeat for one session: (the record for ROUTER, the one for its own PUB channel)."""
        self.close_bundle()
        sent: dict[int, int] = {}
        direct: list[int] = []
        for sid, subscription in session.subscriptions.items():
            count = subscription.interest.count
            if count == subscription.confirmed:
                continue
            if subscription.path == "pub":
                sent[sid] = count
            elif subscription.path == "router" and session.channel.all_sent and not session.repairs:
                direct += (sid, count)
        # Agreement with the pulse before, where it had the same number, is none with what came in since.
        before, known = session.pulse
        session.pulse = (self.seq, sent if before < self.seq else {s: c for s, c in sent.items() if s in known})
        pairs = [number for pair in sent.items() for number in pair]
        return (
            [wire.PULSE, echo, self.seq, 0, direct],
            [wire.PULSE, 0, self.seq, session.owed, pairs],
        )

    def pulse_confirmed(self, session: Session, at: int) -> None:
        """The subscriber agrees with everything in the pulse `at`."""
        if at == session.pulse[0]:
            for sid, count in session.pulse[1].items():
                if sid in session.subscriptions:
                    session.subscriptions[sid].confirmed = count

    @staticmethod
    def _tell(session: Session, record: wire.Record) -> None:
        session.channel.add(record, len(wire.pack(record)))


def _decrement(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
