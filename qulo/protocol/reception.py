"""The reception of a hub: who is there. Sessions from HELLO to their end, and the connections that serve them.

A session belongs to one instance of a link and is proven by its token; it outlives connections, and one connection
serves one session. What a session may say, and what becomes of what it holds, is the hub's: `Hub` extends this
class and fills in the three hooks.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from qulo.errors import BadVersion, Denied, Overloaded, ProtocolError, QuloError
from qulo.protocol import topics, wire
from qulo.protocol.authority import Authority, principal_of
from qulo.protocol.bucket import Bucket
from qulo.protocol.channel import Channel
from qulo.protocol.offenders import BAD_FRAMES, BAD_WITHIN
from qulo.protocol.permissions import Rights
from qulo.protocol.ports import Counters, Limits, Note, Verdict
from qulo.protocol.session import Life, Listener, Session
from qulo.protocol.telling import Telling
from qulo.protocol.wire import Record

NAME = re.compile(r"[a-z0-9._-]{1,64}\Z")

# Ended sessions that are remembered for `qulolist`.
REMEMBERED = 1000

# Bad frames of one session that are answered; from then on one in so many seconds, so that garbage is not
# amplified and yet a link whose numbers are out of step always learns that it has to begin anew.
ANSWERED_BAD = 10
BAD_PAUSE = 5.0

INSTANCE_BYTES = 8

# Refused HELLOs, and connections that are ignored, which are told per minute: of one principal, and of all.
TOLD_EACH, TOLD_ALL = 10, 100

# Bytes of a value in a HELLO's info that are kept.
INFO_VALUE = 256

# The code of an answer to a frame from somebody who has no session here: say HELLO (again).
NO_SESSION = "no-session"


class Connection(NamedTuple):
    """Where a frame came from."""

    listener: Listener
    route: bytes
    user: str
    address: str


class Reception:
    """Sessions by principal and instance, by token, and by their SUB's connection. `epoch` names the hub's start."""

    def __init__(self, name: str, epoch: int, limits: Limits, make_token: Callable[[], bytes], version: str) -> None:
        self.epoch = epoch
        self.limits = limits
        self.version = version
        self.counters = Counters()
        self.authority = Authority(name)
        self.listeners: list[Listener] = []
        self.sessions: dict[tuple[str, bytes], Session] = {}  # by principal and instance
        self._counts: Counter[str] = Counter()  # of sessions, by principal
        self.down: deque[Session] = deque(maxlen=REMEMBERED)
        self._make_token = make_token
        self._by_token: dict[bytes, Session] = {}
        self._tied: dict[str, Session] = {}  # by the user of their SUB's connection
        self._dirty: dict[Session, None] = {}  # those with something to send
        self._out: list[tuple[Listener, bytes, bytes]] = []
        self.key: bytes | None = None  # the hub's public key, where peers come in with keys
        self.next_key: bytes | None = None  # what it will be
        self._told_key: set[str] = set()  # principals that know it
        self._debts: dict[str, Bucket] = {}  # by user: of its last session, see DEBTORS
        self._telling = Telling(TOLD_EACH, TOLD_ALL)
        self._notes: list[Note] = []

    # -- what the hub fills in

    def _let_go(self, session: Session) -> None:
        """Its connection is gone: serve it no more until it asks anew."""
        raise NotImplementedError

    def _ended(self, session: Session, why: str, now: float) -> None:
        """It is over: give up all that it has."""
        raise NotImplementedError

    def _own(self, session: Session, record: Record) -> None:
        """Send a record on its own PUB channel."""
        raise NotImplementedError

    # -- listeners and notes

    def add_listener(self, local: bool, publish: int) -> Listener:
        """One more ROUTER + PUB pair; pass what this returns with every frame."""
        listener = Listener(len(self.listeners), local, publish)
        self.listeners.append(listener)
        return listener

    def take_notes(self) -> list[Note]:
        """What to write to the log."""
        if not self._notes:
            return []
        notes = self._notes[:]
        self._notes.clear()  # the list itself is shared with the router
        return notes

    @property
    def name(self) -> str:
        """What the hub is called."""
        return self.authority.hub

    # -- keys

    def revoke(self, principal: str, connection: int, now: float) -> None:
        """The key of `principal` counts no more, on none of its connections up to the number `connection`.

        It may have a SUB that outlived its session, and PUB cannot drop a single peer: bind it anew.
        """
        self.authority.void(principal, connection)
        for session in [session for session in self.sessions.values() if session.principal == principal]:
            self._dismiss(session, "this key was revoked", now)

    def announce_key(self, key: bytes, later: bytes | None = None) -> None:
        """Tell everybody with a key of their own what the hub's will be; None: it stays as it is."""
        self.key, self.next_key = key, later
        self._told_key.clear()
        for session in self.sessions.values():
            session.key_frame = 0
            self._tell_key(session)

    def _tell_key(self, session: Session) -> None:
        told = self.next_key or self.key
        if told is not None and ":" not in session.principal and "/" not in session.principal:
            session.channel.add([wire.NEWKEY, told], wire.RECORD_OVERHEAD + len(told))
            session.key_frame = session.channel.number + 1

    def know_key(self) -> set[str]:
        """The principals that have acknowledged the hub's next key."""
        for session in self.sessions.values():
            self._note_key(session)
        return set(self._told_key)

    def _note_key(self, session: Session) -> None:
        if session.key_frame and session.channel.acked >= session.key_frame:
            self._told_key.add(session.principal)

    # -- sessions

    def _greet(self, where: Connection, records: list[Record], now: float) -> None:
        is_hello = bool(records) and wire.check(records[0], "up") == wire.HELLO
        if where.listener.offenders.bad(where.route, where.user, now):  # who has a session does not come here
            self._ignore(where, where.listener.routes.get(where.route), now)
            return
        if not is_hello:
            self.counters.bad_frames += not records or records[0][0] != wire.BEAT
            self._refuse(where.listener, where.route, NO_SESSION, "say HELLO first")
            return
        hello = records[0]
        _, version, instance, name, kind, _, _, received, info = hello
        try:
            self._check_hello(version, instance, name, kind)
            rights = self.authority.admit(where.user, kind, where.address, now)
            session = self._find(where, hello, now)
            resumed = session is not None
            if session is None:
                session = self._new_session(where, hello, rights, now)
        except QuloError as error:
            untold = self._telling.tell(principal_of(where.user), now)
            if untold is not None:
                self._note("warning", f"refused {name[:64]!r} from {where.address}: {error}{_and_more(untold)}")
            self._refuse(where.listener, where.route, error.code, str(error))
            return
        session.rights = rights
        self._attach(session, where, info, now)
        if resumed:
            session.channel.rewind(received)
        self._welcome(session, resumed)
        if not session.key_frame:
            self._tell_key(session)

    def _find(self, where: Connection, hello: Record, now: float) -> Session | None:
        """The session that this HELLO goes on with; None: it begins one. Raises Denied where it may not."""
        instance, token, epoch = hello[2], hello[5], hello[6]
        principal = principal_of(where.user)
        session = self.sessions.get((principal, instance))
        if session is None:
            before = self._by_token.get(token) if token is not None else None
            if before is not None and before.instance == instance and epoch == self.epoch:
                self.end(before, "bye", now)  # the same link by another way in: from now on as somebody else
            return None
        if _stillborn(session, where.user, token):
            self.end(session, "bye", now)
            return None
        if epoch != self.epoch or token != session.token:
            raise Denied("this instance has a session already, and this HELLO does not prove that it is its own")
        return session

    def _check_hello(self, version: int, instance: bytes, name: str, kind: str) -> None:
        if version != wire.VERSION:
            raise BadVersion(f"this hub speaks version {wire.VERSION} of the protocol, not {version}")
        if len(instance) != INSTANCE_BYTES or kind not in ("client", "agent"):
            raise ProtocolError("not a HELLO: an instance is 8 bytes, a kind client or agent")
        if not NAME.match(name):
            raise Denied(f"the name {name[:64]!r} is not allowed: 1 to 64 of a-z 0-9 . _ -")

    def _new_session(self, where: Connection, hello: Record, rights: Rights, now: float) -> Session:
        instance, name, kind = hello[2:5]
        principal = principal_of(where.user)
        if self._counts[principal] >= self.limits.max_sessions:
            raise Overloaded(
                f"{rights.actor.name} has {self._counts[principal]} sessions here, and the limit is max_sessions: "
                "end some of them (qulolist), or raise it"
            )
        if kind == "agent" and "/" not in rights.actor.name:
            name = rights.actor.name  # the key says who it is, and nothing else does
        token = self._make_token()
        session = Session(
            instance=instance,
            token=token,
            principal=principal,
            name=name,
            kind=kind,
            listener=where.listener,
            route=None,
            channel=Channel(self.limits.link_buffer),
            rights=rights,
            heard=now,
            since=now,
            claimed=hello[5],
        )
        session.channel.mark = partial(self._dirty_later, session)
        self.sessions[session.key] = session
        self._counts[principal] += 1
        self._by_token[token] = session
        return session

    def _dirty_later(self, session: Session) -> None:
        self._dirty[session] = None

    def _attach(self, session: Session, where: Connection, info: dict[str, Any], now: float) -> None:
        """The session continues on this route."""
        other = where.listener.routes.get(where.route)
        if other is not None and other is not session and other.user == where.user:
            self.end(other, "bye", now)  # one connection, one session: a peer cannot heap them up
        elif other is not None:
            self._detach(other)
        self._detach(session)
        session.listener, session.route, session.user, session.address = where
        session.bucket = session.bucket or self._debts.pop(session.user, None)
        session.info = {str(k)[:32]: _word(v) for k, v in list(info.items())[:16]}
        where.listener.routes[where.route] = session
        self._heard(session, now)
        self._note("info", f"{session.kind} {session.name} ({where.address}) is connected")

    def _detach(self, session: Session) -> None:
        """The session has no connection any more; what dies with one is taken back."""
        if session.route is not None:
            session.listener.routes.pop(session.route, None)
            session.route = None
        self._tied.pop(session.tied or "", None)
        self._let_go(session)
        if session.life is not Life.DOWN:
            session.channel.withdraw(partial(_of_connection, session))

    def _welcome(self, session: Session, resumed: bool) -> None:
        limits = {
            "max_message": self.limits.max_message,
            "link_buffer": self.limits.link_buffer,
            "high_water": self.limits.high_water,
            "heartbeat": int(self.limits.heartbeat * 1000),
            "session_timeout": int(self.limits.session_timeout * 1000),
        }
        info = {"name": self.name, "version": self.version, "principal": session.rights.actor.name}
        publish = session.listener.publish
        self._send_now(
            session,
            [
                *(wire.WELCOME, wire.VERSION, self.epoch, session.token, resumed),
                *(session.channel.received, publish, limits, info),
            ],
        )
        self._dirty[session] = None

    def _send_now(self, session: Session, record: Record) -> None:
        if session.route is not None:
            self._out.append((session.listener, session.route, session.channel.unnumbered([record])))

    def _refuse(self, listener: Listener, route: bytes, code: str, text: str) -> None:
        self._out.append((listener, route, wire.encode(0, 0, [[wire.REFUSED, code, text]])))

    def _dismiss(self, session: Session, why: str, now: float) -> None:
        """It may not go on: it is told, and ended."""
        if session.route is not None:
            self._refuse(session.listener, session.route, Denied.code, why)
        self.end(session, "bye", now)

    def _heard(self, session: Session, now: float) -> None:
        session.heard = now
        if session.life is not Life.UP and session.step("heard"):
            self._note("info", f"{session.name} is back")

    def end(self, session: Session, why: str, now: float) -> None:
        """The session is over: nothing of it remains but a line for `qulolist`. `why`: bye or expired."""
        if session.life is Life.UP and why == "expired":
            session.step("silent")
        session.step(why)
        self._note_key(session)
        lost = session.channel.unacknowledged
        self._detach(session)
        self._ended(session, why, now)
        del self.sessions[session.key]
        self._counts[session.principal] -= 1
        if not self._counts[session.principal]:
            del self._counts[session.principal]
        del self._by_token[session.token]
        self._dirty.pop(session, None)
        if why != "bye" or session.kind == "agent":
            self.down.append(session)  # a program that said goodbye is nothing to look for
        level = "info" if why == "bye" else "warning"
        tail = f"; {lost} frames for it were not acknowledged" if lost else ""
        self._note(level, f"{session.kind} {session.name} ({session.address}) is down: {why}{tail}")

    def _tie(self, listener: Listener, user: str, prefix: bytes) -> bool:
        """A SUB proves by the token which session it belongs to."""
        try:
            token = bytes.fromhex(prefix[len(topics.SESSIONS) : -1].decode())
        except ValueError:
            token = b""
        session = self._by_token.get(token)
        if (
            session is None
            or self.authority.is_void(user)
            or session.principal != principal_of(user)
            or session.listener is not listener
            or prefix != wire.session_key(token)
        ):
            return False
        self._tied.pop(session.tied or "", None)
        session.tied = user
        self._tied[user] = session
        self._own(session, [wire.TIED])
        return True

    def _bad(self, where: Connection, session: Session | None, error: Exception, now: float) -> None:
        """Garbage is counted, answered while it is rare, and dropped; a flood of it is not even looked at."""
        self.counters.bad_frames += 1
        if session is not None:
            self._answer_bad(where.listener, where.route, session, error, now)
        if where.listener.offenders.bad(where.route, where.user, now):
            self._ignore(where, session, now)

    def _bad_subscription(self, listener: Listener, user: str, now: float) -> None:
        """A SUB that is no session's, or asks for what was not granted: rare for ours, whose GRANTED comes first."""
        self.counters.bad_frames += 1
        session = self._tied.get(user)
        if not listener.strangers.bad(user.encode(), user, now, 1 if session is None else session.weight):
            return
        name, address = self.authority.rights(user, "client").actor.name, "" if session is None else session.address
        untold = self._telling.tell(f"ignored {principal_of(user)}", now)
        if untold is not None:
            why = f"more than {BAD_FRAMES} subscriptions that nobody granted within {BAD_WITHIN:g} s"
            self._note("error", f"a SUB of {name} is ignored: {why}{_and_more(untold)}")
            self.authority.write(Verdict(name, address, "subscribe", "", False, "bad subscriptions", untold))

    def _ignore(self, where: Connection, session: Session | None, now: float) -> None:
        """Its frames are dropped from now on, as if the connection were gone: whoever means well connects anew."""
        principal = principal_of(where.user)
        actor = self.authority.rights(where.user, "client").actor.name
        name = actor if session is None else f"{session.name} ({actor})"
        untold = self._telling.tell(f"ignored {principal}", now)
        if untold is not None:
            why = f"more than {BAD_FRAMES} bad frames within {BAD_WITHIN:g} s"
            self._note("error", f"{name} from {where.address} is ignored: {why}{_and_more(untold)}")
            address = where.address if session is None else session.address
            self.authority.write(Verdict(actor, address, "send", "", False, "bad frames", untold))
        if session is not None and session.life is not Life.DOWN:
            self._detach(session)
            if session.step("silent"):
                self._note("warning", f"{session.name} is suspect: it is ignored")

    def _answer_bad(self, listener: Listener, route: bytes, session: Session, error: Exception, now: float) -> None:
        session.bad += 1
        if session.bad > ANSWERED_BAD and now - session.bad_answered < BAD_PAUSE:
            return
        session.bad_answered = now
        self._note("warning", f"bad frame from {session.name} ({session.address}): {error}")
        self._refuse(listener, route, ProtocolError.code, str(error)[:200])

    def _note(self, level: str, text: str) -> None:
        self._notes.append(Note(level, text))


def _and_more(untold: int) -> str:
    return f" ({untold} more were not told)" if untold else ""


def _word(value: Any) -> str:
    """A value of a HELLO's info, which is whatever a peer sent: only words and numbers are ever shown."""
    return str(value)[:INFO_VALUE] if isinstance(value, str | int | float) else ""


def _stillborn(session: Session, user: str, token: bytes | None) -> bool:
    """Did its WELCOME get lost, so that its Link says HELLO with the same old token once more?"""
    unused = session.tied is None and not session.channel.received and not session.channel.acked
    return unused and token is not None and token == session.claimed and principal_of(user) == session.principal


def _of_connection(session: Session, record: Record) -> bool:
    """Does this record die with its connection? The Link subscribes anew, and what was on its way is repaired."""
    verb = record[0]
    return verb in (wire.GRANTED, wire.RUN, wire.REPAIRED) or (
        verb == wire.READY and record[1] in session.subscriptions
    )
