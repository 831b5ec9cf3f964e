"""A site under a random schedule: who publishes and subscribes what, what breaks, and a record of what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from qulo.errors import Disconnected
from qulo.protocol import events
from qulo.protocol.events import Event
from qulo.protocol.link import Phase
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import Gap, Item, Tracker
from tests.unit.qulo.protocol.fake_link import PATHS, Connection, Program
from tests.unit.qulo.protocol.fake_net import Host, Net

TOPICS = ("a.b", "a.c", "a.b.c", "d", "local.x")
PATTERNS = (">", "a.>", "a.*", "a.b", "*.b", "a.b.c", "d", "*", "local.>", "a.*.c")
WORK = "jobs.x"
QUESTION = "svc.time"

# One that is never reached, and one at which lagging subscribers hold publishers back and PUB drops.
HIGH_WATERS = (1000, 40)

SMALL_WINDOW = 3000  # bytes: a dozen runs


@dataclass(slots=True)
class Message:
    """One published message."""

    program: str
    topic: str
    number: int
    step: int
    certain: bool = True  # False: a hub died, or dropped the session, before it was passed on

    @property
    def body(self) -> str:
        """What tells it from all others."""
        return f"{self.program}|{self.topic}|{self.number}"


@dataclass(slots=True, eq=False)
class Subscribed:
    """One subscription and what it got."""

    program: Actor
    tracker: Tracker
    ready: int | None = None  # the step at which it was confirmed
    closed: bool = False
    items: list[tuple[int, Item]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The messages, in order."""
        return [body.decode() for _, item in self.items if not isinstance(item, Gap) for body in item[2]]

    @property
    def gaps(self) -> list[tuple[int, Gap]]:
        """The gaps, each with the step at which it was reported."""
        return [(step, item) for step, item in self.items if isinstance(item, Gap)]


