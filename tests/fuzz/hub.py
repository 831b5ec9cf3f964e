"""A pure Hub with sessions: frames, subscriptions and time in any order raise nothing, and its tables stay in step.

The driver does as `net.hub`: a frame names a user that the ZAP handler gave, and after each turn everything is taken.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from qulo.protocol import wire
from qulo.protocol.hub import Hub
from qulo.protocol.permissions import Permissions, Rule
from qulo.protocol.ports import Limits
from qulo.protocol.report import LIST, LOCAL_LIST, report
from qulo.protocol.session import Listener, Session, crowd_of
from qulo.protocol.storage import Stream, StreamAdd
from qulo.protocol.streams import load
from qulo.store.memory import MemoryStore
from tests.fuzz.chooser import Chooser
from tests.fuzz.records import BYTES, deep, frame, raw_frame

LIMITS = Limits(
    max_message=100_000, high_water=8, link_buffer=100_000, replay_window=50_000, max_subscriptions=20, max_pending=5
)
RULES = (
    Rule(True, ("publish", "subscribe", "request", "respond", "stream"), ("*", "*/local"), (">", "$qulo.>", "local.>")),
    Rule(False, ("publish",), ("*",), ("a.b.c.>",)),
)
USERS = ("peer#1", "peer#2", "agent#3", "uid:0#4", "plain:#5", "token/x#6")
ROUTES = (b"\0r1", b"\0r2", b"\0r3")
STEPS = 200  # of one input; more of the same finds nothing new
PASSED = (0.0, 0.01, 0.5, 3.0, 6.0, 40.0)


def _crowds(session: Session) -> dict[str, int]:
    held = [crowd_of(each.pattern, shared=False) for each in session.subscriptions.values()]
    shared = [*session.members.values(), *session.responders.values()]
    return dict(Counter(filter(None, [*held, *(crowd_of(each.pattern, shared=True) for each in shared)])))


@dataclass(slots=True)
class World:
    """A hub, and what its driver remembers."""

    hub: Hub
    listeners: list[Listener]
    now: float = 1.0
    store: MemoryStore = field(default_factory=MemoryStore)
    tokens: list[bytes] = field(default_factory=list)

    def flush(self) -> None:
        """The end of a turn."""
        for _ in range(1000):
            self._turn_store()
            if not self.hub.flush():
                break
        else:
            raise AssertionError("it wants another turn for ever")
        for _, data in self.hub.take_pub():
            assert type(data) is bytes
        for listener, _, data in self.hub.take_out():
            assert listener in self.listeners
            for sent in wire.decode(data)[2]:
                wire.check(sent, "down")
        self.hub.take_notes()
        for verdict in self.hub.authority.take_verdicts():
            assert not isinstance(verdict.why, bytes)

    def _turn_store(self) -> None:
        streams = self.hub.streams
        assert streams is not None
        streams.turn(self.now)
        while (batch := streams.journal.take()) is not None:
            streams.journal.done(batch.carry_out(self.store), self.now)
            self.hub.go_on(self.now)
            streams.turn(self.now)

    def _streams_in_step(self) -> None:
        streams = self.hub.streams
        assert streams is not None
        consumers = {consumer for session in self.hub.sessions.values() for consumer in session.consumers.values()}
        for opened in streams.table.values():
            for group in opened.groups.values():
                assert set(group.consumers) <= consumers
                held = Counter(lease.consumer for lease in group.held.values())
                assert all(consumer.held == held[consumer] for consumer in group.consumers)
                assert not any(seq in group.done for seq in group.held)
                assert group.done.floor <= opened.last

    def in_step(self) -> None:
        """Do the tables agree with each other?"""
        self._streams_in_step()
        hub = self.hub
        assert set(hub._by_token.values()) == set(hub.sessions.values())
        for listener in self.listeners:
            for route, session in listener.routes.items():
                assert session.route == route
                assert hub.sessions[session.key] is session
        for session in hub.sessions.values():
            assert session.channel.bytes >= 0
            assert session.calls >= 0
            assert session.parked_size == sum(size for _, _, size in session.parked)
            assert bool(session.parked) == (session in hub.intake.parked or session in hub.intake.held)
            assert session.crowds == _crowds(session)
            assert set(session.repairs) <= set(session.subscriptions.values())
            assert len(session.subscriptions) <= LIMITS.max_subscriptions * session.weight

    def end(self) -> None:
        """Some time later all is sent, and the hub can still be listed."""
        self.flush()
        self.now += 1
        self.hub.tick(self.now)
        self.flush()
        self.in_step()
        wire.pack(report(self.hub, self.now))


def world(seed: int = 0) -> World:
    """A hub of a host and site with a session that has subscribed and answers."""
    tokens = itertools.count(1)
    made: list[bytes] = []

    def make_token() -> bytes:
        made.append(next(tokens).to_bytes(16, "big"))
        return made[-1]

    limits = LIMITS if not seed & 1 else Limits(**{**_fields(), "max_rate": 5})
    hub = Hub("hub", 7, limits, make_token, "0")
    hub.authority.permissions = Permissions(RULES)
    hub.is_host = bool(seed & 2)
    hub.authority.administrators = frozenset({"uid:0"})
    hub.system |= dict.fromkeys((LIST, LOCAL_LIST), lambda _asker, _argument: report(hub, 0.0))
    hub.system["$qulo.local.admin.x"] = _administer
    seen = World(hub, [hub.add_listener(True, 0), hub.add_listener(False, 5555)], tokens=made)
    seen.store.commit([StreamAdd(Stream("S", ("a.>",), max_tries=2, dedupe_ms=1000, max_msgs=50))])
    hub.keep_streams().adopt(load(seen.store, 1000), (), seen.now)
    return seen


def _fields() -> dict[str, Any]:
    return {name: getattr(LIMITS, name) for name in Limits.__dataclass_fields__}


def _administer(_asker: Session, argument: dict[str, Any]) -> dict[str, Any]:
    """What the real ones do with an argument."""
    return {"a": float(argument["a"]), "b": int(argument["b"]), "name": str(argument.get("name"))}


def _hello(chooser: Chooser, seen: World) -> bytes:
    token = chooser.pick([None, *seen.tokens[-3:]])
    instance = chooser.pick((b"instance", b"instanc2", b"short"))
    kind = chooser.pick(("client", "agent", "king"))
    info: dict[str, Any] = chooser.pick(({}, {"version": "1"}, {"x": deep(4 * chooser.byte())}))
    epoch, received = chooser.pick((7, 0)), chooser.pick((0, 1, 2**62))
    return wire.encode(0, 0, [[wire.HELLO, wire.VERSION, instance, "peer", kind, token, epoch, received, info]])


def _step(chooser: Chooser, seen: World) -> None:
    hub = seen.hub
    listener, route, user = chooser.pick(seen.listeners), chooser.pick(ROUTES), chooser.pick(USERS)
    session = listener.routes.get(route)
    if session is not None and chooser.below(8):
        user = session.user
    number = session.channel.received + 1 if session is not None else 1
    ack = session.channel.number if session is not None else 0
    what = chooser.below(12)
    if what < 8:
        if what < 1:
            data = chooser.some()
        elif what < 2:
            data = _hello(chooser, seen)
        else:
            data = raw_frame(chooser, number) if what < 4 else frame(chooser, number, ack, "up")
        hub.frame_received(listener, route, user, "there", data, seen.now)
    elif what == 8:
        token = chooser.pick([b"", *seen.tokens[-3:]])
        prefix = wire.session_key(token) if chooser.below(2) else chooser.pick(BYTES)
        hub.subscription_received(listener, user, chooser.pick((b"\1", b"\0", b"")) + prefix, seen.now)
    elif what == 9:
        hub.unsent(listener, route, chooser.below(4), bool(chooser.below(2)))
    elif what == 10:
        seen.now += chooser.pick(PASSED)
        hub.tick(seen.now)
    else:
        seen.flush()


def check(data: bytes) -> None:
    """Play one story, made of the input."""
    chooser = Chooser(data)
    seen = world(chooser.byte())
    hub, listener = seen.hub, seen.listeners[1]
    hello = [wire.HELLO, wire.VERSION, b"instance", "peer", "client", None, 0, 0, {}]
    hub.frame_received(listener, ROUTES[0], USERS[0], "there", wire.encode(0, 0, [hello]), seen.now)
    begin: list[wire.Record] = [[wire.SUBSCRIBE, 1, "a.>", None], [wire.SUBSCRIBE, 2, "*.b", None]]
    begin += [[wire.RESPOND, 3, "a.b"], [wire.SUBSCRIBE, 4, "g", "group"]]
    begin += [[wire.CONSUME, 7, "S", "g", 3, 1000, "first"], [wire.PUT, 1, "a.b", 0, None, [b"1", b"2", b"3", b"4"]]]
    hub.frame_received(listener, ROUTES[0], USERS[0], "there", wire.encode(1, 0, begin), seen.now)
    for _ in range(STEPS):
        if chooser.is_empty:
            break
        _step(chooser, seen)
        seen.in_step()
    seen.end()
