"""What the programs of a world do, chosen by its seed. Each seed has weights of its own: rare mixes are common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qulo.protocol import wire
from qulo.protocol.link import Phase
from tests.simulation.record import Message, Put

if TYPE_CHECKING:
    from tests.simulation.hubs import HubNode
    from tests.simulation.programs import Program
    from tests.simulation.world import World

TOPICS = ("a.b", "a.c", "a.b.c", "d", "local.x")
PATTERNS = (">", "a.>", "a.*", "a.b", "*.b", "a.b.c", "d", "*", "local.>", "a.*.c", "orders.>", "log.*")
STORED_TOPICS = ("orders.new", "orders.old", "log.a", "log.b", "state.x", "passing.x")
WORK = "jobs.x"
QUESTION = "svc.time"
SECRET = "secret.x"  # noqa: S105 - a topic that nobody may use
NOWHERE = "nowhere.x"  # no stream stores it

# The groups of each stream, which are made before anything is put.
GROUPS = (("ORDERS", "billing"), ("ORDERS", "audit"), ("LOG", "readers"))

# A stream that comes and goes: nothing is promised about what is in it, but that it harms nobody else.
PASSING = "PASSING"
COMES_AND_GOES = (PASSING, "passing")

# Bytes of a large body: a dozen fill a small buffer.
LARGE = 1500

# Seconds of a lease: short, so that some end.
LEASES = (0.4, 1.0, 3.0)


class Workload:
    """The operations of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.random
        deeds: list[tuple[Callable[[], None], int]] = [
            (self.publish, 10),
            (self.subscribe, 3),
            (self.unsubscribe, 1),
            (self.ask, 2),
            (self.serve, 1),
            (self.retire, 1),
            (self.forbidden, 1),
            (self.leave, 1),
            (self.rotate, 1),
            (self.let_pass, 1),
        ]
        if world.with_streams:
            deeds += [
                (self.put, 12),
                (self.put_again, 3),
                (self.publish_stored, 3),
                (self.consume, 2),
                (self.stop_consuming, 1),
                (self.administer, 2),
            ]
        self._deeds = [deed for deed, _ in deeds]
        self._weights = [weight * chance.choice((0, 1, 1, 3)) for _, weight in deeds]
        self._weights[0] = self._weights[0] or 1

    @property
    def _program(self) -> Program:
        return self.world.random.choice(self.world.programs)

    def begin(self) -> None:
        """What there is from the start."""
        world = self.world
        chance = world.random
        world.programs[0].serve(QUESTION)
        for program in world.programs:
            if chance.random() < 0.6:
                program.join(WORK, "workers")
        for _ in range(chance.randrange(1, 4)):
            self.subscribe()
        if world.with_streams:
            self._staff()

    def _staff(self) -> None:
        """Somebody consumes for each group."""
        for stream, group in GROUPS:
            if not any(c.group == group and not c.closed for p in self.world.programs for c in p.consumers.values()):
                self._consume(self._program, stream, group, habits=False)

    def do(self) -> None:
        """One operation."""
        self.world.random.choices(self._deeds, self._weights)[0]()

    def end(self) -> None:
        """Whatever is left is to be finished: consumers that do nothing but work, and somebody who answers."""
        world = self.world
        for program in world.programs:
            for consumer in list(program.consumers.values()):
                consumer._habits = False
        if world.with_streams:
            self._staff()

    # -- publish and subscribe

    def _message(self, program: Program, topic: str, put: bool = False) -> Message:
        world = self.world
        message = Message(program, topic, len(world.messages), world.clock.count, put)
        if world.large and world.random.random() < 0.5:
            message.body += "|" + "x" * LARGE
        world.messages.append(message)
        return message

    def publish(self, topics: tuple[str, ...] = (*TOPICS, WORK)) -> None:
        """A few messages, each on a topic of its own."""
        world, program = self.world, self._program
        if program.link.phase is not Phase.UP and world.random.random() < 0.8:
            return
        for _ in range(world.random.choice((1, 1, 2, 5, 12))):
            if program.link.room <= 0:
                return  # a real one waits
            topic = world.random.choice(topics)
            if topic.startswith("local.") and not program.local:
                continue
            message = self._message(program, topic)
            if world.tracing:
                world.say(f"publish {message.body}")
            program.publish(topic, message)

    def publish_stored(self) -> None:
        """On the topics of streams."""
        self.publish(STORED_TOPICS)

    def subscribe(self) -> None:
        """One program subscribes."""
        world, program = self.world, self._program
        pattern = world.random.choice(PATTERNS)
        if pattern.startswith("local.") and not program.local:
            return
        world.say(f"{program.name} subscribes {pattern}")
        world.subscribed.append(program.subscribe(pattern))

    def unsubscribe(self) -> None:
        """A subscription ends."""
        world = self.world
        still = [s for s in world.subscribed if not s.closed]
        if still:
            subscribed = world.random.choice(still)
            world.say(f"{subscribed.program.name} closes {subscribed.tracker.pattern}")
            subscribed.program.unsubscribe(subscribed)

    def forbidden(self) -> None:
        """What nobody may do."""
        program = self._program
        what = self.world.random.randrange(4)
        if what == 0:
            program.subscribe(SECRET)
        elif what == 1 and program.link.room > 0:
            program.link.publish(SECRET, 0, b"?")
            program.dialler.wake()
        elif what == 2:
            self.world.asked.append(program.ask(SECRET, b"?", wire.RAW, False))
        elif self.world.with_streams:
            self._put(program, SECRET)

    # -- requests

    def ask(self) -> None:
        """A request: for one, for all, to the hosts, to a hub."""
        topic, many, kind, body = self.world.random.choice(
            (
                (QUESTION, False, wire.RAW, b"?"),
                (QUESTION, False, wire.RAW, b"?"),
                (QUESTION, True, wire.RAW, b"?"),
                ("svc.nobody", False, wire.RAW, b"?"),
                ("$qulo.ping", True, wire.RAW, b""),
                ("$qulo.list", False, wire.PACKED, wire.pack({})),
            )
        )
        self.world.asked.append(self._program.ask(topic, body, kind, many))

    def serve(self) -> None:
        """One more who answers."""
        program = self._program
        if len(program.responders) < 2:
            program.serve(QUESTION)

    def retire(self) -> None:
        """One less."""
        program = self._program
        if program.responders:
            program.retire()

    # -- processes

    def leave(self) -> None:
        """A program ends in order, and another one begins."""
        program = self._program
        self.world.say(f"{program.name} ends")
        self.world.end_program(program, kill=False)

    def rotate(self) -> None:
        """A hub tells what its next key will be."""
        hub = self.world.random.choice(self.world.hubs)
        if hub.running:
            hub.hub.announce_key(b"k" * 40, b"n" * 40)
            hub.wake()

    def let_pass(self) -> None:
        """Nothing, for a while."""
        self.world.clock.run(self.world.now + self.world.random.choice((0.5, 2.0)))

    # -- streams

    def put(self) -> None:
        """Some puts in a row."""
        world, program = self.world, self._program
        chance = world.random
        for _ in range(chance.choice((1, 1, 2, 4, 10))):
            self._put(program, chance.choice((*STORED_TOPICS, *STORED_TOPICS[:2], NOWHERE)))

    def _put(self, program: Program, topic: str) -> None:
        world = self.world
        chance = world.random
        if program.link.room <= 0:
            return  # a real one waits
        message = self._message(program, topic, put=True)
        message.certain = False  # until the put has returned
        named = message.body[:60] if chance.random() < 0.4 else None
        delay = chance.choice((0.3, 1.5)) if chance.random() < 0.1 else 0.0
        ttl = chance.choice((0.5, 5.0)) if chance.random() < 0.05 else 0.0
        self._send(Put(program, message, named, delay, ttl, chance.random() < 0.1, message.moment, world.now))

    def _send(self, put: Put) -> None:
        if self.world.tracing:
            self.world.say(f"{put.program.name} puts {put.body}")
        self.world.puts.append(put)
        put.program.put(put)

    def put_when_back(self, agent: HubNode) -> None:
        """An agent has its master back: just then its programs put, while it drains its spool."""
        chance = self.world.random
        programs = [program for program in self.world.programs if program.hub is agent]
        for program in programs:
            for _ in range(3):
                program.after(0.01 * chance.random(), partial(self._put, program, chance.choice(STORED_TOPICS[:2])))

    def put_again(self) -> None:
        """What has an id once more, by the same program or another one, whether it is stored or nobody knows."""
        world = self.world
        again = [p for p in world.puts[-30:] if p.id is not None and p.end is not None and not p.delay and not p.ttl]
        if again:
            put = world.random.choice(again)
            program = put.program if put.program.running else self._program
            if program.link.room <= 0:
                return
            self._send(Put(program, put.message, put.id, 0.0, 0.0, False, world.clock.count, world.now))

    def consume(self) -> None:
        """One more consumer."""
        stream, group = self.world.random.choice((*GROUPS, COMES_AND_GOES))
        program = self._program
        if len(program.consumers) < 3:
            self._consume(program, stream, group, habits=True)

    def _consume(self, program: Program, stream: str, group: str, habits: bool) -> None:
        chance = self.world.random
        program.consume(stream, group, chance.choice((1, 3, 20)), chance.choice(LEASES), habits)
        self.world.say(f"{program.name} consumes {stream} as {group}")

    def stop_consuming(self) -> None:
        """A consumer leaves in order."""
        consumers = [c for p in self.world.programs for c in p.consumers.values()]
        if consumers:
            self.world.random.choice(consumers).leave()

    def administer(self) -> None:
        """What an operator asks and does: look at streams and at dead letters, and give some of those back."""
        world, program = self.world, self._program
        verb, argument = world.random.choice(
            (
                ("ls", {}),
                ("info", {"stream": "ORDERS"}),
                ("read", {"stream": "LOG", "after": 0, "count": 5}),
                ("dead.ls", {"after": 0, "count": 10}),
                ("dead.requeue", {"number": world.random.randrange(1, 6)}),
                ("dead.requeue", {"number": world.random.randrange(1, 6)}),
                ("dead.show", {"number": world.random.randrange(1, 6)}),
                ("info", {"stream": "NONE"}),
                ("add", {"name": PASSING, "topics": ["passing.>"], "keep": "work"}),
                ("rm", {"stream": PASSING}),
                ("group.rm", {"stream": PASSING, "group": "passing"}),
                ("purge", {"stream": PASSING}),
                ("topics", {"stream": PASSING}),
            )
        )
        world.asked.append(program.ask(f"$qulo.stream.{verb}", wire.pack(argument), wire.PACKED, False))
