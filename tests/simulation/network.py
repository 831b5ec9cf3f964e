"""The network between simulated processes: connections as TCP and ZeroMQ make them, and what can become of them.

A Connection is what one dialler has with one hub: a DEALER to a ROUTER (`up`, `down`) and later a SUB to a PUB (`pub`,
`subs`). Each of the four pipes keeps its order; between them there is none. A pipe delivers in order or not at all:
what is under way when a connection breaks is lost, but for a first part that has come already. A stalled pipe keeps
what is sent until it goes on, and takes no more than the high-water mark; then DEALER and ROUTER refuse, and PUB drops.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.clock import Clock, Process

if TYPE_CHECKING:
    from qulo.protocol.session import Listener
    from tests.simulation.dialler import Dialler
    from tests.simulation.hubs import HubNode

# Seconds that a frame takes: a little, and as much again by chance, so that pipes overtake each other.
FASTEST, SPREAD = 0.0005, 0.004


class Pipe:
    """One direction of one socket's connection."""

    __slots__ = (
        "_clock",
        "_due",
        "_queue",
        "_random",
        "_receive",
        "_scheduled",
        "closed",
        "delay",
        "limit",
        "lost",
        "stalled",
        "target",
    )

    def __init__(
        self, clock: Clock, random: Random, limit: int, target: Process, receive: Callable[[bytes], None]
    ) -> None:
        self.limit = limit
        self.target = target
        self.delay = 0.0  # seconds more
        self.stalled = 0  # by so many faults
        self.closed = False
        self.lost: float = 0.0  # the share of what a PUB drops now
        self._clock = clock
        self._random = random
        self._receive = receive
        self._queue: deque[tuple[float, bytes]] = deque()
        self._due = 0.0
        self._scheduled = False

    def send(self, data: bytes) -> bool:
        """False when it is full or closed: the socket refuses."""
        if self.closed or len(self._queue) >= self.limit:
            return False
        now = self._clock.now
        due = now + FASTEST + self.delay + SPREAD * self._random.random()
        self._due = max(self._due, due)
        self._queue.append((self._due, data))
        if not self._scheduled and not self.stalled:
            self._scheduled = True
            self._clock.after(self._due - now, None, self._arrive)
        return True

    def drop(self) -> bool:
        """Does a PUB drop the next frame?"""
        return self.lost > 0 and self._random.random() < self.lost

    def stall(self) -> None:
        """Nothing passes."""
        self.stalled += 1

    def go_on(self) -> None:
        """It passes again."""
        self.stalled -= 1
        self.kick()

    def kick(self) -> None:
        """See to it that what waits arrives."""
        if self._queue and not self._scheduled and not self.stalled and not self.closed:
            self._scheduled = True
            self._clock.after(max(0.0, self._queue[0][0] - self._clock.now), None, self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        queue, now, receive = self._queue, self._clock.now, self._receive
        while queue and queue[0][0] <= now:
            if self.stalled or self.closed:
                return
            if self.target.frozen:
                self.target.is_stuck(self)
                return
            receive(queue.popleft()[1])
        if queue and not self._scheduled and not self.closed and not self.stalled:
            self._scheduled = True
            self._clock.after(queue[0][0] - now, None, self._arrive)

    def close(self, come: int = 0) -> None:
        """The connection is gone; the first `come` frames have still come."""
        if not self.stalled and not self.target.frozen and self.target.running:
            for _ in range(min(come, len(self._queue))):
                if not self.closed:
                    self._receive(self._queue.popleft()[1])
        self.closed = True
        self._queue.clear()

    def __len__(self) -> int:
        return len(self._queue)


class Connection:
    """What a dialler has with a hub. The hub's side of it is gone when `gone`, which a ROUTER learns when it sends."""

    def __init__(self, network: Network, dialler: Dialler, hub: HubNode, listener: Listener, number: int) -> None:
        self.dialler = dialler
        self.hub = hub
        self.listener = listener
        self.route = number.to_bytes(5, "big")
        self.user = f"{dialler.principal}#{2 * number}"
        self.sub_user = f"{dialler.principal}#{2 * number + 1}"  # a connection of its own, of the same principal
        self.alive = True
        self.has_sub = False
        self.installed: dict[bytes, None] = {}
        self.prefixes: tuple[bytes, ...] = ()
        self.wanted: Counter[bytes] = Counter()
        make = partial(Pipe, network.clock, network.random, network.high_water)
        self.up: Pipe = make(hub, partial(hub.received, self))
        self.down: Pipe = make(dialler.process, partial(dialler.received, self))
        self.pub: Pipe = make(dialler.process, partial(dialler.pub_received, self))
        self.subs: Pipe = make(hub, partial(hub.subscribed, self))
        self.pipes = (self.up, self.down, self.pub, self.subs)
        if dialler.process is not hub and network.is_cut(dialler.process.name, hub.name):
            for pipe in self.pipes:
                pipe.stall()

    def publish(self, data: bytes) -> None:
        """What an XPUB does: to whom it may go it goes, unless there is no room."""
        if self.has_sub and data.startswith(self.prefixes) and not self.pub.drop():
            self.pub.send(data)

    def install(self, prefix: bytes) -> None:
        """The XPUB sends what begins with this from now on."""
        self.installed[prefix] = None
        self.prefixes = tuple(self.installed)

    def uninstall(self, prefix: bytes) -> None:
        """And no more."""
        self.installed.pop(prefix, None)
        self.prefixes = tuple(self.installed)

    def close(self, random: Random | None = None) -> None:
        """Both connections are gone; with `random`, by chance some of what was under way has come."""
        if not self.alive:
            return
        self.alive = False
        for pipe in self.pipes:
            come = random.randrange(len(pipe) + 1) if random is not None and len(pipe) else 0
            pipe.close(come)
        self.hub.hung_up(self)


class Network:
    """Who can reach whom."""

    def __init__(self, clock: Clock, random: Random, high_water: int) -> None:
        self.clock = clock
        self.random = random
        self.high_water = high_water
        self.connections: dict[int, Connection] = {}  # by number, those that are alive
        self._made = 0
        self._cut: Counter[frozenset[str]] = Counter()

    def connect(self, dialler: Dialler, hub: HubNode, listener: Listener) -> Connection:
        """A DEALER connects."""
        self._made += 1
        connection = Connection(self, dialler, hub, listener, self._made)
        self.connections[self._made] = connection
        hub.accept(connection)
        return connection

    def tidy(self) -> None:
        """Forget connections that are gone."""
        self.connections = {number: each for number, each in self.connections.items() if each.alive}

    def living(self) -> list[Connection]:
        """All that are there."""
        self.tidy()
        return list(self.connections.values())

    def is_cut(self, one: str, other: str) -> bool:
        """Does nothing pass between the two hosts?"""
        return self._cut[frozenset((one, other))] > 0

    def cut(self, one: str, other: str) -> None:
        """From now on nothing passes between two hosts."""
        self._cut[frozenset((one, other))] += 1
        for connection in self._between(one, other):
            for pipe in connection.pipes:
                pipe.stall()

    def mend(self, one: str, other: str) -> None:
        """What was sent meanwhile comes, where the connection is still there."""
        self._cut[frozenset((one, other))] -= 1
        for connection in self._between(one, other):
            for pipe in connection.pipes:
                pipe.go_on()

    def _between(self, one: str, other: str) -> list[Connection]:
        ends = {one, other}
        return [each for each in self.living() if {each.dialler.process.name, each.hub.name} == ends]
