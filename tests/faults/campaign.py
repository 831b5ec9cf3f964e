"""The campaign: load, faults, an end in peace, and the judgement.

Producers on agents and at the master; two groups of two members, one of them slow; publishers, and subscribers, one of
them too slow. When enough was broken the producers finish what they have begun, the groups drain the stream, and the
checker gets everybody's history, with what is left in the stream (nothing) and in the dead letters.

Every fault of a daemon makes it uncertain for a while who holds what, so there are calm times in between, in which
nothing breaks that a program may notice: in these it is judged that no message has two holders, and that nothing comes
after its acknowledgement.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import qulo
from tests.faults.nemesis import QUIET, Nemesis
from tests.faults.site import AGENTS, DAEMONS, MASTER, Site, until
from tests.history.checker import Checker
from tests.history.events import Event, Writer, merge, read
from tests.history.report import Final, Params, Violation

# Ids are remembered for longer than anybody takes to put one again, and forgotten before the disk is full of them.
STREAM: dict[str, Any] = {"name": "ORDERS", "topics": ["orders.>"], "keep": "work", "max_tries": 50, "dedupe": 180}
GROUPS = ("billing", "shipping")


@dataclass(frozen=True, slots=True)
class Role:
    """A program of `tests.faults`, the daemon that it connects to, and its arguments."""

    program: str
    where: str
    argv: tuple[str, ...]


ROLES: dict[str, Role] = {
    # Who puts, and how many at a time.
    "p1": Role("putter", "a", ("orders.p1", "32")),
    "p2": Role("putter", "b", ("orders.p2", "32")),
    "p3": Role("putter", MASTER, ("orders.p3", "16")),
    # Who works in which group, and how long a batch takes (ms).
    "w1": Role("worker", "a", ("ORDERS", "billing", "0")),
    "w2": Role("worker", MASTER, ("ORDERS", "billing", "0")),
    "w3": Role("worker", "b", ("ORDERS", "shipping", "5")),
    "w4": Role("worker", MASTER, ("ORDERS", "shipping", "0")),
    # Who publishes what, who listens, and how long each message takes (ms); 400 come in a second.
    "u1": Role("publisher", "a", ("news.a",)),
    "u2": Role("publisher", MASTER, ("news.m",)),
    "s1": Role("subscriber", "b", ("news.>", "0")),
    "s2": Role("subscriber", MASTER, ("news.*", "0")),
    "s3": Role("subscriber", "a", ("news.>", "10")),
}

# Seconds for everything to be delivered once it is healed, and of peace between two faults.
DRAIN, PEACE = 120.0, 0.3

# After a fault sessions expire (5 s) and come back (3 s and jitter) before everything is as it was.
GRACE = 15.0

# Seconds of a calm time, behind the grace of the last disturbance.
CALM = 10.0


@dataclass(slots=True)
class Share:
    """What happened from the beginning of one kind of fault to that of the next fault, all in all."""

    times: int = 0
    acked: int = 0
    delivered: int = 0
    redelivered: int = 0
    received: int = 0
    gaps: int = 0
    lost: int = 0
    duplicates: int = 0

    def add(self, before: Share, after: Share) -> None:
        """The difference of two totals."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(after, name) - getattr(before, name))


@dataclass(slots=True)
class Result:
    """What came of a campaign."""

    seconds: float = 0.0
    faults: dict[str, Share] = field(default_factory=dict)
    total: Share = field(default_factory=Share)
    kills: int = 0
    dead: int = 0
    intervals: int = 0
    sure: int = 0
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)


