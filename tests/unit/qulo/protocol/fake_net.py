"""A network without sockets: real hubs, links and relays joined by queues that a test can delay, cut and lose.

    net = Net(); master = net.host("master"); agent = net.host("agent", master); program = net.program("p", agent)
    net.settle()      delivers everything that is under way
    net.step()        delivers one thing, chosen by the seed
    net.advance(s)    lets time pass, heartbeats and reconnections included

A connection is four queues: `up` and `down` between DEALER and ROUTER, `pub` from XPUB to SUB, `subs` from SUB to
XPUB. Each keeps its order, together they keep none; `paused` holds single ones back. The XPUB is a manual one: a
SUB gets what begins with a prefix that the hub installed for it, and nothing before.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from qulo.errors import ProtocolError, QuloError
from qulo.protocol import link as core
from qulo.protocol.hub import Hub
from qulo.protocol.link import Event, Identity, Link, Phase
from qulo.protocol.ports import Limits, Note
from qulo.protocol.relay import Relay
from qulo.protocol.report import LIST, LOCAL_LIST, report
from qulo.protocol.session import Listener
from qulo.protocol.tracker import Gap, Item, Tracker
from qulo.protocol.wire import session_key

PATHS = ("up", "down", "pub", "subs")

# Seconds between two looks at the clock, and before the next attempt to connect; as the sockets' drivers do it.
STEP, RETRY = 0.5, 0.5
SILENT_BEATS = 3

# Rounds after which a network that still moves is taken for one that never stops.
ENDLESS = 200_000


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

    def deliver(self, events: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """What came in one turn."""

    def went_away(self) -> None:
        """The session's connection is gone."""

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
        events, items = self.link.take_events(), self.link.take_items()
        for event in events:
            self._happened(event)
        if events or items:
            self.deliver(events, items)
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
        if isinstance(event, core.Dismissed):
            self.fail(event.error)
        elif connection is None:
            return
        elif isinstance(event, core.Welcomed):
            connection.has_sub = True
            self._prefix(connection, session_key(event.token), True)
            self.heard_pub = self.net.now
            self.next_beat = self.net.now
            self.beat()
        elif isinstance(event, core.Prefix):
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
        elif self.net.now - self.heard > 5:
            self.fail(QuloError("no WELCOME"))


