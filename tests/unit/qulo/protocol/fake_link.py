"""One end of the fake network: a connection's four queues, and a link driven as `qulo.net.link` drives it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qulo.errors import Disconnected, ProtocolError, QuloError
from qulo.protocol import events
from qulo.protocol.events import Event
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.session import Listener
from qulo.protocol.topics import SESSIONS
from qulo.protocol.tracker import Gap, Item, Tracker
from qulo.protocol.wire import session_key

if TYPE_CHECKING:
    from tests.unit.qulo.protocol.fake_net import Host, Net

PATHS = ("up", "down", "pub", "subs")

# Seconds before the next attempt to connect, and for WELCOME; heartbeats after which a hub is silent.
RETRY, GREETING = 0.5, 5.0
SILENT_BEATS = 3


@dataclass(slots=True, eq=False)
class Connection:
    """A DEALER and a SUB of one peer, and what is under way."""

    dialler: Dialler
    host: Host
    listener: Listener
    route: bytes
    user: str
    alive: bool = True
    silent: bool = False  # half-open: everything vanishes and nobody is told
    has_sub: bool = False
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)
    pub: deque[bytes] = field(default_factory=deque)
    subs: deque[bytes] = field(default_factory=deque)
    installed: set[bytes] = field(default_factory=set)
    wanted: Counter[bytes] = field(default_factory=Counter)
    paused: set[str] = field(default_factory=set)
    lose_pub: Callable[[bytes], bool] | None = None
    lost: int = 0  # PUB frames that did not fit, or that the test took

    def send(self, path: str, data: bytes) -> bool:
        """Put a frame on a path; False when the socket would refuse it."""
        queue: deque[bytes] = getattr(self, path)
        if len(queue) >= self.host.net.high_water:
            return False
        if not self.silent:
            queue.append(data)
        return True

    def publish(self, data: bytes) -> None:
        """What an XPUB does: to whom it may go it goes, unless there is no room."""
        if not self.has_sub or not any(data.startswith(p) for p in self.installed):
            return
        if (self.lose_pub is not None and self.lose_pub(data)) or not self.send("pub", data):
            self.lost += 1

    def lose(self, *numbers: int) -> None:
        """Lose the n-th, ... frame with messages that is published from now on; without numbers all of them."""
        seen = 0

        def lose(data: bytes) -> bool:
            nonlocal seen
            seen += not data.startswith(SESSIONS)
            return not data.startswith(SESSIONS) and (not numbers or seen in numbers)

        self.lose_pub = lose

    def ready(self) -> list[str]:
        """The paths on which something can be delivered."""
        return [p for p in PATHS if getattr(self, p) and p not in self.paused] if self.alive else []

    def deliver(self, path: str) -> None:
        """The next frame of this path arrives."""
        data = getattr(self, path).popleft()
        if path == "up":
            self.host.receive(self, data)
        elif path == "subs":
            self.host.subscribed(self, data)
        else:
            self.dialler.receive(path, data)


class Dialler:
    """Drives a Link as `qulo.net.link` does."""

    def __init__(self, net: Net, host: Host, link: Link, local: bool) -> None:
        self.net, self.target, self.link, self.local = net, host, link, local
        self.connection: Connection | None = None
        self.retry_at = net.now
        self.next_beat = self.heard = self.heard_pub = 0.0
        self.errors: list[QuloError] = []

    def deliver(self, happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """What came in one turn."""

    def went_away(self) -> None:
        """The session's connection is gone."""

    @property
    def wire(self) -> Connection:
        """The connection that there is."""
        assert self.connection is not None
        return self.connection

    def cut(self) -> None:
        """The connection breaks and this side notices; it comes back after RETRY."""
        self.fail(Disconnected("cut"))

    def dial(self) -> None:
        """Connect and say HELLO."""
        self.connection = self.target.accept(self)
        self.heard = self.heard_pub = self.net.now
        self.connection.send("up", self.link.hello(self.net.random.randbytes(8)))

    def receive(self, path: str, data: bytes) -> None:
        """A frame has come."""
        try:
            if path == "down":
                self.heard = self.net.now
                self.link.frame_received(data)
            else:
                self.heard_pub = self.net.now
                self.link.pub_received(data)
        except ProtocolError as error:
            self.fail(error)
        self.turn()

    def turn(self) -> None:
        """The end of a turn of the loop: deliver, then send."""
        happened, items = self.link.take_events(), self.link.take_items()
        for event in happened:
            self._happened(event)
        if happened or items:
            self.deliver(happened, items)
        self.send()

    def send(self) -> None:
        """Send what is queued; what the socket refuses waits."""
        connection = self.connection
        frames = self.link.take() if connection is not None else []
        for number, frame in enumerate(frames):
            if connection is None or not connection.send("up", frame):
                self.link.channel.untake(sum(f[1] != 0 for f in frames[number:]))
                break

    def _happened(self, event: Event) -> None:
        connection = self.connection
        if isinstance(event, events.Dismissed):
            self.fail(event.error)
        elif connection is None:
            return
        elif isinstance(event, events.Welcomed):
            connection.has_sub = True
            self._prefix(connection, session_key(event.token), True)
            self.heard_pub = self.net.now
            self.next_beat = self.net.now
            self.beat()
        elif isinstance(event, events.Prefix):
            self._prefix(connection, event.prefix, event.add)

    def _prefix(self, connection: Connection, prefix: bytes, add: bool) -> None:
        connection.wanted[prefix] += 1 if add else -1
        if add:
            connection.send("subs", b"\x01" + prefix)
        elif not connection.wanted[prefix]:
            connection.send("subs", b"\x00" + prefix)

    def beat(self) -> None:
        """The heartbeat, and a look at the hub's."""
        heartbeat = self.link.heartbeat
        self.next_beat = self.net.now + heartbeat
        if self.net.now - min(self.heard, self.heard_pub) > SILENT_BEATS * heartbeat:
            self.fail(QuloError("silent"))
        elif self.connection is not None:
            self.connection.send("up", self.link.beat(int(self.net.now * 1e6)))

    def fail(self, error: QuloError) -> None:
        """The connection is lost, as far as this side knows."""
        self.errors.append(error)
        if self.connection is not None:
            self.connection.host.hung_up(self.connection)
            self.connection.alive = False
            self.connection = None
        self.retry_at = self.net.now + RETRY
        was_up = self.link.phase is Phase.UP
        self.link.disconnected()
        if was_up:
            self.went_away()

    def tick(self) -> None:
        """Time has passed."""
        if self.connection is None:
            if self.net.now >= self.retry_at and self.target.running:
                self.dial()
        elif self.link.phase is Phase.UP:
            if self.net.now >= self.next_beat:
                self.beat()
            self.turn()
        elif self.net.now - self.heard > GREETING:
            self.fail(QuloError("no WELCOME"))


