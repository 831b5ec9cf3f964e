"""`qulo ping`: which hosts are there, how far away each is, and who of those the hub knows did not answer."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qulo.cli import body, exits, hub
from qulo.cli.colour import red
from qulo.cli.options import Verb, count, note
from qulo.errors import NoResponders, QuloError

if TYPE_CHECKING:
    from qulo.sync import Bus

# docs/protocol.md; not imported from the protocol, which loads what a command line without a hub does not need.
_PING = "$qulo.ping"
_LIST = "$qulo.list"

# Seconds for the answers without --timeout: a host that is well takes milliseconds, a far one less than a second.
_TIMEOUT = 2.0


_MANUAL = """\
Every host is asked at once, by its agent's connection to the master; a qulod
answers as a host itself. A line per answer, as they come, with the time from
the question to that answer here. It ends when all have answered, or after
--timeout (2 s). Then the statistics, and who is missing: agents that the hub
knows, also those that are gone (it remembers the last 1000), that match
TARGET and did not answer; with when the hub last heard them and their state
(`qulolist --help` explains states).

"its executor is lost": that host's messaging works, but its agent has to be
restarted before jobs can run there.

TARGET is a shell pattern on names; quote it. A name that is no pattern ends
the wait as soon as that host has answered.

--json: one object per line; "type" is reply, missing, or, last, statistics.
Times are in ms, "seen" is in seconds ago. "executor" is ok, lost, or null for
a host that has none.

exit status:
  0  all are there
  3  some are missing, or fewer than --expect answered
  4  no host matches TARGET, there or missing: nobody to ask
Ctrl-C ends the wait: what was seen by then counts. `qulo --help` has the rest.

examples:
  qulo ping
  qulo ping 'web*' --expect 25 || echo 'not all of them'
  qulo ping --timeout 0.5 --json | grep '"type": "missing"'
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="TARGET", nargs="?", default="*", help="only hosts whose name matches; all by default")
    add("--expect", metavar="N", type=count, help="exit 3 if fewer than N answer")
    add("--json", action="store_true", help="one object per line")


def _run(arguments: argparse.Namespace) -> int:
    with hub.connect(arguments) as bus:
        round_ = _Round(arguments)
        with contextlib.suppress(NoResponders, KeyboardInterrupt):  # what was seen by then counts
            round_.ask(bus)
        round_.look_for_missing(bus)
    round_.show_end()
    return round_.code


@dataclass(frozen=True, slots=True)
class _Answer:
    """A host's answer, and when it was here."""

    name: str
    version: str
    at: float
    executor: str | None
    """Of an agent, by its own word: "ok" or "lost"."""


