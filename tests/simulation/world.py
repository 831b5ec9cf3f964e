"""A site made of one seed: its processes, its network, its clock, and the record of what happened.

The seed chooses the topology, the limits, what programs do and what breaks. `run` plays it and lets it heal;
`safety.check` and `liveness.check` read what came of it. Nothing random comes from anywhere else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from qulo.protocol.ports import Limits, Note
from qulo.protocol.storage import Stream
from tests.simulation.clock import Clock
from tests.simulation.coverage import Coverage
from tests.simulation.faults import HARD, SOFT, STORE, Faults
from tests.simulation.hubs import HubNode
from tests.simulation.network import Network
from tests.simulation.programs import Program
from tests.simulation.record import Asked, Delivery, Message, Put, Subscribed
from tests.simulation.rest import unrest
from tests.simulation.workload import PASSING, QUESTION, WORK, Workload

# Operations of a seed, at least and at most, and its faults.
OPERATIONS, FAULTS = (100, 102), (3, 8)

# Operations after the last fault, so that one for which there is nothing to break yet can still happen.
LAST = 10

# How often the way to a master that has just come back is cut again at once.
FLAPS = 0.15

# Bytes: a dozen runs.
SMALL_WINDOW = 3000

# Seconds that a session outlasts where none is to end: longer than all that breaks, short enough to be waited for.
LONG = 40.0

# Seconds after the last fault within which everything is to be as it should be.
PATIENCE = 90.0

# Seconds between two looks whether that is so.
LOOK = 0.5

STREAMS = (
    Stream("ORDERS", ("orders.>",), "work", dedupe_ms=600_000, max_tries=4),
    Stream("LOG", ("log.*",), "limits", dedupe_ms=600_000, max_tries=0),
    Stream("STATE", ("state.*",), "limits", per_topic=1, dedupe_ms=600_000, max_tries=0),
)


class World:
    """One seed."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = Clock()
        self.coverage = Coverage()
        self.tracing = trace is not None
        self._trace = trace
        self._decide()
        self.network = Network(self.clock, self.random, self.limits.high_water)
        # The record.
        self.messages: list[Message] = []
        self.subscribed: list[Subscribed] = []
        self.asked: list[Asked] = []
        self.puts: list[Put] = []
        self.deliveries: list[Delivery] = []
        self.agents_died: dict[str, int] = {}
        """By program, the last moment at which an agent on its way up was killed."""
        self.last_given: dict[tuple[str, str, int], int] = {}
        """By stream, group and number, when the master last gave it to somebody."""
        self.requeued: Counter[str] = Counter()
        """By body, how often its dead letter was given back."""
        self.given_back: list[tuple[int, str]] = []
        """The same in order, each with its moment."""
        self.requeued_for: dict[tuple[str, int], str] = {}
        """By stream and number, the group that what was given back is for."""
        self.notes: list[Note] = []
        self.operations = 0
        self.healed = False
        self.rested: float | None = None
        """Seconds from the last fault until everything was as it should be; None: it never was."""
        self.hubs: list[HubNode] = []
        self.programs: list[Program] = []
        self.ended: list[Program] = []
        self.workload = Workload(self)
        self.faults = Faults(self, self.kinds)
        self._build()

    @property
    def now(self) -> float:
        """Seconds."""
        return self.clock.now

    def say(self, text: str) -> None:
        """For whoever reads the trace."""
        if self._trace is not None:
            self._trace(f"{self.clock.now - 1000:9.4f} {self.clock.count:6} {text}")

    def noted(self, note: Note) -> None:
        """What an operator would read."""
        if self.tracing:
            self.say(f"[{note.level}] {note.text}")

    def given(self, stream: str, group: str, seq: int) -> None:
        """The master gives a message to a consumer."""
        self.last_given[stream, group, seq] = self.clock.count

    # -- the seed's choices

    def _decide(self) -> None:
        """Each seed takes part of what there is, so that rare things meet."""
        chance = self.random
        self.with_streams = chance.random() < 0.6
        self.soft = chance.random() < 0.3
        """No process dies and no session ends: then nothing may be lost, and nothing but the usual gaps be told."""
        self.large = chance.random() < 0.3
        self.master_is_host = chance.random() < 0.3
        kinds = list(SOFT if self.soft else SOFT + HARD)
        if self.with_streams:
            kinds += STORE if not self.soft else STORE[:1]
        self.kinds = chance.sample(kinds, min(len(kinds), chance.randrange(2, 7)))
        small = not self.soft and chance.random() < 0.3
        self.limits = Limits(
            high_water=chance.choice((1000, 1000, 40)),
            link_buffer=chance.choice((4 << 20, 20_000)) if not self.soft else 4 << 20,
            replay_window=SMALL_WINDOW if small else 1 << 24,
            heartbeat=2.0,
            session_timeout=LONG if self.soft else chance.choice((7.0, 15.0)),
            slow_after=2.0,
        )

    def _build(self) -> None:
        master = self._hub("master", None)
        one = self._hub("one", master)
        homes = [(master, False), (one, True)]
        shape = self.random.choice(("one agent", "one agent", "two agents", "chain"))
        if shape != "one agent":
            homes.append((self._hub("two", one if shape == "chain" else master), True))
        homes += [self.random.choice([*homes, (master, True)]) for _ in range(self.random.randrange(2))]
        self.homes = homes
        for hub, local in homes:
            self.start_program(hub, local)
        streams = master.hub.streams
        if streams is not None:
            passing = Stream(PASSING, ("passing.>",), "work")
            for stream in (*STREAMS, passing):
                streams.add(stream, lambda error: None, self.now)
            master.wake()

    def _hub(self, name: str, master: HubNode | None) -> HubNode:
        hub = HubNode(self, name, master)
        self.hubs.append(hub)
        return hub

    def start_program(self, hub: HubNode, local: bool) -> Program:
        """One more program."""
        program = Program(self, f"p{len(self.programs) + len(self.ended)}", hub, local)
        self.programs.append(program)
        return program

    def end_program(self, program: Program, kill: bool) -> None:
        """It goes, and another one comes in its place."""
        self.programs.remove(program)
        self.ended.append(program)
        if kill:
            program.kill()
        else:
            program.leave()
        successor = self.start_program(program.hub, program.local)
        if program.members:
            successor.join(WORK, "workers")
        if program.responders:
            successor.serve(QUESTION)

    # -- playing

    def run(self) -> None:
        """Everything, until it is at rest or should have been."""
        chance = self.random
        self.clock.run(self.now + 0.5)
        self.workload.begin()
        self.clock.run(self.now + 0.5)
        count = chance.randrange(*OPERATIONS)
        due = sorted(chance.randrange(count - LAST) for _ in range(chance.randrange(*FAULTS)))
        for number in range(count):
            while due and due[0] <= number and self.faults.happen():
                due.pop(0)
            self.workload.do()
            self.operations += 1
            self.clock.run(self.now + chance.choice((0.0, 0.0, 0.001, 0.02, 0.1, 0.3)))
        self.healed = True
        self.faults.heal()
        self.workload.end()
        self._rest()

    def _rest(self) -> None:
        began = self.now
        while self.now < began + PATIENCE:
            self.clock.run(self.now + LOOK)
            if not unrest(self):
                self.rested = self.now - began
                return

    # -- what happens to processes

    def kill(self, hub: HubNode, seconds: float) -> None:
        """A hub dies, and is started again."""
        if not hub.running:
            return
        self.say(f"{hub.name} is killed")
        self.uncertain(hub)
        hub.kill()
        hub.restart_after(seconds)

    def stopped(self, hub: HubNode) -> None:
        """It has drained, or could not in time."""
        self.kill(hub, 0.1)

    def store_failed(self, hub: HubNode, why: str) -> None:
        """The daemon ends, as it must, and is started again."""
        self.say(f"{hub.name}: the store failed: {why}")
        hub.after(0.05, lambda: self.kill(hub, 0.5))

    def below(self, hub: HubNode) -> list[Program]:
        """Programs whose way to the master goes by this agent."""
        if hub.master is None:
            return []
        return [p for p in (*self.programs, *self.ended) if hub in (p.hub, p.hub.master)]

    def uncertain(self, hub: HubNode) -> None:
        """Nobody can say what becomes of what this hub had and had not passed on."""
        for program in self.programs:
            if program.hub is hub:
                for message in program.unsettled:
                    message.certain = False
        below = self.below(hub)
        self.agents_died |= {program.name: self.clock.count for program in below}
        if hub.up is None or hub.up.link.settled:
            return
        names = {program.name for program in below}
        for message in self.messages:
            if message.program.name in names:
                direct = message.program.hub is hub
                safe = direct and message.acked is not None and message.acked <= hub.safe
                message.certain &= safe

    def welcomed(self, agent: HubNode) -> None:
        """An agent has a session with its master."""
        if self.healed:
            return
        if self.with_streams and self.random.random() < 0.5:
            self.workload.put_when_back(agent)
        if self.random.random() < FLAPS:
            self.faults.cut_again(agent)
