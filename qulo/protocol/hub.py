"""The hub: the one dispatcher, what each verb does, and the turn of the loop. Pure; `net.hub` drives it.

Drive it like this. For every frame from a ROUTER call `frame_received`, for every subscription message from an
XPUB `subscription_received` (its answer says whether to install the prefix), from a timer `tick`. After each turn
of the loop call `flush`, then send what `take_pub` and `take_out` give, in that order and within it. What an
operator may want to read is in `take_notes`.

A hub with an `upstream` is an agent's: `local.>` is decided here, everything else by the master.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from qulo.errors import BadTopic, Denied, Disconnected, Overloaded, ProtocolError, QuloError
from qulo.protocol import topics, wire
from qulo.protocol.bucket import Bucket
from qulo.protocol.calls import Asker, Calls
from qulo.protocol.permissions import PING, REMEMBERED, Permissions
from qulo.protocol.ports import Limits, Request, SystemHandler, Upstream
from qulo.protocol.reception import NAME, Connection, Reception
from qulo.protocol.router import Router
from qulo.protocol.session import Life, Listener, Session, Subscription
from qulo.protocol.wire import Record

# A peer is suspect after this many heartbeats without a sign of life: one lost to a busy loop is no alarm.
SILENT_BEATS = 2.5

# Topics of an agent that are remembered for the Gap when it dies; with more, one Gap speaks for all.
AGENT_TOPICS = 1000

# Bytes of runs from above that may wait while local subscribers lag; beyond it they get a Gap.
ABOVE_LIMIT = 16 * 1024 * 1024

# Seconds between two samples of the topics' message counts, for rates.
SAMPLE = 5.0

# Seconds' worth of max_rate that a peer may publish at once: more than the time between two looks at who is held
# back, so that a steady publisher gets its whole rate.
RATE_BURST = 1.0

# Connections whose session has ended, and whose next one inherits what it owes to max_rate: else a HELLO would pay it.
DEBTORS = 1000

# Records in a frame without a number: a heartbeat or an echo, and what a link may say with it.
MOST_UNNUMBERED = 8

# Times its limit that a session's channel may hold, of answers and refusals that nothing else bounds, before the
# session ends. Groups stop at groups.HARD_BOUND.
UNREAD = 8

# Characters of an answer's code: it has to fit into the head of a large frame, whoever chose it.
MAX_CODE = 64


class Hub(Reception):
    """The state of one hub since its start; `epoch` names that start and is never used twice."""

    def __init__(
        self,
        name: str,
        epoch: int,
        limits: Limits,
        make_token: Callable[[], bytes],
        version: str,
        upstream: Upstream | None = None,
    ) -> None:
        super().__init__(name, epoch, limits, make_token, version)
        self.upstream = upstream
        self.system: dict[str, SystemHandler] = {}
        self.is_host = False  # does this hub have an agent's duties, as qulod does?
        self.executor = ""  # of an agent: "ok" or "lost"
        self.blocked = False
        self._draining = False
        self.rates: dict[str, float] = {}
        self.router = Router(epoch, limits, self.counters, self._notes.append)
        self.router.decides = self._decides
        self.calls = Calls(limits, self.counters, epoch)
        self._parked: dict[Session, None] = {}  # while subscribers lag
        self._held: dict[Session, None] = {}  # over max_rate
        self._above: deque[tuple[str, int, list[bytes], bytes]] = deque()
        self._above_size = 0
        self._above_lost: set[str] = set()
        self._waiting_above: dict[str, list[Subscription]] = {}
        self._ticked = 0.0  # when tick was called last
        self._sampled: tuple[float, dict[str, int]] = (0.0, {})

    # -- what the driver calls

    def frame_received(
        self, listener: Listener, route: bytes, user: str, address: str, data: bytes, now: float
    ) -> None:
        """A frame from a ROUTER; `user` is `principal#connection`, as the ZAP handler gave it."""
        self.counters.frames_in += 1
        if listener.offenders.ignored and listener.offenders.is_ignored(route, user, now):
            self.counters.ignored += 1
            return
        session = listener.routes.get(route)
        if session is not None and session.user != user:
            session = None  # a connection that took over a dead one's routing id is not that peer
        try:
            number, ack, records = wire.decode(data)
            if session is None or _begins(records, wire.HELLO):
                self._greet(Connection(listener, route, user, address), records, now)
                return
            self._heard(session, now)
            if session.channel.acknowledged(ack):
                self._acked(session, now)
            if number == 0:
                if len(records) > MOST_UNNUMBERED:
                    raise ProtocolError("more records than a frame without a number has")
                for record in records:
                    if wire.check(record, "up") not in wire.UNNUMBERED:
                        raise ProtocolError("this verb belongs in a numbered frame")
                    self._dispatch(session, record, now)
            else:
                self._numbered(session, number, records, len(data), now)
        except ProtocolError as error:
            self._bad(Connection(listener, route, user, address), session, error, now)

    def parts_received(self, listener: Listener, route: bytes, user: str, address: str, now: float) -> None:
        """A message from a ROUTER that had more than the one part that a frame has."""
        self.counters.frames_in += 1
        if listener.offenders.ignored and listener.offenders.is_ignored(route, user, now):
            self.counters.ignored += 1
            return
        session = listener.routes.get(route)
        if session is not None and session.user != user:
            session = None
        self._bad(Connection(listener, route, user, address), session, ProtocolError("a frame is one part"), now)

    def subscription_received(self, listener: Listener, user: str, message: bytes, now: float) -> bool:
        """A message from an XPUB; True when the caller shall install `message[1:]` for the sender."""
        if message[:1] != b"\x01":
            return False
        prefix = message[1:]
        if prefix.startswith(topics.SESSIONS):
            return self._tie(listener, user, prefix)
        session = self._tied.get(user)
        if session is not None and session.tied == user and session.listener is listener:
            return self.router.installed(session, prefix)
        self.counters.bad_frames += 1
        return False

    def tick(self, now: float) -> None:
        """Time has passed: call it a few times per heartbeat."""
        stalled = now - self._ticked if self._ticked else 0.0
        self._ticked = now
        if stalled > self.limits.heartbeat:  # we were stalled, not they: what they sent is still to be read
            for session in self.sessions.values():
                session.heard = min(now, session.heard + stalled)
        for session in list(self.sessions.values()):
            self._look_after(session, now)
        self.calls.expire(now, self._settle)
        if self._held:
            self.release(now)
        if self.blocked or any(session.slow for session in self.router.sessions):
            self._measure(now)
        for listener in self.listeners:
            listener.offenders.tidy(now)
        self._sample(now)

    def _look_after(self, session: Session, now: float) -> None:
        """Has it been silent for too long?"""
        silence = now - session.heard
        if silence > self.limits.session_timeout:
            self.end(session, "expired", now)
        elif silence > SILENT_BEATS * self.limits.heartbeat and session.step("silent"):
            self._note("warning", f"{session.name} is suspect: silent for {silence:.1f} s")
        if not session.channel.all_sent:
            self._dirty[session] = None  # the socket refused something: try again

    def flush(self) -> bool:
        """Turn what this turn decided into frames; True when another turn should follow soon."""
        self.router.close_bundle()
        dirty, self._dirty = self._dirty, {}
        again = False
        unread: list[Session] = []
        for session in dirty:
            if session.route is None or session.life is Life.DOWN:
                continue
            if session.repairs:
                self.router.send_repairs(session)
                if session.repairs and session.channel.room > 0:
                    self._dirty[session] = None
                    again = True
            for frame in session.channel.take():
                self._out.append((session.listener, session.route, frame))
            if session.channel.bytes > UNREAD * session.channel.limit:
                unread.append(session)
        for session in unread:
            self._note("error", f"{session.name} ({session.address}) asks and does not read: its session ends")
            self._dismiss(session, "more waits to be read than a session may hold", session.heard)
        return again

    def drain(self) -> bool:
        """Take no more publishes (they are not acknowledged any more); True when all peers have what was sent."""
        self._draining = self.blocked = True
        return not any(
            session.connected
            and session.life is Life.UP
            and not session.slow
            and (session.lag or not session.channel.idle)
            for session in self.sessions.values()
        )

    def take_pub(self) -> list[tuple[Listener, bytes]]:
        """What to send on the listeners' PUB, in order."""
        frames = self.router.frames
        if frames:
            self.router.frames = []
        return frames

    def take_out(self) -> list[tuple[Listener, bytes, bytes]]:
        """What to send on the listeners' ROUTER: (listener, route, frame), in order."""
        out, self._out = self._out, []
        return out

    def unsent(self, listener: Listener, route: bytes, count: int, gone: bool) -> None:
        """The ROUTER refused the last `count` frames for this route: it is full, or the peer is gone."""
        session = listener.routes.get(route)
        if session is None:
            return
        session.channel.untake(count)
        if gone:
            self._detach(session)
            if session.step("silent"):
                self._note("warning", f"{session.name} is suspect: its connection is gone")

    def pub_lost(self, listener: Listener) -> None:
        """The listener's PUB was closed with all its connections: its sessions connect anew and say what they have."""
        for session in listener.routes.values():
            self._tied.pop(session.tied or "", None)
            self.router.suspend(session)

    def listener_lost(self, listener: Listener) -> None:
        """Both its sockets were closed: the sessions wait for their links to come back."""
        for session in list(listener.routes.values()):
            self._detach(session)

    # -- what the reception asks

    def _let_go(self, session: Session) -> None:
        self.router.suspend(session)
        session.parked.clear()
        session.parked_size = 0
        self._parked.pop(session, None)
        self._held.pop(session, None)

    def _ended(self, session: Session, why: str) -> None:
        if session.bucket is not None:
            self._debts[session.user] = session.bucket
            if len(self._debts) > DEBTORS:
                del self._debts[next(iter(self._debts))]
        if self.upstream:
            for sid in [*session.members, *session.responders]:
                self.upstream.leave(session, sid)
        for subscription in self.router.forget(session):
            self._unwant(subscription)
        self.calls.forget(session)
        if why == "expired":
            for pattern in session.forwarded:  # it may have acknowledged what it never forwarded
                self.pass_gap(pattern, 0, None, None, "restart")

    def _own(self, session: Session, record: Record) -> None:
        self.router.own(session, record)

    # -- frames of a session

    def _numbered(self, session: Session, number: int, records: list[Record], size: int, now: float) -> None:
        if self.router.budget <= 0 and not self.blocked:
            self._measure(now)
        if session.parked or (self.blocked and _publishes(records)):
            self._park(session, number, records, size)
            return
        if session.bucket is not None and self._is_over_rate(session, records, now):
            self._hold(session)
            self._park(session, number, records, size)
            return
        self._take_in(session, number, records, size, now)

    def _park(self, session: Session, number: int, records: list[Record], size: int) -> None:
        """Healthy subscribers lag, or it publishes too fast: the frame is not accepted yet, so credit runs out."""
        if session.parked_size + size > 2 * self.limits.link_buffer + self.limits.max_message:
            raise ProtocolError("more was sent than the hub has given credit for")
        session.parked_size += size
        session.parked.append((number, records, size))
        if session not in self._held:
            self._parked[session] = None

    def _is_over_rate(self, session: Session, records: list[Record], now: float) -> bool:
        """Has it published more than max_rate allows, so that these records have to wait?"""
        return session.bucket is not None and not session.bucket.is_open(now) and _publishes(records)

    def _hold(self, session: Session) -> None:
        """Keep what it sends until its rate allows more; named once."""
        self._held[session] = None
        if not session.over_rate:
            session.over_rate = True
            rate = self.limits.max_rate * session.weight
            self._note(
                "warning",
                f"{session.name} ({session.address}) publishes more than {rate} messages per second (max_rate): "
                "it is held back, nothing is lost",
            )

    @property
    def holding(self) -> bool:
        """Is anybody held back by max_rate? Then call `release` soon."""
        return bool(self._held)

    def release(self, now: float) -> None:
        """Take in what was held back, as far as each one's rate goes by now."""
        self._parked.update(self._held)
        self._held.clear()
        if not self.blocked:
            self._measure(now)

    def _count_rate(self, session: Session, count: int, now: float) -> None:
        """It published: that counts against max_rate."""
        if session.bucket is None:
            session.bucket = Bucket(self.limits.max_rate * session.weight, RATE_BURST, now)
        session.bucket.take(count)

    def _take_in(self, session: Session, number: int, records: list[Record], size: int, now: float) -> None:
        channel = session.channel
        self._dirty[session] = None
        if size > self.limits.max_message:
            self._check_sizes(records)
        if not channel.accept(number, size):
            return
        for record in records:
            # The hot path: a publish on a topic that has been authorised is not checked through the table again.
            if type(record) is list and len(record) == 4 and record[0] == wire.PUBLISH:
                channel.ack_now = True
                if type(record[1]) is str and record[1] in session.publishes:
                    self._publish(session, record, now)
                    continue
            self._dispatch(session, record, now)
            if session.life is Life.DOWN:
                return  # what comes in one frame with BYE, behind it

    def _check_sizes(self, records: list[Record]) -> None:
        """A frame as large as this holds one body (wire.SMALL); what we pass on has to fit in at its receiver."""
        for record in records:
            last = record[-1] if type(record) is list and record else None
            bodies = last if type(last) is list else [last]
            if any(type(body) is bytes and len(body) > self.limits.max_message for body in bodies):
                raise ProtocolError(f"a body has more than max_message ({self.limits.max_message}) bytes")

    def _measure(self, now: float) -> None:
        """May publishers go on? If they were held back and may, what they sent meanwhile is taken in."""
        self.blocked = self._draining or not self.router.measure(now)
        while self._parked and not self.blocked:
            session = next(iter(self._parked))
            del self._parked[session]
            if self._is_over_rate(session, session.parked[0][1], now):
                self._hold(session)
                continue
            number, records, size = session.parked.popleft()
            session.parked_size -= size
            if session.parked:
                self._parked[session] = None  # at the end: publishers take turns
            try:
                self._take_in(session, number, records, size, now)
            except ProtocolError as error:
                where = Connection(session.listener, session.route or b"", session.user, session.address)
                self._bad(where, session, error, now)
            if self.router.budget <= 0:
                self.blocked = not self.router.measure(now)
        while self._above and not self.blocked:
            name, kind, bodies, origin = self._above.popleft()
            self._above_size -= sum(map(len, bodies))
            self.router.publish(name, kind, bodies, origin)
            if self.router.budget <= 0:
                self.blocked = not self.router.measure(now)
        if not self._above:
            self._above_lost.clear()

    def _acked(self, session: Session, now: float) -> None:
        if not session.channel.all_sent or session.repairs:
            self._dirty[session] = None
        if self.blocked:
            self._measure(now)

    def _dispatch(self, session: Session, record: Record, now: float) -> None:
        """The one place where a verb becomes an action."""
        if session.life is Life.DOWN:
            return  # what comes in one frame with BYE, behind it
        verb = wire.check(record, "up")
        handler = HANDLERS.get(verb)
        if handler is None:
            raise ProtocolError("HELLO belongs at the start of a connection")
        if verb in wire.NEEDS:
            try:
                self._authorise(session, verb, record, now)
            except QuloError as error:
                REFUSALS[verb](self, session, record, error)
                return
        handler(self, session, record, now)

    def _authorise(self, session: Session, verb: int, record: Record, now: float) -> None:
        """Raises Denied, or BadTopic; an allowed publish is remembered."""
        permission, index, is_pattern = wire.NEEDS[verb]
        topic = record[index]
        (topics.check_pattern if is_pattern else topics.check_topic)(topic)
        decision = session.rights.decide(permission, topic)
        if not decision.allowed:
            self.authority.audit(session, permission, topic, False, str(decision.rule or "no rule allows it"), now)
            name = session.rights.speaker(topic).name
            why = f"`qulo auth explain {name} {permission} '{topic}'` on the hub's host says why"
            if decision.rule is not None and decision.rule.reason:
                why = decision.rule.reason
            raise Denied(f"{name} may not {permission} on {topic}: {why}")
        if verb == wire.PUBLISH:
            if len(session.publishes) >= REMEMBERED:
                session.publishes.clear()
            session.publishes.add(topic)

    # -- what a refusal looks like, by verb

    def _forbid(self, session: Session, record: Record, error: QuloError) -> None:
        """A publish: its sender waits for no answer, but is told."""
        if isinstance(error, BadTopic):
            raise ProtocolError(str(error))
        channel = session.channel
        if channel.bytes <= 2 * channel.limit:  # it publishes and does not read: then it is not told each time
            text = str(error)
            channel.add([wire.FORBIDDEN, record[1], error.code, text], 4 * len(text) + wire.RECORD_OVERHEAD)

    def _refuse_sid(self, session: Session, record: Record, error: QuloError) -> None:
        self._deny(session, record[1], error)

    def _refuse_request(self, session: Session, record: Record, error: QuloError) -> None:
        session.calls += 1
        session.answer(record[1], error.code, wire.RAW, str(error).encode())

    def _refuse_lost(self, session: Session, record: Record, error: QuloError) -> None:
        """What it may not publish on cannot be lost; but an agent that lost much says so with one wide pattern."""
        if isinstance(error, BadTopic):
            raise ProtocolError(str(error))
        for topic in session.forwarded:
            if topics.overlap(topic, record[1]):
                self.pass_gap(topic, 0, None, None, record[2][:32], but=session.instance)

    # -- verbs

    def _bye(self, session: Session, record: Record, now: float) -> None:
        self.end(session, "bye", now)

    def _beat(self, session: Session, record: Record, now: float) -> None:
        _, time, session.rtt, reached, confirmed = record
        session.reached = max(session.reached, reached)
        self.router.pulse_confirmed(session, confirmed)
        self._dirty[session] = None
        direct, own = self.router.pulse(session, time)
        for frame in session.channel.take():  # before the ack in the next line: what was refused is known with it
            self._out.append((session.listener, session.route or b"", frame))
        self._send_now(session, direct)
        if session.tied:
            self.router.own(session, own)
        if self.blocked:
            self._measure(now)

    def _echo(self, session: Session, record: Record, now: float) -> None:
        session.reached = max(session.reached, record[1])
        if self.blocked:
            self._measure(now)

    def _publish(self, session: Session, record: Record, now: float) -> None:
        _, name, kind, bodies = record
        wire.check_bodies(kind, bodies)
        self.counters.runs += 1
        self.counters.messages += len(bodies)
        if self.limits.max_rate:
            self._count_rate(session, len(bodies), now)
        if session.kind == "agent" and name not in session.forwarded:
            session.forwarded[name if len(session.forwarded) < AGENT_TOPICS else ">"] = None
        self.router.publish(name, kind, bodies, session.instance)
        if self.upstream is not None and not topics.is_local(name):
            refused = self.upstream.publish(name, kind, bodies)
            if refused is not None:
                self._forbid(session, record, refused)

    def _subscribe(self, session: Session, record: Record, now: float) -> None:
        _, sid, pattern, group = record
        try:
            if group is not None:
                if not NAME.match(group):
                    raise Denied(f"the group {group[:64]!r} is not allowed: 1 to 64 of a-z 0-9 . _ -")
                self._end_other(session, sid, session.members)
                self._join(session, sid, pattern, group)
                return
            self._end_other(session, sid, session.subscriptions)
            old = session.subscriptions.get(sid)
            subscription = self.router.subscribe(session, sid, pattern)
        except QuloError as error:
            self._deny(session, sid, error)
            return
        self._want(subscription)
        if old is not None:
            self._unwant(old)

    def _end_other(self, session: Session, sid: int, table: Mapping[int, object]) -> None:
        """A sid is one thing at a time: what it was elsewhere than in `table` ends."""
        if any(
            sid in other and other is not table
            for other in (session.subscriptions, session.members, session.responders)
        ):
            self._unsubscribe(session, [wire.UNSUBSCRIBE, sid], 0.0)

    def _want(self, subscription: Subscription) -> None:
        """Serve it, after the master has confirmed it where there is one."""
        pattern = subscription.pattern
        if self.upstream is None or topics.is_local(pattern) or self.upstream.want(pattern):
            self.router.serve(subscription)
        else:
            self._waiting_above.setdefault(pattern, []).append(subscription)

    def _unwant(self, subscription: Subscription) -> None:
        if self.upstream is not None and not topics.is_local(subscription.pattern):
            self.upstream.unwant(subscription.pattern)

    def _join(self, session: Session, sid: int, pattern: str, group: str) -> None:
        self.router.join(session, sid, pattern, group)
        if self.upstream is not None and not topics.is_local(pattern):
            self.upstream.join(session, sid, pattern, group)
        else:
            self.confirm(session, sid)

    def confirm(self, session: Session, sid: int) -> None:
        """Tell a session that its group membership or responder is known where it is decided."""
        session.channel.add([wire.READY, sid, self.router.seq, 0], wire.RECORD_OVERHEAD)

    def _deny(self, session: Session, sid: int, error: QuloError) -> None:
        text = str(error)
        session.channel.add([wire.DENIED, sid, error.code, text], 4 * len(text) + wire.RECORD_OVERHEAD)

    def _unsubscribe(self, session: Session, record: Record, now: float) -> None:
        sid = record[1]
        subscription = self.router.unsubscribe(session, sid)
        if subscription is not None:
            self._unwant(subscription)
        elif (self.router.leave(session, sid) or self.calls.retire(session, sid)) and self.upstream:
            self.upstream.leave(session, sid)

    def _repair(self, session: Session, record: Record, now: float) -> None:
        _, sid, verified, newer = record
        subscription = session.subscriptions.get(sid)
        if subscription is None or not subscription.path:
            return
        if any(type(k) is not str or type(v) is not int for k, v in newer.items()):
            raise ProtocolError("newer numbers are a map of topic to number")
        if any(r.subscription is subscription for r in session.repairs):
            return
        self.router.repair(subscription, verified, newer)
        self._dirty[session] = None

    def _respond(self, session: Session, record: Record, now: float) -> None:
        _, sid, pattern = record
        try:
            if pattern == PING and session.kind != "agent":
                raise Denied(f"{pattern}: hosts answer it, which have an agent")
            self._end_other(session, sid, session.responders)
            self.calls.respond(session, sid, pattern)
        except QuloError as error:
            self._deny(session, sid, error)
            return
        if self.upstream is not None and not topics.is_local(pattern):
            self.upstream.respond(session, sid, pattern)
        else:
            self.confirm(session, sid)

    def _request(self, session: Session, record: Record, now: float) -> None:
        rid, topic = record[1], record[2]
        request = Request._make(record[2:])
        wire.check_kind(request.kind)
        session.calls += 1
        try:
            if session.calls > self.limits.max_pending and session.calls > self.limits.max_pending * session.weight:
                raise Overloaded(f"{session.calls} requests are under way; the limit is max_pending")
        except QuloError as error:
            session.answer(rid, error.code, wire.RAW, str(error).encode())
            return
        if topic in self.system and self._decides(topic):
            self._answer_system(session, rid, request)
        elif topic == PING and self.upstream is None:
            self._ping(session, rid, request, now)
        elif self._decides(topic):
            self.calls.request(session, rid, request, now)
        elif self.upstream is not None and self.upstream.connected:
            self.upstream.request(session, rid, request)
        else:
            session.answer(rid, Disconnected.code, wire.RAW, b"this agent has no connection to its master")

    def _ping(self, session: Session, rid: int, request: Request, now: float) -> None:
        """Every host answers: the agents, and this hub when it is one itself."""
        if self.is_host:
            responders = self.calls.find(PING)
            session.calls += len(responders)
            session.channel.add([wire.ASKED, rid, 1 + len(responders)], wire.RECORD_OVERHEAD)
            session.answer(rid, "", wire.PACKED, self.pong())
            for responder in responders:
                self.calls.ask(session, rid, responder, request, now)
        else:
            self.calls.request(session, rid, request._replace(many=True), now)

    def pong(self) -> bytes:
        """What a host answers to a ping."""
        answer = {"name": self.name, "version": self.version}
        if self.executor:
            answer["executor"] = self.executor
        data: bytes = wire.pack(answer)
        return data

    def _answer_system(self, session: Session, rid: int, request: Request) -> None:
        try:
            argument = wire.unpack_value(request.body) if request.kind == wire.PACKED else {}
            told = self.system[request.topic](session, argument if isinstance(argument, dict) else {})
            answer = told if type(told) is bytes else wire.pack(told)
        except QuloError as error:
            session.answer(rid, error.code, wire.RAW, str(error).encode())
            return
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            session.answer(rid, ProtocolError.code, wire.RAW, f"bad argument: {error}".encode())
            return
        session.answer(rid, "", wire.PACKED, answer)

    def _reply(self, session: Session, record: Record, now: float) -> None:
        _, rid, code, kind, body = record
        wire.check_kind(kind)
        if len(code) > MAX_CODE:
            raise ProtocolError("an answer's code is a word")
        self.calls.reply(session, rid, code, kind, body)

    def _lost(self, session: Session, record: Record, now: float) -> None:
        """An agent could not forward everything: whoever would have got it is told, here and above."""
        _, pattern, reason = record
        if session.kind != "agent":
            raise ProtocolError("only an agent forwards for others, and can lose on the way")
        self.pass_gap(pattern, 0, None, None, reason[:32], but=session.instance)
        if self.upstream is not None:
            self.upstream.lost(pattern, reason)

    # -- what the relay calls

    def publish_from_above(self, name: str, kind: int, bodies: list[bytes], origin: bytes, now: float) -> None:
        """A run that the master published; waits, bounded, while local subscribers lag."""
        if self.router.budget <= 0 and not self.blocked:
            self._measure(now)
        if not self.blocked and not self._above:
            self.router.publish(name, kind, bodies, origin)
            return
        size = sum(map(len, bodies))
        if self._above_size + size > ABOVE_LIMIT:
            self.counters.dropped += len(bodies)
            if name not in self._above_lost:  # one Gap until it has drained, not one a run
                self._above_lost.add(name)
                self.pass_gap(name, 0, None, None, "overflow")
            return
        self._above.append((name, kind, bodies, origin))
        self._above_size += size

    def pass_gap(
        self, pattern: str, epoch: int, first: int | None, last: int | None, reason: str, but: bytes = b""
    ) -> None:
        """Tell local subscribers of a gap that happened elsewhere."""
        self.router.pass_gap(pattern, epoch, first, last, reason, but)

    def upstream_ready(self, pattern: str) -> None:
        """The master has confirmed the pattern, or is away: local subscriptions waiting for it begin."""
        for subscription in self._waiting_above.pop(pattern, ()):
            if subscription.session.subscriptions.get(subscription.sid) is subscription:
                self.router.serve(subscription)

    def upstream_refused(self, pattern: str, error: QuloError) -> None:
        """The master does not let us have the pattern: nobody below gets it."""
        self._waiting_above.pop(pattern, None)
        for session in self.sessions.values():
            for sid, subscription in list(session.subscriptions.items()):
                if subscription.pattern == pattern:
                    self.router.unsubscribe(session, sid)
                    self._deny(session, sid, error)

    def refuse(self, session: Session, sid: int, error: QuloError) -> None:
        """The master refused a group membership or a responder."""
        self.router.leave(session, sid)
        self.calls.retire(session, sid)
        self._deny(session, sid, error)

    def adopt_permissions(self, permissions: Permissions, now: float) -> None:
        """Hold every session and subscription against the new rules; what they do not allow ends now.

        A SUB can outlive its session, and PUB cannot drop a single peer: bind it anew where rules have changed.
        """
        self.authority.permissions = permissions
        for session in list(self.sessions.values()):
            session.rights = self.authority.rights(session.user, session.kind)
            session.publishes.clear()
            if session.kind == "agent" and not session.rights.decide("respond", PING).allowed:
                self._dismiss(session, "it may not be an agent any more", now)
            else:
                self._withdraw(session, now)

    def _withdraw(self, session: Session, now: float) -> None:
        """End what the session may not have any more."""
        held: list[tuple[str, int, str]] = [("subscribe", sid, s.pattern) for sid, s in session.subscriptions.items()]
        held += [("subscribe", sid, group.pattern) for sid, group in session.members.items()]
        held += [("respond", sid, responder.pattern) for sid, responder in session.responders.items()]
        for permission, sid, pattern in held:
            decision = session.rights.decide(permission, pattern)
            if decision.allowed:
                continue
            self.authority.audit(session, permission, pattern, False, str(decision.rule or "no rule allows it"), now)
            self._unsubscribe(session, [wire.UNSUBSCRIBE, sid], now)
            self._deny(session, sid, Denied(f"the hub's permissions have changed: no {permission} on {pattern}"))

    def adopt(self, limits: Limits) -> None:
        """Take over those of the new limits that need no new socket or session."""
        kept = replace(
            self.limits,
            max_subscriptions=limits.max_subscriptions,
            max_pending=limits.max_pending,
            max_rate=limits.max_rate,
            session_timeout=limits.session_timeout,
            slow_after=limits.slow_after,
        )
        rate, self.limits = self.limits.max_rate, kept
        self.router.limits = self.calls.limits = kept
        if rate != kept.max_rate:
            self._debts.clear()
            for session in self.sessions.values():
                session.over_rate = False
                if not kept.max_rate:
                    session.bucket = None  # who is held back goes on with the next `release`
                elif session.bucket is not None:
                    session.bucket.rate = kept.max_rate * session.weight

    # -- small things

    def _decides(self, topic: str) -> bool:
        """Are requests and groups on this topic decided by this hub?"""
        return self.upstream is None or topics.is_local(topic) or topic.startswith("$qulo.local.")

    @staticmethod
    def _settle(asker: Asker) -> None:
        if isinstance(asker, Session):
            asker.calls -= 1

    def _sample(self, now: float) -> None:
        """Message rates by topic, from two samples."""
        then, before = self._sampled
        if now - then < SAMPLE:
            return
        counts = {t.name: t.messages for t in self.router.window.topics.values()}
        self.rates = {name: (count - before.get(name, 0)) / (now - then) for name, count in counts.items() if then}
        self._sampled = (now, counts)