class Actor(Program):
    """A program that keeps a record by step."""

    world: World

    def deliver(self, happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
        """Note when it came."""
        super().deliver(happened, items)
        world = self.world
        for tracker, item in items:
            world.subscribed[self.name, tracker.sid].items.append((world.now, item))
        for event in happened:
            if isinstance(event, events.Ready):
                subscription = world.subscribed.get((self.name, event.sid))
                if subscription is not None and subscription.ready is None:
                    subscription.ready = world.now
            elif isinstance(event, events.Welcomed) and not event.resumed:
                world.uncertain([self.name])
        if self.link.settled:
            world.unsettled[self.name] = []


class World:
    """The site. `run` plays the schedule of its seed; the checker then reads `messages` and `subscribed`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hard = seed % 2 == 1  # hubs die, sessions expire, the window is small
        limits = Limits(
            high_water=self.random.choice(HIGH_WATERS),
            replay_window=self.random.choice((SMALL_WINDOW, 1 << 24)) if self.hard else 1 << 24,
            session_timeout=15.0 if self.hard else 1e6,
            slow_after=3.0,
        )
        self.net = Net(limits, seed, limits.high_water)
        self.now = 0
        self.messages: list[Message] = []
        self.subscribed: dict[tuple[str, int], Subscribed] = {}
        self.unsettled: dict[str, list[Message]] = {}
        self.asked: list[tuple[Actor, int]] = []
        self.agents_died: dict[str, int] = {}  # by program, the last step at which an agent on its way up did

        self.faults = 0
        self.trace: list[str] = []
        self._build()

    def _build(self) -> None:
        master = self.net.host("master")
        one = self.net.host("one", master)
        two = self.net.host("two", self.random.choice((master, one)))
        homes = [(master, True), (master, False), (one, True), (two, True), (two, True)]
        self.actors = [self._actor(f"p{number}", *home) for number, home in enumerate(homes)]
        self.net.settle()
        self.actors[0].respond = self.actors[3].respond = lambda call: b"now"
        self.members = [self.actors[1], self.actors[2], self.actors[4]]
        for actor in (self.actors[0], self.actors[3]):
            actor.link.respond(QUESTION)
            actor.turn()
        for actor in self.members:
            actor.link.join(WORK, "workers")
            actor.turn()
        self.net.settle()

    def _actor(self, name: str, host: Host, local: bool) -> Actor:
        actor = Actor(self.net, host, name, local)
        actor.world = self
        self.net.programs.append(actor)
        self.unsettled[name] = []
        return actor

    # -- the schedule

    def run(self, operations: int = 120) -> None:
        """Play, then let everything heal and come to rest."""
        deeds = [self.publish] * 8 + [self.subscribe] * 2 + [self.close, self.ask, self.pass_time, self.pass_time]
        faults = [self.cut, self.go_silent, self.lose, self.lose, self.pause, self.pause]
        if self.hard:
            faults += [self.restart, self.expire]
        for _ in range(operations):
            self.now += 1
            chosen = faults if self.random.random() < 0.08 else deeds
            self.faults += chosen is faults
            self.random.choice(chosen)()
            for _ in range(self.random.randrange(12)):
                self.net.step()
        self.heal()

    def heal(self) -> None:
        """No more faults; time passes."""
        self.now += 1
        for connection in self._connections():
            connection.paused.clear()
            connection.lose_pub = None
        self.net.advance(30)

    def _say(self, text: str) -> None:
        self.trace.append(f"{self.now}: {text}")

    def _connections(self) -> list[Connection]:
        return [d.connection for d in self.net.diallers if d.connection is not None]

    # -- deeds

    def publish(self) -> None:
        """One program publishes a few messages, each on a topic of its own."""
        actor = self.random.choice(self.actors)
        if actor.link.room < 1000 or (actor.link.phase is not Phase.UP and self.random.random() < 0.8):
            return
        for _ in range(self.random.choice((1, 1, 2, 5))):
            topic = self.random.choice((*TOPICS, WORK))
            if topic.startswith("local.") and not actor.local:
                continue
            message = Message(actor.name, topic, len(self.messages), self.now)
            self.messages.append(message)
            self.unsettled[actor.name].append(message)
            self._say(f"publish {message.body}")
            actor.link.publish(topic, 0, message.body.encode())
        actor.turn()

    def subscribe(self) -> None:
        """One program subscribes."""
        actor = self.random.choice(self.actors)
        pattern = self.random.choice(PATTERNS)
        if pattern.startswith("local.") and not actor.local:
            return
        self._say(f"{actor.name} subscribes {pattern}")
        tracker = actor.link.subscribe(pattern)
        actor.got[tracker] = []
        self.subscribed[actor.name, tracker.sid] = Subscribed(actor, tracker)
        actor.turn()

    def close(self) -> None:
        """A subscription ends."""
        still = [s for s in self.subscribed.values() if not s.closed]
        if still:
            subscription = self.random.choice(still)
            subscription.closed = True
            self._say(f"{subscription.program.name} closes {subscription.tracker.pattern}")
            subscription.program.link.close(subscription.tracker.sid)
            subscription.program.turn()

    def ask(self) -> None:
        """A request."""
        actor = self.random.choice(self.actors)
        self.asked.append((actor, actor.ask(QUESTION, ttl=3000)))

    def pass_time(self) -> None:
        """Some seconds, with everything that can be delivered delivered."""
        self.net.advance(self.random.choice((0.5, 1.0, 2.5)))

    # -- faults

    def _some(self) -> Connection | None:
        connections = self._connections()
        return self.random.choice(connections) if connections else None

    def cut(self) -> None:
        """A connection breaks, and its dialler is told."""
        connection = self._some()
        if connection is not None:
            self._say(f"cut {connection.user}")

            connection.dialler.fail(Disconnected("cut"))

    def go_silent(self) -> None:
        """A connection goes half-open."""
        connection = self._some()
        if connection is not None:
            self._say(f"silent {connection.user}")
            connection.silent = True

    def lose(self) -> None:
        """A connection loses some of its PUB frames, heartbeats among them."""
        connection = self._some()
        if connection is not None:
            self._say(f"lose {connection.user}")
            share, rng = self.random.choice((0.2, 0.5, 1.0)), self.random
            left = [self.random.randrange(1, 12)]

            def lose(data: bytes) -> bool:
                left[0] -= 1
                return left[0] > 0 and rng.random() < share

            connection.lose_pub = lose

    def pause(self) -> None:
        """One path of a connection stands still, or all of them go on."""
        connection = self._some()
        if connection is not None:
            if connection.paused:
                connection.paused.clear()
            else:
                connection.paused.add(self.random.choice(PATHS))
            self._say(f"pause {connection.user} {sorted(connection.paused)}")

    def restart(self) -> None:
        """A hub dies and starts again with nothing."""
        host = self.random.choice(self.net.hosts)
        self._say(f"restart {host.name}")
        self.uncertain([a.name for a in self.actors if a.target is host])
        below = [a.name for a in self.actors if host.up is not None and host in (a.target, a.target.master)]
        self.agents_died |= dict.fromkeys(below, self.now)
        if host.up is not None and not host.up.link.settled:
            for message in self.messages:  # an agent that dies takes what it had not passed on with it
                message.certain &= message.program not in below
        host.restart()

    def expire(self) -> None:
        """A hub forgets a session."""
        host = self.random.choice(self.net.hosts)
        sessions = list(host.hub.sessions.values())
        if sessions:
            session = self.random.choice(sessions)
            self._say(f"{host.name} forgets {session.name}")
            host.hub.end(session, "expired", self.net.now)
            host.flush()

    def uncertain(self, names: list[str]) -> None:
        """Nobody can say what became of these programs' unacknowledged messages."""
        for name in names:
            for message in self.unsettled[name]:
                message.certain = False
