"""What can break, one function each. What lasts ends by itself after a while, and all of it with `heal`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.clock import Process
from tests.simulation.hubs import HubNode
from tests.simulation.network import Connection, Pipe

if TYPE_CHECKING:
    from tests.simulation.world import World

# Nothing may be lost by these; those after that end processes or sessions; the last ones are a disk's.
SOFT = ("cut", "cut_sub", "half_open", "partition", "slow", "pub_drop", "refuse", "stop", "rebind", "rekey")
HARD = ("kill_master", "kill_agent", "kill_program", "expire", "garbage", "drain")
STORE = ("disk_slow", "disk_error", "disk_full", "clock_jump")
KINDS = SOFT + HARD + STORE

# Seconds until TCP sends nothing new to whom no ACK comes from.
NO_ACK = 1.0

# Seconds within which something happens that is to meet what a reconnection begins.
AT_ONCE = 0.02

# Seconds that something lasts.
LASTING = (0.05, 0.3, 1.0, 3.0, 8.0)


class Faults:
    """The faults of one world."""

    def __init__(self, world: World, kinds: list[str]) -> None:
        self.world = world
        self.kinds = kinds
        self.happened = 0
        self._ends: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._kinds: dict[str, Callable[[], bool]] = {kind: getattr(self, f"_{kind}") for kind in KINDS}

    def happen(self) -> bool:
        """One of the seed's kinds; if there is nothing for it now, another one. False: nothing can break now."""
        kinds = self.world.random.sample(self.kinds, len(self.kinds))
        for kind in kinds:
            if self._kinds[kind]():
                self.happened += 1
                self.world.coverage.fault(kind)
                self.world.say(f"fault {kind}")
                return True
        return False

    def heal(self) -> None:
        """No more of it."""
        self.world.say("no more faults")
        for end in list(self._ends.values()):
            end()

    def _for_a_while(self, end: Callable[[], None]) -> None:
        self._number += 1
        number = self._number

        def over() -> None:
            if self._ends.pop(number, None) is not None:
                end()

        self._ends[number] = over
        self.world.clock.after(self.world.random.choice(LASTING), None, over)

    def _connection(self) -> Connection | None:
        living = self.world.network.living()
        return self.world.random.choice(living) if living else None

    # -- connections

    def cut_again(self, agent: HubNode) -> None:
        """The way up of an agent breaks a moment from now, while it sends what has waited."""

        def cut() -> None:
            connection = agent.up.connection if agent.up is not None else None
            if connection is not None:
                self.world.coverage.fault("cut")
                self.world.say(f"fault cut of {agent.name}, just when it is back")
                connection.hub.break_(connection)

        agent.after(AT_ONCE * self.world.random.random(), cut)

    def _cut(self) -> bool:
        """The DEALER's connection breaks, and its dialler is told."""
        connection = self._connection()
        if connection is None:
            return False
        connection.hub.break_(connection)
        return True

    def _cut_sub(self) -> bool:
        """The SUB's breaks; the ROUTER hears of it when the dialler closes the other one."""
        connection = self._connection()
        if connection is None or not connection.has_sub:
            return False
        for pipe in (connection.pub, connection.subs):
            pipe.close(self.world.random.randrange(len(pipe) + 1))
        connection.dialler.lost(connection)
        return True

    def _half_open(self) -> bool:
        """One direction falls silent for good, and nobody is told.

        The other one gets no ACKs of its own any more, and TCP sends nothing new after its first timeout.
        """
        connection = self._connection()
        if connection is None:
            return False
        dealer, sub = connection.pipes[:2], connection.pipes[2:]
        one, other = self.world.random.choice((dealer, dealer[::-1], sub, sub[::-1]))
        one.stall()
        self.world.clock.after(NO_ACK, None, other.stall)
        return True

    def _partition(self) -> bool:
        """Nothing passes between two hosts."""
        pairs = [(hub.name, hub.master.name) for hub in self.world.hubs if hub.master is not None]
        pairs += [(p.name, p.hub.name) for p in self.world.programs if not p.local]
        one, other = self.world.random.choice(pairs)
        self.world.network.cut(one, other)
        self._for_a_while(partial(self.world.network.mend, one, other))
        return True

    def _slow(self) -> bool:
        """One direction takes its time."""
        connection = self._connection()
        if connection is None:
            return False
        pipe = self.world.random.choice(connection.pipes)
        pipe.delay = self.world.random.choice((0.05, 0.4))
        self._for_a_while(partial(setattr, pipe, "delay", 0.0))
        return True

    def _pub_drop(self) -> bool:
        """A PUB's high-water mark is reached, for one peer: frames are dropped, heartbeats among them."""
        connection = self._connection()
        if connection is None or not connection.has_sub:
            return False
        pipe = connection.pub
        pipe.lost = self.world.random.choice((0.2, 0.5, 1.0))
        self._for_a_while(partial(setattr, pipe, "lost", 0.0))
        return True

    def _refuse(self) -> bool:
        """A DEALER's or ROUTER's high-water mark is reached."""
        connection = self._connection()
        if connection is None:
            return False
        pipe: Pipe = self.world.random.choice((connection.up, connection.down))
        before, pipe.limit = pipe.limit, 0
        self._for_a_while(partial(setattr, pipe, "limit", before))
        return True

    # -- processes

    def _stop(self) -> bool:
        """SIGSTOP, then SIGCONT."""
        processes: list[Process] = [*self.world.hubs, *self.world.programs]
        process = self.world.random.choice([each for each in processes if each.running] or [processes[-1]])
        if not process.running or process.frozen:
            return False
        process.freeze()
        self._for_a_while(process.thaw)
        return True

    def _kill_master(self) -> bool:
        return self._kill(self.world.hubs[0])

    def _kill_agent(self) -> bool:
        return self._kill(self.world.random.choice(self.world.hubs[1:]))

    def _kill(self, hub: HubNode) -> bool:
        if not hub.running:
            return False
        self.world.kill(hub, self.world.random.choice((0.05, 0.5, 3.0, 10.0)))
        return True

    def _kill_program(self) -> bool:
        program = self.world.random.choice(self.world.programs)
        self.world.say(f"{program.name} is killed")
        self.world.end_program(program, kill=True)
        return True

    def _drain(self) -> bool:
        """An operator restarts a hub in order."""
        hub = self.world.random.choice(self.world.hubs)
        if not hub.running or hub.frozen:
            return False
        hub.drain()
        return True

    # -- hubs

    def _hub(self) -> HubNode | None:
        running = [hub for hub in self.world.hubs if hub.running and not hub.frozen]
        return self.world.random.choice(running) if running else None

    def _rebind(self) -> bool:
        """Rules have changed: every PUB is closed and bound anew."""
        hub = self._hub()
        if hub is None:
            return False
        hub.rebind(both=False)
        return True

    def _rekey(self) -> bool:
        """The hub has another key now: the sockets that need one are bound anew."""
        hub = self._hub()
        if hub is None:
            return False
        hub.rebind(both=True)
        return True

    def _expire(self) -> bool:
        """A hub forgets a session, as after a long silence."""
        hub = self._hub()
        sessions = list(hub.hub.sessions.values()) if hub is not None else []
        if hub is None or not sessions:
            return False
        session = self.world.random.choice(sessions)
        self.world.say(f"{hub.name} forgets {session.name}")
        hub.hub.end(session, "expired", self.world.now)
        hub.wake()
        return True

    def _garbage(self) -> bool:
        """A peer sends what is not the protocol."""
        connection = self._connection()
        if connection is None:
            return False
        chance = self.world.random
        connection.up.send(
            chance.choice((b"", chance.randbytes(9), b"\x93\xcd\x7f\xff\x00\x90", b"\x93\x00\x00\x91\x91\x63"))
        )
        return True

    # -- disks

    def _disk(self) -> HubNode | None:
        running = [hub for hub in self.world.hubs if hub.running and hub.disk is not None]
        return self.world.random.choice(running) if running else None

    def _disk_slow(self) -> bool:
        hub = self._disk()
        if hub is None or hub.disk is None:
            return False
        hub.disk.slow = True
        self._for_a_while(partial(setattr, hub.disk, "slow", False))
        return True

    def _disk_error(self) -> bool:
        """EIO: the next batch fails."""
        hub = self._disk()
        if hub is None or hub.disk is None:
            return False
        hub.disk.eio = True
        self._for_a_while(partial(setattr, hub.disk, "eio", False))
        return True

    def _disk_full(self) -> bool:
        """No room for anything new."""
        hub = self._disk()
        if hub is None or hub.disk is None:
            return False
        hub.disk.fill()
        self._for_a_while(hub.disk.make_room)
        return True

    def _clock_jump(self) -> bool:
        """Somebody sets the clock."""
        hub = self._hub()
        if hub is None:
            return False
        hub.offset_ms += self.world.random.choice((-5000, -300, 300, 5000))
        return True