class Program(Dialler):
    """A program with a link, that remembers what it got."""

    def __init__(self, net: Net, host: Host, name: str, local: bool) -> None:
        super().__init__(net, host, Link(Identity(b"", name), net.limits), local)
        self.name = name
        self.got: dict[Tracker, list[Item]] = {}
        self.events: list[Event] = []
        self.respond: Callable[[events.Call], bytes | None] | None = None

    def deliver(self, happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """Remember; answer requests where the test says how."""
        self.events += happened
        for tracker, item in items:
            self.got.setdefault(tracker, []).append(item)
        for event in happened:
            if isinstance(event, events.Call) and self.respond is not None:
                body = self.respond(event)
                if body is not None:
                    self.link.reply(event.rid, "", 0, body)

    def publish(self, topic: str, *bodies: bytes | str) -> None:
        """Publish and send, each body a message."""
        for body in bodies:
            self.link.publish(topic, 0, body if isinstance(body, bytes) else body.encode())
        self.turn()

    def subscribe(self, pattern: str) -> Tracker:
        """Ask for a subscription; it is there after `net.settle`."""
        tracker = self.link.subscribe(pattern)
        self.got[tracker] = []
        self.turn()
        return tracker

    def join(self, pattern: str, group: str) -> int:
        """Become a member of a group."""
        sid = self.link.join(pattern, group)
        self.turn()
        return sid

    def put(self, topic: str, *bodies: bytes | str, **extra: Any) -> list[int]:
        """Put each body; returns the numbers of the puts."""
        rids = [
            self.link.put(topic, 0, body if isinstance(body, bytes) else body.encode(), extra or None)
            for body in bodies
        ]
        self.turn()
        return rids

    def put_answers(self, rids: list[int]) -> list[tuple[str, int, bool] | str | None]:
        """Of each put: (at, number, duplicate), the code of its error, or None."""
        found: dict[int, tuple[str, int, bool] | str] = {}
        for event in self.events:
            if isinstance(event, events.Stored):
                for i in range(event.amount):
                    seq = event.seq + i if event.seq else 0
                    assert event.rid + i not in found
                    found[event.rid + i] = (event.at, seq, event.duplicate)
            elif isinstance(event, events.Unstored):
                found |= dict.fromkeys(range(event.rid, event.rid + event.amount), event.code)
        return [found.get(rid) for rid in rids]

    def consume(
        self, stream: str, group: str = "g", prefetch: int = 100, lease: float = 30.0, start: str = "first"
    ) -> int:
        """Become a consumer."""
        sid = self.link.consume(stream, group, prefetch, int(lease * 1000), start)
        self.turn()
        return sid

    def delivered(self, sid: int) -> list[tuple[int, str, int, bool]]:
        """Since the last look: (number, body, tries, redelivered)."""
        mine = [e for e in self.events if isinstance(e, events.Deliver) and e.sid == sid]
        self.events = [e for e in self.events if e not in mine]
        return [(e.seq + i, body.decode(), e.tries, e.redelivered) for e in mine for i, body in enumerate(e.bodies)]

    def ack(self, sid: int, *seqs: int) -> None:
        """These are done."""
        for seq in seqs:
            self.link.ack(sid, seq)
        self.turn()

    def serve(self, pattern: str, answer: Callable[[events.Call], bytes | None]) -> int:
        """Answer requests; None is no answer."""
        self.respond = answer
        sid = self.link.respond(pattern)
        self.turn()
        return sid

    def close(self, sid: int) -> None:
        """End a subscription, membership or responder."""
        self.link.close(sid)
        self.turn()

    def texts(self, tracker: Tracker) -> list[str]:
        """The messages that came, in order."""
        return [body.decode() for item in self.got[tracker] if not isinstance(item, Gap) for body in item[2]]

    def gaps(self, tracker: Tracker) -> list[Gap]:
        """The gaps that were reported."""
        return [item for item in self.got[tracker] if isinstance(item, Gap)]

    def of(self, kind: type) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def work(self) -> list[str]:
        """What came for group memberships."""
        return [body.decode() for e in self.events if isinstance(e, events.Work) for body in e.bodies]

    def ask(self, topic: str, body: bytes = b"?", ttl: int = 5000, many: bool = False) -> int:
        """Send a request."""
        rid = self.link.request(topic, ttl, many, 0, body)
        self.turn()
        return rid

    def answers(self, rid: int) -> list[tuple[str, bytes]]:
        """What came for a request: (code, body)."""
        return [(e.code, e.body) for e in self.events if isinstance(e, events.Answer) and e.rid == rid]
