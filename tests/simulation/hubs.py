"""A hub as a process: drives a Hub, and an agent's Relay and way up, as `qulo.net.hub` and `qulo.net.service` do.

A life begins with a new epoch and what its disk has; everything else is gone with the one before.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qulo.net.hub import RELEASE, TICKS
from qulo.net.stream_requests import LOCAL_DEAD, DeadRequests, StreamRequests
from qulo.protocol import spool, streams
from qulo.protocol.events import Event, Welcomed
from qulo.protocol.hub import Hub
from qulo.protocol.journal import Then
from qulo.protocol.link import Identity, Link
from qulo.protocol.permissions import DEFAULT, Permissions, Rule
from qulo.protocol.relay import Relay
from qulo.protocol.report import LIST, LOCAL_LIST, report
from qulo.protocol.session import Listener, Session
from qulo.protocol.storage import Appended, DeadLetter, Result
from qulo.protocol.tracker import Item, Tracker
from tests.simulation.clock import Process
from tests.simulation.dialler import TURN, Dialler
from tests.simulation.disk import Disk
from tests.simulation.leases import LeaseWatch
from tests.simulation.network import Connection

if TYPE_CHECKING:
    from tests.simulation.world import World

# What nobody may do anything on: a refusal of each verb is a path like any other.
RULES = (Rule(False, ("publish", "subscribe", "respond", "request"), ("*",), ("secret.>",)), *DEFAULT)

# Seconds from an error of the disk to the end of the daemon, and the longest that a drain may take.
FAILING, DRAINING = 0.05, 2.0


class HubNode(Process):
    """A daemon: a master, or with `master` an agent below it."""

    def __init__(self, world: World, name: str, master: HubNode | None) -> None:
        super().__init__(world.clock, name)
        self.world = world
        self.master = master
        self.disk = Disk(self, world.random, name) if world.with_streams else None
        self.connections: dict[tuple[int, bytes], Connection] = {}
        self.up: Dialler | None = None
        self.relay: Relay | None = None
        self.safe = -1
        """Of an agent: what its programs knew to be acknowledged at this count of the clock is at its master."""
        self._scheduled = False
        self._releasing = False
        self.start()

    # -- life

    def start(self) -> None:
        """A new life."""
        world, random = self.world, self.world.random
        self.running = True
        self._scheduled = self._releasing = False
        self.connections.clear()
        hub = self.hub = Hub(self.name, random.getrandbits(63), world.limits, partial(random.randbytes, 16), "0")
        hub.authority.permissions = Permissions(RULES)
        hub.system |= dict.fromkeys((LIST, LOCAL_LIST), self._report)
        self._listeners = hub.add_listener(False, 1), hub.add_listener(True, 0)
        if self.master is None:
            hub.is_host = world.master_is_host
            self._keep_streams()
        else:
            self._dial(self.master)
        self.after(world.limits.heartbeat / TICKS, self._tick)

    def _report(self, _asker: Session, _argument: dict[str, Any]) -> dict[str, Any]:
        return report(self.hub, self.clock.now)

    def _keep_streams(self) -> None:
        if self.disk is None:
            return
        kept = self.hub.keep_streams()
        kept.offset_ms = self.offset_ms
        LeaseWatch(kept, self.world.given)
        self._note_requeued(kept, self.disk)
        loaded = streams.load(self.disk.store, kept.wall(self.clock.now))
        kept.adopt(loaded, self.disk.store.marks(), self.clock.now)
        self.disk.serve(kept, self._stored, self._failed)
        StreamRequests(self.hub, kept)

    def _note_requeued(self, keeper: streams.Streams | spool.Spool, disk: Disk) -> None:
        """A dead letter that is given back is a new message with an old body, for the group that buried it."""
        requeue, world = keeper.requeue, self.world

        def noting(letter: DeadLetter, then: Then, now: float) -> None:
            found = disk.store.letter(letter.number)
            body = found[1].body.decode() if found is not None else ""
            world.given_back.append((self.clock.count, body))
            world.requeued[body] += 1  # also if it fails: an error of the disk says nothing

            def done(results: list[Result], now: float) -> None:
                if isinstance(results[0], Appended):
                    world.requeued_for[letter.stream, results[0].seq] = letter.group
                then(results, now)

            requeue(letter, done, now)

        keeper.requeue = noting  # type: ignore[method-assign]

    def _dial(self, master: HubNode) -> None:
        link = Link(Identity(b"", self.name, "agent", {"version": "0"}), self.world.limits)
        made = None
        if self.disk is not None:
            made = spool.Spool(link, self.world.noted)
            made.offset_ms = self.offset_ms
            made.adopt(spool.load(self.disk.store))
            self._note_requeued(made, self.disk)
            self.disk.serve(made, self._stored, self._failed)
            DeadRequests(self.hub, made, LOCAL_DEAD)
        self.relay = relay = Relay(link, made)
        relay.attach(self.hub)

        def went_away() -> None:
            relay.went_away()
            self.wake()

        self.up = Dialler(self.world, (self, master), link, self._relayed, went_away, False)
        self.up.start()

    def _relayed(self, happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        if self.relay is not None:
            for note in self.relay.turn(happened, items, self.clock.now):
                self.world.noted(note)
        if any(type(event) is Welcomed for event in happened):
            self.world.welcomed(self)
        self.wake()

    def kill(self) -> None:
        """Kill -9, or a power cut."""
        if not self.running:
            return
        self.end_life()
        if self.up is not None:
            self.up.killed()
        connections, self.connections = list(self.connections.values()), {}
        for connection in connections:
            self.break_(connection)
        if self.disk is not None:
            self.disk.crash()

    def restart_after(self, seconds: float) -> None:
        """Somebody starts it again."""
        life = self.life

        def start() -> None:
            if self.life == life and not self.running:
                self.start()

        self.clock.after(seconds, None, start)

    def drain(self) -> None:
        """An operator restarts it in order."""
        life, deadline = self.life, self.clock.now + DRAINING

        def look() -> None:
            if self.life != life:
                return
            if self.hub.drain() or self.clock.now >= deadline:
                self.world.stopped(self)
            else:
                self.flush()
                self.after(0.05, look)

        look()

    def _failed(self, why: str) -> None:
        """The store's first error is its last: the daemon ends."""
        self.world.store_failed(self, why)

    # -- connections

    def listener(self, local: bool) -> Listener:
        """The one for local programs, or the other."""
        return self._listeners[local]

    def accept(self, connection: Connection) -> None:
        """A peer has connected."""
        self.connections[connection.listener.number, connection.route] = connection

    def hung_up(self, connection: Connection) -> None:
        """The peer is gone; a ROUTER only notices when it sends."""
        self.connections.pop((connection.listener.number, connection.route), None)

    def break_(self, connection: Connection) -> None:
        """The network, or this side, ends a connection: the other side hears of it."""
        connection.close(self.world.random)
        connection.dialler.lost(connection)

    def rebind(self, both: bool) -> None:
        """The PUBs are bound anew (rules have changed), and with `both` the ROUTERs as well (another key)."""
        for listener in self._listeners:
            if listener.local and both:
                continue
            self.hub.pub_lost(listener)
            if both:
                self.hub.listener_lost(listener)
        for connection in list(self.connections.values()):
            if not (connection.listener.local and both):
                self.break_(connection)
        self.wake()

    # -- what comes

    def received(self, connection: Connection, data: bytes) -> None:
        """A frame at a ROUTER."""
        self.hub.frame_received(
            connection.listener, connection.route, connection.user, "simulated", data, self.clock.now
        )
        self.wake()

    def subscribed(self, connection: Connection, message: bytes) -> None:
        """A message at an XPUB."""
        if self.hub.subscription_received(connection.listener, connection.sub_user, message, self.clock.now):
            connection.install(message[1:])
        elif message[:1] == b"\x00":
            connection.uninstall(message[1:])
        self.wake()

    def _stored(self) -> None:
        self.hub.go_on(self.clock.now)
        self.wake()

    def _tick(self) -> None:
        self.after(self.world.limits.heartbeat / TICKS, self._tick)
        self.hub.tick(self.clock.now)
        self.flush()

    # -- turns

    def wake(self) -> None:
        """There is something for the end of this turn."""
        if not self._scheduled and self.running:
            self._scheduled = True
            self.after(TURN, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send all that this turn decided."""
        if not self.running:
            return
        hub = self.hub
        if self.disk is not None:
            self.disk.turn()
        self._send_up()
        if hub.flush():
            self.wake()
        if hub.intake.holding and not self._releasing:
            self._releasing = True
            self.after(RELEASE, self._release)
        self._publish()
        out = hub.take_out()
        if out:
            self._send(out)
        for note in hub.take_notes():
            self.world.noted(note)
        if hub.authority._verdicts:
            hub.authority.take_verdicts()

    def _send_up(self) -> None:
        if self.up is not None:
            self.up.send()
            if self.up.link.settled:
                self.safe = self.clock.count

    def _publish(self) -> None:
        for listener, frame in self.hub.take_pub():
            for connection in self.connections.values():
                if connection.listener is listener:
                    connection.publish(frame)

    def _release(self) -> None:
        self._releasing = False
        self.hub.intake.release(self.clock.now)
        self.flush()

    def _send(self, out: list[tuple[Listener, bytes, bytes]]) -> None:
        refused: dict[tuple[int, bytes], int] = {}
        for listener, route, frame in out:
            key = listener.number, route
            connection = self.connections.get(key)
            if key in refused or connection is None or not connection.down.send(frame):
                refused[key] = refused.get(key, 0) + (frame[1] != 0)
        for (number, route), count in refused.items():
            gone = (number, route) not in self.connections
            self.hub.unsent(self.hub.listeners[number], route, count, gone)