def _publishes(records: list[Record]) -> bool:
    """Is any of them, if they are records at all, a PUBLISH?"""
    return any(_begins([record], wire.PUBLISH) for record in records)


def _begins(records: list[Record], verb: int) -> bool:
    """Is the first record, if it is one at all, of this verb?"""
    return bool(records) and type(records[0]) is list and records[0][:1] == [verb]


# The table of verbs that a session may use; HELLO begins one and is not among them.
HANDLERS: dict[int, Callable[[Hub, Session, Record, float], None]] = {
    wire.BYE: Hub._bye,
    wire.BEAT: Hub._beat,
    wire.ECHO: Hub._echo,
    wire.PUBLISH: Hub._publish,
    wire.SUBSCRIBE: Hub._subscribe,
    wire.UNSUBSCRIBE: Hub._unsubscribe,
    wire.REPAIR: Hub._repair,
    wire.RESPOND: Hub._respond,
    wire.REQUEST: Hub._request,
    wire.REPLY: Hub._reply,
    wire.LOST: Hub._lost,
}

# What each verb that needs a permission is answered with when it is refused.
REFUSALS: dict[int, Callable[[Hub, Session, Record, QuloError], None]] = {
    wire.PUBLISH: Hub._forbid,
    wire.SUBSCRIBE: Hub._refuse_sid,
    wire.RESPOND: Hub._refuse_sid,
    wire.REQUEST: Hub._refuse_request,
    wire.LOST: Hub._refuse_lost,
}
