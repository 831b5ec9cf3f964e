"""The hub: the one dispatcher, what each verb does, and the turn of the loop. Pure; `net.hub` drives it.

Drive it like this. For every frame from a ROUTER call `frame_received`, for every subscription message from an
XPUB `subscription_received` (its answer says whether to install the prefix), from a timer `tick`. After each turn
of the loop call `flush`, then send what `take_pub` and `take_out` give, in that order and within it. What an
operator may want to read is in `take_notes`.

A hub with an `upstream` is an agent's: `local.>` is decided here, everything else by the master.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from qulo.errors import BadTopic, Denied, Disconnected, NoStream, Overloaded, ProtocolError, QuloError
from qulo.protocol import topics, wire
from qulo.protocol.calls import Asker, Calls
from qulo.protocol.intake import Intake, Seam
from qulo.protocol.losses import Losses
from qulo.protocol.permissions import PING, REMEMBERED, Permissions
from qulo.protocol.ports import Answering, Limits, Put, Request, SystemHandler, Upstream
from qulo.protocol.reception import NAME, Connection, Reception
from qulo.protocol.router import Router
from qulo.protocol.session import Life, Listener, Session, Subscription
from qulo.protocol.streams import Streams, Wish, refuse
from qulo.protocol.wire import Record

# A peer is suspect after this many heartbeats without a sign of life: one lost to a busy loop is no alarm.
SILENT_BEATS = 2.5

# Topics of an agent that are remembered for the Gap when it dies; with more, one Gap speaks for all.
AGENT_TOPICS = 1000

# Seconds between two samples of the topics' message counts, for rates.
SAMPLE = 5.0

# Records in a frame without a number: a heartbeat or an echo, and what a link may say with it.
MOST_UNNUMBERED = 8

# Times its limit that a session's channel may hold, of answers and refusals that nothing else bounds, before the
# session ends. Groups stop at groups.HARD_BOUND.
UNREAD = 8

# What taking an argument of a request to the system apart can raise.
BAD_ARGUMENT = (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError)

# Characters of the name of a host below an agent, which has the names of those between before its own.
MOST_NAME = 256

# The longest that a request may wait, in ms: a day. It is remembered until then, and nobody waits longer.
LONGEST = 86_400_000

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
        self.answering: dict[str, Answering] = {}  # as `system`, but for answers that take their time
        self.seen: dict[str, int] = {}  # of an agent: by stream, the highest number that was acknowledged through it
        self.streams: Streams | None = None  # of a site's authority that has a store
        self.is_host = False  # does this hub have an agent's duties, as qulod does?
        self.executor = ""  # of an agent: "ok" or "lost"
        self.rates: dict[str, float] = {}
        self.router = Router(epoch, limits, self.counters, self._notes.append)
        self.router.decides = self._decides
        self.calls = Calls(limits, self.counters, epoch)
        seam = Seam(self._dispatch, self._publish, self._bad_parked, self._notes.append, self._dirty, self._debts)
        self.intake = Intake(self.router, limits, seam)
        self._losses = Losses()
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
                self.intake.acked(session, now)
            if number == 0:
                if len(records) > MOST_UNNUMBERED:
                    raise ProtocolError("more records than a frame without a number has")
                for record in records:
                    if wire.check(record, "up") not in wire.UNNUMBERED:
                        raise ProtocolError("this verb belongs in a numbered frame")
                    self._dispatch(session, record, now)
            else:
                self.intake.numbered(session, number, records, len(data), now)
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
        if not user:
            return False  # the unsubscription that libzmq makes when a peer goes
        strangers = listener.strangers
        if strangers.ignored and strangers.is_ignored(user.encode(), user, now):
            self.counters.ignored += 1
            return False
        kind, prefix = message[:1], message[1:]
        if kind == b"\x01" and prefix.startswith(topics.SESSIONS):
            granted = expected = self._tie(listener, user, prefix)
        else:
            session = self._tied.get(user)
            is_tied = session is not None and session.tied == user and session.listener is listener
            granted = is_tied and kind == b"\x01" and session is not None and self.router.installed(session, prefix)
            expected = granted or (is_tied and kind == b"\x00")
        if not expected:
            self._bad_subscription(listener, user, now)
        return granted

    def tick(self, now: float) -> None:
        """Time has passed: call it a few times per heartbeat."""
        stalled = now - self._ticked if self._ticked else 0.0
        self._ticked = now
        if stalled > self.limits.heartbeat:  # we were stalled, not they: what they sent is still to be read
            for session in self.sessions.values():
                session.heard = min(now, session.heard + stalled)
        for session in list(self.sessions.values()):
            self._look_after(session, now)
        self.calls.expire(now, self._forget_call)
        self._losses.tick()
        if self.intake.holding:
            self.intake.release(now)
        if self.intake.blocked or any(session.slow for session in self.router.sessions):
            self.intake.measure(now)
        for listener in self.listeners:
            listener.offenders.tidy(now)
            listener.strangers.tidy(now)
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
        again = self.intake.turn()
        self.router.close_bundle()
        if self._losses.due:
            count = sum(len(session.subscriptions) for session in self.router.sessions)
            for instance, lost in self._losses.take(count):
                self._pass_losses(lost, instance)
        dirty = list(self._dirty)
        self._dirty.clear()  # the dict itself is shared with the intake
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
        self.intake.drain()
        if self.streams is not None and not self.streams.journal.idle:
            return False
        if self.upstream is not None and not self.upstream.idle:
            return False
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
        self.intake.let_go(session)

    def _ended(self, session: Session, why: str, now: float) -> None:
        self.intake.ended(session)
        if self.upstream:
            for sid in [*session.members, *session.responders]:
                self.upstream.leave(session, sid)
        for subscription in self.router.forget(session):
            self._unwant(subscription)
        self.calls.forget(session)
        for sid in list(session.consumers):
            self._stop_consuming(session, sid, now)
        if why == "expired":
            # It may have acknowledged what it never forwarded.
            self.router.pass_gaps(dict.fromkeys(session.forwarded, "restart"))

    def _own(self, session: Session, record: Record) -> None:
        self.router.own(session, record)

    # -- frames of a session

    def _bad_parked(self, session: Session, error: ProtocolError, now: float) -> None:
        where = Connection(session.listener, session.route or b"", session.user, session.address)
        self._bad(where, session, error, now)

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
        permission, index, field = wire.NEEDS[verb]
        if field == "stream":  # whoever decides about it knows what is in it
            for pattern in self.streams.topics_of(record[index]) if self.streams is not None else ():
                self._permit(session, permission, pattern, now)
            return
        topic = record[index]
        (topics.check_pattern if field == "pattern" else topics.check_topic)(topic)
        self._permit(session, permission, topic, now)
        if verb == wire.PUBLISH:
            if len(session.publishes) >= REMEMBERED:
                session.publishes.clear()
            session.publishes.add(topic)

    def _permit(self, session: Session, permission: str, topic: str, now: float) -> None:
        """Raises Denied."""
        decision = session.rights.decide(permission, topic)
        if not decision.allowed:
            self.authority.audit(session, permission, topic, False, str(decision.rule or "no rule allows it"), now)
            name = session.rights.speaker(topic).name
            why = f"`qulo auth explain {name} {permission} '{topic}'` on the hub's host says why"
            if decision.rule is not None and decision.rule.reason:
                why = decision.rule.reason
            raise Denied(f"{name} may not {permission} on {topic}: {why}")

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

    def _refuse_put(self, session: Session, record: Record, error: QuloError) -> None:
        if isinstance(error, BadTopic):
            raise ProtocolError(str(error))
        refuse(session, Put._make(record[1:]), error)

    def _refuse_request(self, session: Session, record: Record, error: QuloError) -> None:
        session.calls += 1
        session.answer(record[1], error.code, wire.RAW, str(error).encode())

    def _refuse_lost(self, session: Session, record: Record, error: QuloError) -> None:
        """What it may not publish on cannot be lost; but an agent that lost much says so with one wide pattern."""
        if isinstance(error, BadTopic):
            raise ProtocolError(str(error))
        if session.kind == "agent":
            self._losses.add_denied(session, record[1], record[2])

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
        self.intake.look(now)

    def _echo(self, session: Session, record: Record, now: float) -> None:
        session.reached = max(session.reached, record[1])
        self.intake.look(now)

    def _publish(self, session: Session, record: Record, now: float) -> None:
        _, name, kind, bodies = record
        wire.check_bodies(kind, bodies)
        self.counters.runs += 1
        self.counters.messages += len(bodies)
        if self.limits.max_rate:
            self.intake.count(session, len(bodies), now)
        if session.kind == "agent" and name not in session.forwarded:
            session.forwarded[name if len(session.forwarded) < AGENT_TOPICS else ">"] = None
        self.router.publish(name, kind, bodies, session.instance)
        if self.streams is not None:
            self.streams.published(session, name, kind, bodies, now)
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
            for other in (session.subscriptions, session.members, session.responders, session.consumers)
        ):
            self._unsubscribe(session, [wire.UNSUBSCRIBE, sid], self._ticked)

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
        elif sid in session.consumers:
            self._stop_consuming(session, sid, now)
        elif (self.router.leave(session, sid) or self.calls.retire(session, sid)) and self.upstream:
            self.upstream.leave(session, sid)

    def _repair(self, session: Session, record: Record, now: float) -> None:
        _, sid, verified, newer = record
        subscription = session.subscriptions.get(sid)
        if subscription is None or not subscription.path:
            return
        if any(type(k) is not str or type(v) is not int for k, v in newer.items()):
            raise ProtocolError("newer numbers are a map of topic to number")
        if subscription in session.repairs:
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
            if pattern == PING and (session.own_ping is None or sid < session.own_ping):
                session.own_ping = sid  # an agent begins with it, before anybody below can have one
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
        request = request._replace(ttl=min(max(request.ttl, 0), LONGEST))
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
        elif topic in self.answering and self._decides(topic):
            self._answer_later(session, rid, request, now)
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
        answer: dict[str, Any] = {"name": self.name, "version": self.version}
        if self.seen:
            answer["seen"] = self.seen
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
        except BAD_ARGUMENT as error:
            session.answer(rid, ProtocolError.code, wire.RAW, f"bad argument: {error}".encode())
            return
        session.answer(rid, "", wire.PACKED, answer)

    def _answer_later(self, session: Session, rid: int, request: Request, now: float) -> None:
        def answer(value: Any) -> None:
            if isinstance(value, QuloError):
                session.answer(rid, value.code, wire.RAW, str(value).encode())
            else:
                session.answer(rid, "", wire.PACKED, wire.pack(value))

        try:
            argument = wire.unpack_value(request.body) if request.kind == wire.PACKED else {}
            self.answering[request.topic](session, argument if isinstance(argument, dict) else {}, answer, now)
        except QuloError as error:
            answer(error)
        except BAD_ARGUMENT as error:
            answer(ProtocolError(f"bad argument: {error}"))

    def _reply(self, session: Session, record: Record, now: float) -> None:
        _, rid, code, kind, body = record
        wire.check_kind(kind)
        if len(code) > MAX_CODE:
            raise ProtocolError("an answer's code is a word")
        asked = self.calls.asked(session, rid)
        if asked is not None and asked.pattern == PING and not code:  # an error has a text, and no name
            kind, body = wire.PACKED, _signed(session.name, asked.sid != session.own_ping, kind, body)
        self.calls.reply(session, rid, code, kind, body)

    def _put(self, session: Session, record: Record, now: float) -> None:
        put = Put._make(record[1:])
        if put.extra and "agent" in put.extra and session.kind != "agent":
            raise ProtocolError("only an agent numbers puts")
        self.counters.runs += 1
        if self.limits.max_rate:
            self.intake.count(session, len(put.bodies), now)
        if self.upstream is not None:
            self.upstream.put(session, put, now)
        elif self.streams is not None:
            self.streams.put(session, put, now)
        else:
            refuse(session, put, NoStream("this hub keeps no streams"))

    def _publish_put(self, session: Session, topic: str, kind: int, bodies: list[bytes]) -> None:
        """What was put and is stored reaches those who subscribe now, as if it were published."""
        self.counters.messages += len(bodies)
        self.router.publish(topic, kind, bodies, b"")

    def _consume(self, session: Session, record: Record, now: float) -> None:
        sid = record[1]
        try:
            self._end_other(session, sid, session.consumers)
            if self.upstream is not None:
                session.consumers[sid] = None
                self.upstream.consume(session, sid, record[2:])
            elif self.streams is not None:
                self.streams.consume(session, sid, Wish._make(record[2:]), now)
            else:
                raise NoStream("this hub keeps no streams")
        except QuloError as error:
            self._deny(session, sid, error)

    def _stop_consuming(self, session: Session, sid: int, now: float) -> None:
        if self.upstream is not None:
            del session.consumers[sid]
            self.upstream.leave(session, sid)
        elif self.streams is not None:
            self.streams.leave(session, sid, now)

    def _settle(self, session: Session, record: Record, now: float) -> None:
        if self.upstream is not None:
            self.upstream.settle(session, record)
        elif self.streams is not None:
            self.streams.settle(session, record, now)

    def go_on(self, now: float) -> None:
        """The store has room again, perhaps: publishers that were held back may go on."""
        if self.intake.blocked:
            self.intake.measure(now)

    def keep_streams(self) -> Streams:
        """From now on there is a store: drive what this returns."""
        self.streams = Streams(self.limits, self._notes.append, self._publish_put)
        self.intake.journal = self.streams.journal
        return self.streams

    def _lost(self, session: Session, record: Record, now: float) -> None:
        """An agent could not forward everything: whoever would have got it is told, here and above."""
        _, pattern, reason = record
        if session.kind != "agent":
            raise ProtocolError("only an agent forwards for others, and can lose on the way")
        self._losses.add(session, pattern, reason)

    def _pass_losses(self, lost: dict[str, str], instance: bytes) -> None:
        self.router.pass_gaps(lost, but=instance)
        if self.upstream is not None:
            for pattern, reason in lost.items():
                self.upstream.lost(pattern, reason)

    # -- what the relay calls

    def pass_gap(self, pattern: str, epoch: int, first: int | None, last: int | None, reason: str) -> None:
        """Tell local subscribers of a gap that happened elsewhere."""
        self.router.pass_gaps({pattern: reason}, (epoch, first, last))

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
        session.consumers.pop(sid, None)
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
        if self.streams is not None:
            held += [
                ("stream", sid, pattern)
                for sid, consumer in session.consumers.items()
                if consumer is not None
                for pattern in self.streams.topics_of(consumer.group.stream)
            ]
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
            max_sessions=limits.max_sessions,
            max_rate=limits.max_rate,
            session_timeout=limits.session_timeout,
            slow_after=limits.slow_after,
        )
        self.limits = self.router.limits = self.calls.limits = kept
        self.intake.adopt(kept, list(self.sessions.values()))

    # -- small things

    def _decides(self, topic: str) -> bool:
        """Are requests and groups on this topic decided by this hub?"""
        return self.upstream is None or topics.is_local(topic) or topic.startswith("$qulo.local.")

    @staticmethod
    def _forget_call(asker: Asker) -> None:
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


def _signed(name: str, below: bool, kind: int, body: bytes) -> bytes:
    """A host's pong, in the name that its key has, whatever it says itself: no host answers for another.

    What it passes on of a host below it is in both names: only it knows that one's key.
    """
    try:
        said = wire.unpack_value(body) if kind == wire.PACKED else {}
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    answer = said | {"name": f"{name}/{str(said.get('name', '?'))[:MOST_NAME]}" if below else name}
    data: bytes = wire.pack(answer)
    return data


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
    wire.PUT: Hub._put,
    wire.CONSUME: Hub._consume,
    wire.ACK: Hub._settle,
    wire.NAK: Hub._settle,
    wire.EXTEND: Hub._settle,
    wire.REJECT: Hub._settle,
}

# What each verb that needs a permission is answered with when it is refused.
REFUSALS: dict[int, Callable[[Hub, Session, Record, QuloError], None]] = {
    wire.PUBLISH: Hub._forbid,
    wire.SUBSCRIBE: Hub._refuse_sid,
    wire.RESPOND: Hub._refuse_sid,
    wire.REQUEST: Hub._refuse_request,
    wire.LOST: Hub._refuse_lost,
    wire.PUT: Hub._refuse_put,
    wire.CONSUME: Hub._refuse_sid,
}
