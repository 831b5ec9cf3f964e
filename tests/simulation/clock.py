"""Simulated time: one queue of what will happen, and the processes that it happens to.

    clock.after(0.5, process, call)      call() in half a second, if that life of the process lasts so long
    clock.run(until)                     everything up to then, in order

Never looks at a real clock. Two things at the same time happen in the order in which they were planned, so that a seed
is a world.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.network import Pipe

# What the monotonic clock of everybody starts with: not 0, which the core takes for "never".
BEGINNING = 1000.0

# The wall clock at BEGINNING (ms since 1970).
WALL = 1_700_000_000_000

Call = Callable[[], object]


class Process:
    """Something that can be killed, stopped and continued. A subclass is a hub or a program."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name
        self.life = 0  # timers of an earlier one do nothing
        self.running = True
        self.frozen = False  # SIGSTOP
        self.offset_ms = WALL - int(BEGINNING * 1000)  # wall clock minus monotonic clock
        self._overdue: list[Call] = []  # timers that went off meanwhile
        self._stuck: list[Pipe] = []  # with something to read

    def after(self, seconds: float, call: Call) -> None:
        """A timer of this life."""
        self.clock.after(seconds, self, call)

    def end_life(self) -> None:
        """Its timers are gone with it."""
        self.life += 1
        self.running = self.frozen = False
        self._overdue.clear()
        self._stuck.clear()

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and its sockets fill up."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        if not self.frozen:
            return
        self.frozen = False
        overdue, self._overdue = self._overdue, []
        stuck, self._stuck = self._stuck, []
        for call in overdue:
            self.after(0.0, call)
        for pipe in stuck:
            pipe.kick()

    def is_stuck(self, pipe: Pipe) -> None:
        """There is something to read when it goes on."""
        self._stuck.append(pipe)


class Clock:
    """The one clock of a world."""

    def __init__(self) -> None:
        self.now = BEGINNING
        self.count = 0
        """Of what has happened: says what came first, also among things of the same time."""
        self.times = [BEGINNING]
        """By count, when that was."""
        self._planned = 0
        self._queue: list[tuple[float, int, Process | None, int, Call]] = []

    def after(self, seconds: float, process: Process | None, call: Call) -> None:
        """Plan something; for a process it does not happen in a later life of it."""
        self._planned += 1
        life = process.life if process is not None else 0
        heappush(self._queue, (self.now + seconds, self._planned, process, life, call))

    def run(self, until: float) -> None:
        """Let everything happen that is planned up to a time."""
        queue, times = self._queue, self.times
        while queue and queue[0][0] <= until:
            when, _, process, life, call = heappop(queue)
            self.now = max(self.now, when)
            if process is not None and process.life != life:
                continue
            self.count += 1
            times.append(self.now)
            if process is not None and process.frozen:
                process._overdue.append(call)
            else:
                call()
        self.now = max(self.now, until)
