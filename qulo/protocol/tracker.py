"""One subscription at its subscriber: what has come, what must have been missed, what waits for repair.

The hub numbers every message; each run names `prev`, the last number before it on its topic. A run whose `prev`
is higher than what the tracker has on that topic follows a gap. Every heartbeat of the hub tells, per
subscription, how many messages matched up to a number `at`: when the tracker has counted the same, everything up
to `at` is verified; when it has counted fewer, the tail was lost. Counting is exact where comparing the last
number is not: a loss in the middle, on a topic that stays silent, changes the count only.

While a repair is under way all runs of the subscription wait, bounded; what does not fit is repaired later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# Runs that may wait for a repair: bytes of bodies. Beyond it newer runs are left to the next repair.
HOLD_LIMIT = 16 * 1024 * 1024

# Newer numbers by topic that a repair request names; with more, the hub repeats what came since `verified`.
NEWER_LIMIT = 1000

Run = tuple[str, int, list[bytes], bytes, int]  # topic, kind, bodies, origin, number of the first message


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that were missed and cannot be had any more.

    `first` and `last` are the hub's numbers (other topics' messages are among them), None where unknown.
    `reason`: `window` (they fell out of the replay window), `restart` (the hub lost its memory), `overflow`
    (a bounded buffer was full: this program was too slow, or an agent was cut off for too long).
    """

    pattern: str
    epoch: int
    first: int | None
    last: int | None
    reason: str


class State(Enum):
    """Where a subscription is; TRANSITIONS is the whole story."""

    ASKED = "asked"  # SUBSCRIBE is under way, or there is no hub
    LIVE = "live"  # runs are delivered as they come
    REPAIRING = "repairing"  # runs wait until the hub has sent what was missed
    CLOSED = "closed"


TRANSITIONS: dict[tuple[State, str], State] = {
    (State.ASKED, "ready"): State.LIVE,
    (State.ASKED, "ready, resuming"): State.REPAIRING,
    (State.LIVE, "ready, resuming"): State.REPAIRING,  # the hub began to serve it anew
    (State.REPAIRING, "ready, resuming"): State.REPAIRING,
    (State.LIVE, "gap"): State.REPAIRING,
    (State.REPAIRING, "repaired"): State.LIVE,
    (State.LIVE, "disconnected"): State.ASKED,
    (State.REPAIRING, "disconnected"): State.ASKED,
    (State.ASKED, "disconnected"): State.ASKED,
    (State.ASKED, "close"): State.CLOSED,
    (State.LIVE, "close"): State.CLOSED,
    (State.REPAIRING, "close"): State.CLOSED,
}

Item = Run | Gap


@dataclass(slots=True, eq=False)
class Tracker:
    """The state of one subscription. Methods append what the subscriber gets, in order, to `out`."""

    sid: int
    pattern: str
    group: str | None = None
    state: State = State.ASKED
    epoch: int = 0
    verified: int = 0  # everything up to this number has come, or was reported missed
    count: int = 0  # the hub's count, as far as has come
    newest: int = 0  # highest number that has come
    last: dict[str, int] = field(default_factory=dict)  # by topic, where newer than `verified`
    confirmed: bool = False  # was it ever ready?
    missed_more: bool = False
    held: list[tuple[int, Run]] = field(default_factory=list)
    held_size: int = 0
    gaps: int = 0
    repairs: int = 0
    context: Any = None  # whatever the owner of the link keeps with it

    def step(self, event: str) -> None:
        """Move along TRANSITIONS; an event that is not in the table is a bug, hence KeyError."""
        self.state = TRANSITIONS[self.state, event]

    def ready(self, epoch: int, at: int, count: int, out: list[Item]) -> bool:
        """The hub serves this subscription for every number after `at`; True when the caller must `resume`."""
        if self.confirmed and epoch == self.epoch:
            self.step("ready, resuming")
            return True
        if self.confirmed:
            first = max(self.verified, self.newest) + 1
            self._gap(Gap(self.pattern, self.epoch, first, None, "restart"), out)
        self.epoch, self.verified, self.count, self.newest = epoch, at, count, at
        self.last.clear()
        self.confirmed = True
        self.step("ready")
        return False

    def disconnected(self) -> None:
        """The connection is gone; what waits would be sent again."""
        self.step("disconnected")
        self._drop_held()
        self.missed_more = False

    def take(self, prev: int, run: Run, out: list[Item]) -> bool:
        """A run has come; True when it shows a gap, so that the caller must ask for a repair (`resume`)."""
        topic = run[0]
        end = run[4] + len(run[2]) - 1
        if self.state is not State.LIVE:
            if self.state is State.REPAIRING:
                self._hold(prev, run)
            return False
        known = self.last.get(topic, self.verified)
        if end <= known:
            return False
        if prev > known:
            self.start_repair()
            self._hold(prev, run)
            return True
        self.last[topic] = end
        self.count += len(run[2])
        self.newest = max(self.newest, end)
        out.append(run)
        return False

    def start_repair(self) -> None:
        """Runs wait from now on; the caller asks the hub with `resume`."""
        self.step("gap")
        self.repairs += 1

    def resume(self) -> tuple[int, dict[str, int]]:
        """What to name in a repair request: the verified number, and newer ones by topic."""
        self.prune()
        return self.verified, (dict(self.last) if len(self.last) <= NEWER_LIMIT else {})

    def prune(self) -> None:
        """Forget numbers that `verified` covers."""
        verified = self.verified
        self.last = {topic: end for topic, end in self.last.items() if end > verified}

    def repair(self, run: Run, out: list[Item]) -> None:
        """A run that the hub sent again."""
        topic, end = run[0], run[4] + len(run[2]) - 1
        if self.state is State.ASKED or end <= self.last.get(topic, self.verified):
            return
        self.last[topic] = end
        self.count += len(run[2])  # of an earlier request, when LIVE again
        self.newest = max(self.newest, end)
        out.append(run)

    def repaired(self, at: int, count: int, out: list[Item]) -> bool:
        """All that could be had up to `at` has come; True when yet more was missed meanwhile."""
        if self.state is not State.REPAIRING:
            return False
        self.verified, self.count = at, count
        self.newest = max(self.newest, at)
        self.last.clear()
        held, again = self.held, self.missed_more
        self._drop_held()
        self.missed_more = False
        self.step("repaired")
        for prev, run in held:
            if self.take(prev, run, out):
                return True  # the rest comes with the next repair
        if again:
            self.start_repair()
        return again

    def told(self, at: int, count: int) -> bool:
        """The hub says that `count` messages matched up to `at`; True when some are missing (see `resume`).

        Only comparable while nothing newer has come: with two paths (PUB and ROUTER) one can be ahead.
        """
        if self.state is not State.LIVE or at < self.verified or self.newest > at:
            return False
        if self.count == count:
            self.verified = self.newest = at
            self.last.clear()
            return False
        self.start_repair()
        return True

    def pass_gap(self, gap: Gap, out: list[Item]) -> None:
        """A gap that happened further up, or between here and the program."""
        self._gap(gap, out)

    def _gap(self, gap: Gap, out: list[Item]) -> None:
        self.gaps += 1
        out.append(gap)

    def _hold(self, prev: int, run: Run) -> None:
        size = sum(map(len, run[2])) + 64
        if self.missed_more or self.held_size + size > HOLD_LIMIT:
            self.missed_more = True
            return
        self.held.append((prev, run))
        self.held_size += size

    def _drop_held(self) -> None:
        self.held, self.held_size = [], 0
