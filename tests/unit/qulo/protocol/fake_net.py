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
from typing import Any

from qulo.errors import Disconnected
from qulo.protocol import spool
from qulo.protocol.events import Event
from qulo.protocol.hub import Hub
from qulo.protocol.journal import Batch
from qulo.protocol.link import Identity, Link
from qulo.protocol.ports import Limits, Note
from qulo.protocol.relay import Relay
from qulo.protocol.report import LIST, LOCAL_LIST, report
from qulo.protocol.session import Session
from qulo.protocol.spool import Spool
from qulo.protocol.storage import Store
from qulo.protocol.streams import Streams, load
from qulo.protocol.tracker import Item, Tracker
from tests.unit.qulo.protocol.fake_link import Connection, Dialler, Program

# Seconds between two looks at the clock.
STEP = 0.5

# Rounds after which a network that still moves is taken for one that never stops.
ENDLESS = 200_000


class Up(Dialler):
    """An agent's way to its master."""

    def __init__(self, net: Net, host: Host, master: Host) -> None:
        super().__init__(net, master, Link(Identity(b"", host.name, "agent"), net.limits), local=False)
        self.host = host
        self.spool = None
        if host.disk is not None:
            self.spool = Spool(self.link, host.notes.append)
            self.spool.adopt(spool.load(host.disk))
        self.relay = Relay(self.link, self.spool)
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

    def __init__(self, net: Net, name: str, master: Host | None, disk: Store | None = None) -> None:
        self.net, self.name, self.master, self.disk = net, name, master, disk
        self.disk_is_slow = False  # batches stay under way until `sync`
        self.under_way: Batch | None = None
        self.connections: dict[tuple[int, bytes], Connection] = {}
        self.notes: list[Note] = []
        self.running = True
        self.up: Up | None = None
        self.start()

    def start(self) -> None:
        """A new life: a new epoch, and nothing remembered."""
        random = self.net.random
        self.hub = Hub(self.name, random.getrandbits(63), self.net.limits, lambda: random.randbytes(16), "0")
        self.hub.system |= dict.fromkeys((LIST, LOCAL_LIST), self._report)
        self.local, self.remote = self.hub.add_listener(True, 0), self.hub.add_listener(False, 1)
        self.up = Up(self.net, self, self.master) if self.master is not None else None
        self.under_way = None
        if self.disk is not None and self.master is None:
            streams = self.hub.keep_streams()
            streams.adopt(load(self.disk, streams.wall(self.net.now)), self.disk.marks(), self.net.now)
        self.running = True

    def _report(self, _asker: Session, _argument: dict[str, Any]) -> dict[str, Any]:
        return report(self.hub, self.net.now)

    def stop(self) -> None:
        """The process is killed: connections break, and everybody is told."""
        self.running = False
        if self.up is not None and self.up.connection is not None:
            self.up.fail(Disconnected("killed"))
        for connection in list(self.connections.values()):
            connection.dialler.fail(Disconnected("the hub was killed"))
        self.connections.clear()

    @property
    def way_up(self) -> Up:
        """An agent's link to its master."""
        assert self.up is not None
        return self.up

    def restart(self) -> None:
        """Killed and started again."""
        self.stop()
        self.start()

    def accept(self, dialler: Dialler) -> Connection:
        """A peer has connected."""
        self.net.made += 1
        route = self.net.made.to_bytes(5, "big")
        listener = self.local if dialler.local else self.remote
        principal = "uid:1000" if dialler.local else dialler.link.identity.name
        connection = Connection(dialler, self, listener, route, f"{principal}#{2 * self.net.made}")
        self.connections[listener.number, route] = connection
        return connection

    def hung_up(self, connection: Connection) -> None:
        """The peer closed its sockets; a ROUTER only notices when it sends."""
        self.connections.pop((connection.listener.number, connection.route), None)
        if not connection.silent:
            for prefix in connection.installed:
                self.hub.subscription_received(connection.listener, "", b"\x00" + prefix, self.net.now)

    def rebind(self) -> None:
        """Every PUB is closed and bound anew: peers notice, and connect again."""
        for listener in (self.local, self.remote):
            self.hub.pub_lost(listener)
        for connection in list(self.connections.values()):
            connection.dialler.fail(Disconnected("the PUB was closed"))

    def receive(self, connection: Connection, data: bytes) -> None:
        """A frame at the ROUTER."""
        self.hub.frame_received(connection.listener, connection.route, connection.user, "fake", data, self.net.now)
        self.flush()

    def subscribed(self, connection: Connection, message: bytes) -> None:
        """A message at the XPUB."""
        principal, _, number = connection.user.partition("#")
        user = f"{principal}#{int(number) + 1}"  # a connection of its own, of the same principal
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
            self._turn_store()
            if self.up is not None:
                self.up.send()
            again = self.hub.flush()
            for listener, frame in self.hub.take_pub():
                for connection in list(self.connections.values()):
                    if connection.listener is listener:
                        connection.publish(frame)
            self._send()
        self.notes += self.hub.take_notes()

    @property
    def core(self) -> Streams | Spool | None:
        """What uses the disk."""
        return self.up.spool if self.up is not None else self.hub.streams

    def _turn_store(self) -> None:
        core = self.core
        if core is None:
            return
        core.turn(self.net.now)
        while self.under_way is None and (batch := core.journal.take()) is not None:
            self.under_way = batch
            if not self.disk_is_slow:
                self._carry_out()
                core.turn(self.net.now)

    def _carry_out(self) -> None:
        assert self.under_way is not None
        assert self.disk is not None
        assert self.core is not None
        batch, self.under_way = self.under_way, None
        self.core.journal.done(batch.carry_out(self.disk), self.net.now)
        self.hub.go_on(self.net.now)

    def sync(self) -> None:
        """What is under way to the disk gets there."""
        if self.under_way is not None:
            self._carry_out()
        self.flush()

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

    def session(self, peer: Dialler) -> Session:
        """What the hub holds for a peer."""
        return next(each for each in self.hub.sessions.values() if each.instance == peer.link.identity.instance)

    def expire(self, peer: Dialler) -> None:
        """The hub forgets a peer, whose connection stays."""
        self.hub.end(self.session(peer), "expired", self.net.now)
        self.flush()

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

    def host(self, name: str, master: Host | None = None, disk: Store | None = None) -> Host:
        """A hub, with a master an agent's; with a disk it keeps streams, or a spool."""
        host = Host(self, name, master, disk)
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