class Campaign:
    """One run on one site; its programs are the cast of the nemesis."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self._write = Writer(site.place / "nemesis.history")
        self._running: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}  # role → life and process
        self.nemesis = Nemesis(site, seed, self._write, self)

    def begin(self) -> None:
        """Start everything."""
        site = self.site
        site.prepare()
        for name in DAEMONS:
            site.start(name)
        site.ask(MASTER, "$qulo.stream.add", STREAM)
        senders = [name for name, role in ROLES.items() if role.program in ("putter", "publisher")]
        for name in ROLES.keys() - set(senders):
            self._start(name)
        # A message of this stream goes when all groups have acknowledged it: all that are there.
        until(self._has_groups, DRAIN, "both groups are there")
        for name in senders:
            self._start(name)

    def _has_groups(self) -> bool:
        info = self.site.ask(MASTER, "$qulo.stream.info", {"stream": STREAM["name"]})
        return {group["group"] for group in info["groups"]} == set(GROUPS)

    def _start(self, name: str) -> None:
        role = ROLES[name]
        life = self.site.program(role.program, name, self.site.url(role.where), *role.argv)
        self._running[name] = life, self.site.programs[-1]

    # -- the cast

    def roles(self) -> list[str]:
        """See `Cast`."""
        return list(ROLES)

    def life(self, role: str) -> str:
        """See `Cast`."""
        return self._running[role][0]

    def served_by(self, daemons: tuple[str, ...]) -> list[str]:
        """See `Cast`."""
        return [life for role, (life, _) in self._running.items() if ROLES[role].where in daemons]

    def restart(self, role: str, number: signal.Signals) -> None:
        """See `Cast`."""
        life, process = self._running[role]
        process.send_signal(number)
        process.wait()
        self.site.kills += 1
        self._write(Event(time.monotonic(), life, "death"))
        self._write.flush()
        self._start(role)

    def pause(self, role: str, seconds: float) -> None:
        """See `Cast`."""
        _, process = self._running[role]
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    # -- its course

    def calm_down(self) -> None:
        """Wait until the effects of all faults are over, and for some time break nothing that anybody may notice."""
        time.sleep(GRACE)
        quiet = [name for name in QUIET if name in self.nemesis.faults]
        until_then = time.monotonic() + CALM
        while time.monotonic() < until_then:
            self.strike(self.nemesis.random.choice(quiet))

    def strike(self, name: str | None = None) -> str:
        """One fault, and a moment of peace."""
        struck = self.nemesis.strike(name)
        self._look_after()
        time.sleep(PEACE)
        return struck

    def _look_after(self) -> None:
        for role, (life, process) in self._running.items():
            if process.poll() is not None:
                errors = (self.site.place / "programs.err").read_text()[-2000:]
                raise AssertionError(f"{life} ({role}) ended with {process.returncode}: {errors}")
        for name, daemon in self.site.daemons.items():
            if daemon.poll() is not None:
                log = (self.site.place / f"{name}.log").read_text()[-2000:]
                raise AssertionError(f"{name} ended by itself with {daemon.returncode}: {log}")

    def end(self) -> Result:
        """Finish in peace, and judge."""
        self._finish("putter", "publisher")
        until(self._is_drained, DRAIN, "everything is delivered")
        self._finish("worker", "subscriber")
        self._write.close()
        return self._judge()

    def _finish(self, *programs: str) -> None:
        processes = [self._running[name][1] for name, role in ROLES.items() if role.program in programs]
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(DRAIN)

    def _is_drained(self) -> bool:
        spooled = [self.site.ask(name, "$qulo.local.list")["hub"]["spooled"] for name in AGENTS]
        info = self.site.ask(MASTER, "$qulo.stream.info", {"stream": STREAM["name"]})
        return not any(spooled) and not any(group["pending"] for group in info["groups"])

    def _judge(self) -> Result:
        dead = asyncio.run(self._dead())
        final = Final(
            streams={str(STREAM["name"]): tuple(STREAM["topics"])},
            left={(str(STREAM["name"]), group): set() for group in GROUPS},
            dead=dead,
        )
        params = Params(lease=10.0, early=0.5, grace=GRACE, gap_grace=2 * GRACE, dedupe=float(STREAM["dedupe"]))
        checker = Checker(params)
        result = Result(kills=self.site.kills, dead=len(dead), skipped=self.nemesis.skipped)
        boundaries = iter([*self.nemesis.struck, (float("inf"), "")])
        ends, following = next(boundaries)
        kind, before = "", Share()
        for event in merge(read(path) for path in sorted(self.site.place.glob("*.history"))):
            while event.t >= ends:
                now = _totals(checker)
                result.faults.setdefault(kind, Share()).add(before, now)
                kind, before = following, now
                ends, following = next(boundaries)
                result.faults.setdefault(kind, Share()).times += 1
            checker.feed(event)
        result.total = _totals(checker)
        result.faults.setdefault(kind, Share()).add(before, result.total)
        result.violations = checker.finish(final)
        result.counts = checker.report.counts
        result.total = _totals(checker)
        result.intervals = sum(group.intervals for group in checker.groups.values())
        result.sure = sum(group.sure for group in checker.groups.values())
        self._blame(result)
        return result

    def _blame(self, result: Result) -> None:
        """Losses show at the end only: count each for the fault during which it had been acknowledged."""
        for violation in result.violations:
            if violation.rule == "lost":
                at = bisect_right(self.nemesis.struck, (violation.t, "~"))
                result.faults[self.nemesis.struck[at - 1][1] if at else ""].lost += 1

    async def _dead(self) -> set[tuple[str, str]]:
        """(group, key) of every dead letter, wherever it is."""
        found: set[tuple[str, str]] = set()
        for name, prefix in ((MASTER, "$qulo.stream.dead"), *((agent, "$qulo.local.dead") for agent in AGENTS)):
            async with qulo.connect(self.site.url(name)) as bus:
                after, more = 0, True
                while more:
                    page: dict[str, Any] = await bus.request(f"{prefix}.ls", {"after": after}, timeout=DRAIN)
                    shown = await asyncio.gather(
                        *(
                            bus.request(f"{prefix}.show", {"number": letter["number"]}, timeout=DRAIN)
                            for letter in page["letters"]
                        )
                    )
                    found.update((letter["group"], letter["body"].split(b" ", 1)[0].decode()) for letter in shown)
                    after, more = page["next"], not page["end"]
        return found


def _totals(checker: Checker) -> Share:
    groups = checker.groups.values()
    return Share(
        acked=checker.sending.acked,
        delivered=sum(group.delivered for group in groups),
        redelivered=sum(group.redelivered for group in groups),
        received=checker.hearing.received,
        gaps=checker.hearing.gaps,
        lost=checker.report.counts["lost"],
        duplicates=checker.report.counts["unflagged duplicate"],
    )


_COLUMNS = ("times", "acked", "delivered", "redelivered", "received", "gaps", "lost", "duplicates")


def table(result: Result) -> str:
    """The result for people."""
    lines = [f"{'fault':<14}" + "".join(f"{name:>12}" for name in _COLUMNS)]
    shares = [*sorted(result.faults.items()), ("all", result.total)]
    result.total.times = sum(share.times for share in result.faults.values())
    for name, share in shares:
        lines.append(f"{name or 'before any':<14}" + "".join(f"{getattr(share, what):>12,}" for what in _COLUMNS))
    lines += [f"{name:<14} not done: {why}" for name, why in result.skipped.items()]
    lines.append("")
    others = sum(result.counts.values()) - result.counts["lost"] - result.counts["unflagged duplicate"]
    for what, count in (
        ("kills", result.kills),
        ("dead letters", result.dead),
        ("holders judged", result.intervals),
        ("sure acks", result.sure),
        ("other violations", others),
        ("seconds", int(result.seconds)),
    ):
        lines.append(f"{what:<18} {count:>9,}")
    return "\n".join([*lines, *map(str, result.violations)])
