"""The dialling end of a connection: drives a Link as `qulo.net.link` does, on simulated sockets and timers.

What that module's socket monitor would tell is told here by `lost`, after a moment. Decides nothing about messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qulo.errors import Disconnected, ProtocolError, QuloError, Refused
from qulo.net.link import DENIED_LAST_PAUSE, DENIED_PAUSE, FIRST_PAUSE, GREETING, LAST_PAUSE, SILENT_BEATS
from qulo.protocol import events
from qulo.protocol.events import Event
from qulo.protocol.link import Link, Phase
from qulo.protocol.tracker import Item, Tracker
from qulo.protocol.wire import session_key
from tests.simulation.clock import Process
from tests.simulation.network import Connection

if TYPE_CHECKING:
    from tests.simulation.hubs import HubNode
    from tests.simulation.world import World

# Seconds until a turn of a loop is over, until a monitor tells of a closed connection, and until nobody listens there.
TURN, NOTICED, REFUSED = 0.0002, 0.002, 0.001

Deliver = Callable[[list[Event], list[tuple[Tracker, Item]]], None]


class Dialler:
    """One link and its sockets. `deliver` gets what came, once per turn; `went_away` hears of the end of a session."""

    def __init__(
        self,
        world: World,
        ends: tuple[Process, HubNode],
        link: Link,
        deliver: Deliver,
        went_away: Callable[[], None],
        local: bool,
    ) -> None:
        """`ends` are the process that dials, and the hub."""
        self.world = world
        self.process, self.hub = ends
        self.link = link
        self.local = local
        self.principal = "uid:1000" if local else link.identity.name
        self.connection: Connection | None = None
        self.error: QuloError | None = None
        self._deliver = deliver
        self._went_away = went_away
        self._pause, self._denied = FIRST_PAUSE, DENIED_PAUSE
        self._heard = self._heard_pub = 0.0
        self._scheduled = False
        self._attempt = 0
        self._waits = False  # for the next attempt
        self.closed = False

    def start(self) -> None:
        """Dial now, and again whenever that is lost."""
        self._dial()

    def close(self) -> None:
        """Say BYE, and stop."""
        self.closed = True
        connection = self.connection
        if connection is not None and self.link.phase is Phase.UP:
            self.flush()
            connection.up.send(self.link.bye())
            self.process.clock.after(TURN + 0.01, None, connection.close)
        elif connection is not None:
            connection.close()
        self.connection = None

    def killed(self) -> None:
        """The process is gone, and its sockets with it."""
        self.closed = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close(self.world.random)

    # -- connecting

    def _dial(self) -> None:
        if self.closed:
            return
        self._attempt += 1
        self._waits = False
        self.error = None
        if not self.hub.running:
            self.process.after(REFUSED, lambda: self.fail(Disconnected("nobody listens there")))
            return
        self.connection = self.world.network.connect(self, self.hub, self.hub.listener(self.local))
        self._heard = self.world.now
        attempt = self._attempt
        self.process.after(GREETING, lambda: self._greeting_late(attempt))
        self.connection.up.send(self.link.hello(self.world.random.randbytes(8)))

    def _greeting_late(self, attempt: int) -> None:
        if attempt == self._attempt and self.link.phase is not Phase.UP and self.connection is not None:
            self.fail(Disconnected("no WELCOME"))

    def lost(self, connection: Connection) -> None:
        """A socket monitor tells that one of the two connections is gone."""
        self.process.after(NOTICED, lambda: self._noticed(connection))

    def _noticed(self, connection: Connection) -> None:
        if self.connection is connection:
            self.fail(Disconnected("the connection was closed"))

    def fail(self, error: QuloError) -> None:
        """Close both sockets, and dial again after a pause."""
        if self.closed or self._waits:
            return
        self._waits = True
        self.error = error
        self.world.coverage.error(error)
        was_up = self.link.phase is Phase.UP
        if self.world.tracing:
            self.world.say(f"{self.link.identity.name} has no connection: {error}")
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
        self._attempt += 1
        self.link.disconnected()
        if was_up:
            self._pause, self._denied = FIRST_PAUSE, DENIED_PAUSE
            self._went_away()
        wait = self._pause
        if isinstance(error, Refused):
            wait = self._denied
            self._denied = min(2 * self._denied, DENIED_LAST_PAUSE)
        self._pause = min(2 * self._pause, LAST_PAUSE)
        self.process.after(wait * self.world.random.uniform(0.5, 1.0), self._dial)

    # -- while connected

    def received(self, connection: Connection, data: bytes) -> None:
        """A frame at the DEALER."""
        if connection is not self.connection:
            return
        self._heard = self.world.now
        try:
            self.link.frame_received(data)
        except ProtocolError as error:
            self.fail(error)
        self.wake()

    def pub_received(self, connection: Connection, data: bytes) -> None:
        """A frame at the SUB."""
        if connection is not self.connection:
            return
        self._heard_pub = self.world.now
        try:
            self.link.pub_received(data)
        except ProtocolError as error:
            self.fail(error)
        self.wake()

    def wake(self) -> None:
        """There is something for the end of this turn."""
        if not self._scheduled:
            self._scheduled = True
            self.process.after(TURN, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Deliver what has come, send what is queued."""
        happened, items = self.link.take_events(), self.link.take_items()
        if happened or items:
            for event in happened:
                self._happened(event)
            self._deliver(happened, items)
        self.send()

    def send(self) -> None:
        """Send what is queued; what the socket refuses waits."""
        connection = self.connection
        if connection is None:
            return
        frames = self.link.take()
        for number, frame in enumerate(frames):
            if not connection.up.send(frame):
                self.link.channel.untake(sum(f[1] != 0 for f in frames[number:]))
                self.process.after(self.link.heartbeat / 10, self.wake)
                return

    def _happened(self, event: Event) -> None:
        kind = type(event)
        if kind is events.Dismissed:
            self.fail(event.error)  # type: ignore[union-attr]
        elif kind is events.Welcomed:
            self._welcomed(event)  # type: ignore[arg-type]
        elif kind is events.Pulsed:
            self.link.rtt = int(self.world.now * 1e6) - event.time  # type: ignore[union-attr]
        elif kind is events.Prefix:
            self._prefix(event.prefix, event.add)  # type: ignore[union-attr]

    def _welcomed(self, event: events.Welcomed) -> None:
        connection = self.connection
        if connection is None:
            return
        connection.has_sub = True
        self._prefix(session_key(event.token), True)
        self._heard_pub = self.world.now
        self._beat(self._attempt, self.world.now)

    def _prefix(self, prefix: bytes, add: bool) -> None:
        """A SUB tells its PUB of each subscription, and when the last one to a prefix is taken back."""
        connection = self.connection
        if connection is None:
            return
        connection.wanted[prefix] += 1 if add else -1
        if add:
            connection.subs.send(b"\x01" + prefix)
        elif not connection.wanted[prefix]:
            connection.subs.send(b"\x00" + prefix)

    def _beat(self, attempt: int, expected: float) -> None:
        if attempt != self._attempt or self.connection is None:
            return
        now, beat = self.world.now, self.link.heartbeat
        if now - expected > beat:
            self._heard = self._heard_pub = now
        silent = SILENT_BEATS * beat
        if now - self._heard > silent or now - self._heard_pub > silent:
            self.fail(Disconnected("nothing came"))
            return
        if self.link.phase is Phase.UP:
            self.send()
            self.connection.up.send(self.link.beat(int(now * 1e6)))
            self.wake()
        self.process.after(beat, lambda: self._beat(attempt, now + beat))