class Program(Dialler):
    """A program with a link, that remembers what it got."""

    def __init__(self, net: Net, host: Host, name: str, local: bool) -> None:
        super().__init__(net, host, Link(Identity(b"", name), net.limits), local)
        self.name = name
        self.got: dict[Tracker, list[Item]] = {}
        self.events: list[Event] = []
        self.respond: Callable[[core.Call], bytes | None] | None = None

    def deliver(self, events: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """Remember; answer requests where the test says how."""
        self.events += events
        for tracker, item in items:
            self.got.setdefault(tracker, []).append(item)
        for event in events:
            if isinstance(event, core.Call) and self.respond is not None:
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
        return [body.decode() for e in self.events if isinstance(e, core.Work) for body in e.bodies]

    def ask(self, topic: str, body: bytes = b"?", ttl: int = 5000, many: bool = False) -> int:
        """Send a request."""
        rid = self.link.request(topic, ttl, many, 0, body)
        self.turn()
        return rid

    def answers(self, rid: int) -> list[tuple[str, bytes]]:
        """What came for a request: (code, body)."""
        return [(e.code, e.body) for e in self.events if isinstance(e, core.Answer) and e.rid == rid]


class Up(Dialler):
    """An agent's way to its master."""

    def __init__(self, net: Net, host: Host, master: Host) -> None:
        super().__init__(net, master, Link(Identity(b"", host.name, "agent"), net.limits), local=False)
        self.host = host
        self.relay = Relay(self.link)
        self.relay.attach(host.hub)

    def deliver(self, events: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """The relay's turn, then the hub's."""
        self.host.notes += self.relay.turn(events, items, self.net.now)
        self.host.flush()

    def went_away(self) -> None:
        """Whoever waits for the master gets an answer."""
        self.relay.went_away()
        self.host.flush()


class Host:
    """Drives a Hub as `qulo.net.hub` does; with a master it is an agent's."""

    def __init__(self, net: Net, name: str, master: Host | None) -> None:
        self.net, self.name, self.master = net, name, master
        self.connections: dict[tuple[int, bytes], Connection] = {}
        self.notes: list[Note] = []
        self.running = True
        self.up: Up | None = None
        self.start()

    def start(self) -> None:
        """A new life: a new epoch, and nothing remembered."""
        random = self.net.random
        self.hub = Hub(self.name, random.getrandbits(63), self.net.limits, lambda: random.randbytes(16), "0")
        self.hub.system |= dict.fromkeys((LIST, LOCAL_LIST), lambda _: report(self.hub, self.net.now))
        self.local, self.remote = self.hub.add_listener(True, 0), self.hub.add_listener(False, 1)
        self.up = Up(self.net, self, self.master) if self.master is not None else None
        self.running = True

    def stop(self) -> None:
        """The process is killed: connections break, and everybody is told."""
        self.running = False
        if self.up is not None and self.up.connection is not None:
            self.up.fail(QuloError("killed"))
        for connection in list(self.connections.values()):
            connection.dialler.fail(QuloError("the hub was killed"))
        self.connections.clear()

    def restart(self) -> None:
        """Killed and started again."""
        self.stop()
        self.start()

    def accept(self, dialler: Dialler) -> Connection:
        """A peer has connected."""
        self.net.made += 1
        route = self.net.made.to_bytes(5, "big")
        listener = self.local if dialler.local else self.remote
        connection = Connection(dialler, self, listener, route, f"{dialler.link.identity.name}#{self.net.made}")
        self.connections[listener.number, route] = connection
        return connection

    def hung_up(self, connection: Connection) -> None:
        """The peer closed its sockets; a ROUTER only notices when it sends."""
        self.connections.pop((connection.listener.number, connection.route), None)
        if not connection.silent:
            for prefix in connection.installed:
                self.hub.subscription_received(connection.listener, "", b"\x00" + prefix, self.net.now)

    def receive(self, connection: Connection, data: bytes) -> None:
        """A frame at the ROUTER."""
        self.hub.frame_received(connection.listener, connection.route, connection.user, "fake", data, self.net.now)
        self.flush()

    def subscribed(self, connection: Connection, message: bytes) -> None:
        """A message at the XPUB."""
        user = f"{connection.user}.sub"  # a connection of its own, of the same principal
        if self.hub.subscription_received(connection.listener, user, message, self.net.now):
            connection.installed.add(message[1:])
        elif message[:1] == b"\x00":
            connection.installed.discard(message[1:])
        self.flush()

    def flush(self) -> None:
        """The end of a turn of the loop."""
        if not self.running:
            return
        again = True
        while again:
            if self.up is not None:
                self.up.send()
            again = self.hub.flush()
            for listener, frame in self.hub.take_pub():
                for connection in list(self.connections.values()):
                    if connection.listener is listener:
                        connection.publish(frame)
            self._send()
        self.notes += self.hub.take_notes()

    def _send(self) -> None:
        refused: dict[tuple[int, bytes], int] = {}
        for listener, route, frame in self.hub.take_out():
            key = listener.number, route
            connection = self.connections.get(key)
            if key in refused or connection is None or not connection.send("down", frame):
                refused[key] = refused.get(key, 0) + (frame[1] != 0)
        for (number, route), count in refused.items():
            gone = (number, route) not in self.connections
            self.hub.unsent(self.hub.listeners[number], route, count, gone)

    def said(self, text: str) -> list[str]:
        """The notes that contain `text`."""
        return [note.text for note in self.notes if text in note.text]


class Net:
    """Everything there is, one clock and one seed."""

    def __init__(self, limits: Limits | None = None, seed: int = 0, high_water: int = 1000) -> None:
        self.limits = limits or Limits()
        self.random = random.Random(seed)
        self.now = 1000.0
        self.high_water = high_water
        self.made = 0
        self.hosts: list[Host] = []
        self.programs: list[Program] = []

    def host(self, name: str, master: Host | None = None) -> Host:
        """A hub, with a master an agent's."""
        host = Host(self, name, master)
        self.hosts.append(host)
        self.settle()
        return host

    def program(self, name: str, host: Host, local: bool = True) -> Program:
        """A program connected to the host's ipc socket, or from elsewhere."""
        program = Program(self, host, name, local)
        self.programs.append(program)
        self.settle()
        return program

    @property
    def diallers(self) -> list[Dialler]:
        """All links."""
        return [h.up for h in self.hosts if h.up is not None] + list(self.programs)

    def _movable(self) -> list[tuple[Connection, str]]:
        connections = [d.connection for d in self.diallers if d.connection is not None]
        return [(connection, path) for connection in connections for path in connection.ready()]

    def step(self) -> bool:
        """Deliver one frame somewhere; False when nothing is under way."""
        movable = self._movable()
        if not movable:
            return False
        connection, path = self.random.choice(movable)
        connection.deliver(path)
        return True

    def settle(self) -> None:
        """Dial what waits to be dialled, then deliver until nothing is under way."""
        for dialler in self.diallers:
            dialler.tick()
        for _ in range(ENDLESS):
            movable = self._movable()
            if not movable:
                return
            for connection, path in movable:
                if path in connection.ready():
                    connection.deliver(path)
        raise AssertionError("the network never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            for host in self.hosts:
                if host.running:
                    host.hub.tick(self.now)
                    host.flush()
            self.settle()