@dataclass(slots=True)
class _Round:
    """One question to all hosts, and what became of it."""

    arguments: argparse.Namespace
    started: float = field(default_factory=time.monotonic)
    names: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    """Of each answer, in ms."""
    missing: list[Mapping[str, Any]] = field(default_factory=list)
    """As the hub lists them, by name."""

    @property
    def code(self) -> int:
        """The exit code."""
        if not self.times and not self.missing:
            return exits.NOBODY
        return exits.TIMED_OUT if self.missing or self.short else exits.OK

    @property
    def short(self) -> int:
        """How many fewer than expected answered."""
        return max((self.arguments.expect or 0) - len(self.times), 0)

    def ask(self, bus: Bus) -> None:
        """Show answers as they come. Raises NoResponders."""
        answers: queue.SimpleQueue[_Answer | QuloError | None] = queue.SimpleQueue()
        self.started = time.monotonic()
        # In a thread: Ctrl-C then ends this wait, and tears nothing of the request apart.
        threading.Thread(target=_fetch, args=(bus, self._timeout, answers), daemon=True).start()
        while (answer := answers.get()) is not None:
            if isinstance(answer, QuloError):
                raise answer
            if self._matches(answer.name):
                self._take(answer)
            if answer.name == self.arguments.target:
                return

    def _take(self, answer: _Answer) -> None:
        took = (answer.at - self.started) * 1000
        self.names.add(answer.name)
        self.times.append(took)
        if self.arguments.json:
            _print_json(
                "reply", name=answer.name, version=answer.version, executor=answer.executor, time=round(took, 3)
            )
        else:
            lost = red("  its executor is lost") if answer.executor == "lost" else ""
            _print(f"{body.to_line(answer.name)} time={took:.2f} ms{lost}")

    def look_for_missing(self, bus: Bus) -> None:
        """Ask the hub which agents there should be."""
        report = bus.request(_LIST, {}, timeout=self._timeout)
        elapsed = time.monotonic() - self.started
        latest: dict[str, Mapping[str, Any]] = {}
        # A host that came back is listed as up and, by its past, as down: the latest word on it counts.
        for peer in sorted(report["peers"], key=lambda peer: -peer["seen"]):
            if peer["kind"] == "agent" and self._matches(peer["name"]):
                latest[peer["name"]] = peer
        # Whoever connected after the question was not asked.
        self.missing = [latest[name] for name in sorted(latest.keys() - self.names) if latest[name]["since"] > elapsed]
        if report["hub"]["peers"] > len(report["peers"]):
            note(f"the hub lists only {len(report['peers'])} of its peers: more agents may be missing")

    def show_end(self) -> None:
        """The statistics, and who is missing."""
        if self.arguments.json:
            self._show_json()
            return
        _print("---- ping statistics ----")
        replies = f"{len(self.times)} {'reply' if len(self.times) == 1 else 'replies'}"
        if self.times:
            replies += " min/avg/max = {:.1f}/{:.1f}/{:.1f} ms".format(*self._spread())
        _print(replies)
        if self.short:
            _print(red(f"expected: {self.arguments.expect}, {self.short} fewer replied"))
        if self.missing:
            _print(red(f"missing: {', '.join(map(_describe, self.missing))}"))
        if self.code == exits.NOBODY:
            note(f"no host matches {self.arguments.target!r}: nobody to ask")

    def _show_json(self) -> None:
        for peer in self.missing:
            _print_json("missing", name=peer["name"], seen=peer["seen"], state=peer["state"])
        low, average, high = (round(each, 3) for each in self._spread()) if self.times else (None, None, None)
        numbers = {"replies": len(self.times), "missing": len(self.missing), "expected": self.arguments.expect}
        _print_json("statistics", **numbers, min=low, avg=average, max=high)

    def _spread(self) -> tuple[float, float, float]:
        return min(self.times), sum(self.times) / len(self.times), max(self.times)

    def _matches(self, name: str) -> bool:
        return fnmatch.fnmatchcase(name, self.arguments.target)

    @property
    def _timeout(self) -> float:
        timeout: float = self.arguments.timeout or _TIMEOUT
        return timeout


def _fetch(bus: Bus, timeout: float, answers: queue.SimpleQueue[_Answer | QuloError | None]) -> None:
    """Each answer as it comes; None, or an error, when there are no more."""
    try:
        for answer in bus.request_many(_PING, timeout=timeout):
            at = time.monotonic()
            fields = answer if isinstance(answer, dict) else {}  # another program's: it may be anything
            executor = fields.get("executor")
            answers.put(
                _Answer(
                    name=str(fields.get("name", "?")),
                    version=str(fields.get("version", "")),
                    at=at,
                    executor=None if executor is None else str(executor),
                )
            )
        answers.put(None)
    except QuloError as error:
        answers.put(error)


def _describe(peer: Mapping[str, Any]) -> str:
    return f"{body.to_line(peer['name'])} (last seen {_ago(peer['seen'])} ago, {peer['state']})"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _print(line: str) -> None:
    print(line, flush=True)  # the next may take a while


def _print_json(kind: str, **fields: Any) -> None:
    _print(body.to_json({"type": kind, **fields}))


VERB = Verb("ping", "which hosts are there, and which are missing", _MANUAL, _add_options, _run, exits.INTERRUPTED)
