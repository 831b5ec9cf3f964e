"""Requests inside a hub: who can answer, who was asked, and that every request ends.

A request ends with one answer, or with an error: nobody answers this topic, the responder was lost, the hub is
cut off from its master. The asker keeps the deadline; a hub only forgets what is past it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from qulo.errors import NoResponders, Overloaded, ResponderLost
from qulo.protocol import topics
from qulo.protocol.interest import PatternIndex
from qulo.protocol.ports import Counters, Limits, Request
from qulo.protocol.session import Life, Session, crowd_of
from qulo.protocol.wire import ASKED, BODY_OVERHEAD, CALL, RAW, RECORD_OVERHEAD

# Forgotten this long after the deadline: an answer that comes then is late, not unknown.
GRACE = 1.0

# Topics whose responders are remembered between changes; beyond it the cache starts anew.
CACHE = 10_000


class Asker(Protocol):
    """Who gets the answer: a session of this hub, or the relay for a request from above."""

    def answer(self, rid: int, code: str, kind: int, body: bytes) -> None:
        """Exactly one per responder asked, or one error."""


@dataclass(slots=True, eq=False)
class Responder:
    """One `respond` of one session."""

    session: Session
    sid: int
    pattern: str


@dataclass(slots=True, eq=False)
class Call:
    """One request at one responder."""

    asker: Asker
    rid: int
    responder: Responder
    deadline: float


class Calls:
    """Requests under way and the responders they can go to."""

    def __init__(self, limits: Limits, counters: Counters, first: int) -> None:
        """`first` sets this hub's numbers apart: a late answer to a hub that is gone must not look like one to us."""
        self.limits = limits
        self.counters = counters
        self.pending: dict[int, Call] = {}
        self._index: PatternIndex[dict[Responder, None]] = PatternIndex()
        self._cache: dict[str, list[Responder]] = {}
        self._next = first
        self._turn = 0

    def respond(self, session: Session, sid: int, pattern: str) -> None:
        """A session answers requests on `pattern`. Raises a QuloError that says why not."""
        topics.check_pattern(pattern)
        held = len(session.subscriptions) + len(session.members) + len(session.responders)
        if held >= self.limits.max_subscriptions * session.weight and sid not in session.responders:
            raise Overloaded("this peer has too many responders; the limit is max_subscriptions")
        old = session.responders.get(sid)
        instead = None if old is None else crowd_of(old.pattern, shared=True)
        session.enter(crowd_of(pattern, shared=True), self.limits.max_subscriptions, instead)
        self.retire(session, sid)
        responder = Responder(session, sid, pattern)
        session.responders[sid] = responder
        self._index.setdefault(pattern, dict)[responder] = None
        self._cache.clear()

    def retire(self, session: Session, sid: int) -> bool:
        """A responder answers no new requests; those it has go on."""
        responder: Responder | None = session.responders.pop(sid, None)
        if responder is None:
            return False
        session.quit(crowd_of(responder.pattern, shared=True))
        responders = self._index.get(responder.pattern)
        if responders is not None:
            responders.pop(responder, None)
        if not responders:
            self._index.remove(responder.pattern)
        self._cache.clear()
        return True

    def forget(self, session: Session) -> None:
        """The session has ended: its requests need no answer, the ones it was asked get an error."""
        for sid in list(session.responders):
            self.retire(session, sid)
        for number, call in list(self.pending.items()):
            if call.responder.session is session:
                del self.pending[number]
                text = f"{session.name} was lost before it answered"
                call.asker.answer(call.rid, ResponderLost.code, RAW, text.encode())
            elif call.asker is session:
                del self.pending[number]

    def find(self, topic: str) -> list[Responder]:
        """Everybody who answers requests on `topic` and may see it."""
        found = self._cache.get(topic)
        if found is None:
            local = topics.is_local(topic)
            matching = [r for responders in self._index.match(topic) for r in responders]
            found = [r for r in matching if r.session.listener.local or not local]
            if len(self._cache) >= CACHE:
                self._cache.clear()
            self._cache[topic] = found
        return found

    def request(self, asker: Session, rid: int, request: Request, now: float) -> None:
        """Ask one responder, or all of them; answers at once where there is none."""
        self.counters.requests += 1
        responders = self.find(request.topic)
        if not responders:
            self.counters.no_responders += 1
            text = f"nobody answers requests on {request.topic}"
            asker.answer(rid, NoResponders.code, RAW, text.encode())
            return
        if request.many:
            asker.channel.add([ASKED, rid, len(responders)], RECORD_OVERHEAD)
            asker.calls += len(responders) - 1
            for responder in responders:
                self.ask(asker, rid, responder, request, now)
        else:
            self.ask(asker, rid, self._choose(responders), request, now)

    def _choose(self, responders: list[Responder]) -> Responder:
        """Responders take turns; one that is up and has room goes before one that is not."""
        count = len(responders)
        if count == 1:
            return responders[0]
        self._turn += 1
        for offset in range(count):
            responder = responders[(self._turn + offset) % count]
            if responder.session.life is Life.UP and responder.session.channel.room > 0:
                return responder
        return responders[self._turn % count]

    def ask(self, asker: Asker, rid: int, responder: Responder, request: Request, now: float) -> None:
        """Put the request to this responder."""
        channel = responder.session.channel
        if channel.room <= 0:
            text = f"{responder.session.name} has no room for another request"
            asker.answer(rid, Overloaded.code, RAW, text.encode())
            return
        self._next += 1
        topic, ttl, _, kind, body = request
        self.pending[self._next] = Call(asker, rid, responder, now + ttl / 1000)
        size = len(body) + 4 * len(topic) + BODY_OVERHEAD + RECORD_OVERHEAD
        channel.add([CALL, self._next, responder.sid, topic, ttl, kind, body], size)

    def asked(self, session: Session, number: int) -> Responder | None:
        """As which responder was the session asked this number, if it was?"""
        call = self.pending.get(number)
        return None if call is None or call.responder.session is not session else call.responder

    def reply(self, session: Session, number: int, code: str, kind: int, body: bytes) -> bool:
        """A responder's answer; False when nobody waits for it (any more)."""
        call = self.pending.get(number)
        if call is None or call.responder.session is not session:
            return False
        del self.pending[number]
        call.asker.answer(call.rid, code, kind, body)
        return True

    def expire(self, now: float, settle: Callable[[Asker], None]) -> None:
        """Forget requests whose deadline is past; their askers have given up by themselves."""
        late = [number for number, call in self.pending.items() if call.deadline + GRACE < now]
        for number in late:
            settle(self.pending.pop(number).asker)
