"""Everybody talks to everybody while something happens to a host; in the end nothing may be missing in silence.

    talk = Talk(site); … what happens …; check(talk.end())

`check` is the promise of publish as a program sees it, and the same for every fault. It must never excuse a message:
one that did not come stands before a Gap that was reported, or its publisher was told that the outcome is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from qulo.protocol import topics
from tests.functional import presence, programs
from tests.functional.cluster import AGENTS, MASTER, Cluster, Done


@dataclass(slots=True)
class Report:
    """What one talker sent and got."""

    name: str
    sent: int
    unknown: set[int]
    """Numbers of messages whose publisher was told that their outcome is unknown."""
    items: list[tuple[str, str, int]] = field(default_factory=list)
    """("got", publisher, number) and ("gap", pattern, 0), in the order in which they came."""
    reasons: list[str] = field(default_factory=list)
    """Of the gaps."""


class Talk:
    """Talkers on some hosts, from the first word to the last."""

    def __init__(self, cluster: Cluster, hosts: Sequence[str] = (MASTER, *AGENTS[:2]), least: int = 0) -> None:
        """They have begun, and every message from now on is for all of them. Each says `least` at the least."""
        self._cluster = cluster
        arguments = [(host, str(len(hosts)), str(least)) for host in hosts]
        with ThreadPoolExecutor(len(hosts)) as pool:
            started = pool.map(lambda each: programs.start(cluster, each[0], "talker", *each), arguments)
            self._talkers = dict(zip(hosts, started, strict=True))
        self._say("start")

    def _say(self, what: str) -> None:
        done = self._cluster.run(MASTER, "qulo", "pub", f"flow.{what}")
        assert done.code == 0, done

    def end(self, agents: Sequence[str] = AGENTS) -> list[Report]:
        """When the site of these agents is well again: let them end, and return what they report."""
        presence.wait_until_well(self._cluster, agents)
        self._say("stop")
        return [_report(name, talker.end(timeout=60)) for name, talker in self._talkers.items()]


def _report(name: str, done: Done) -> Report:
    assert done.code == 0, done.err
    (_, sent, unknown), *items = map(json.loads, done.out.splitlines()[1:])  # the first line said "ready"
    report = Report(name, sent, {number for first, last in unknown for number in range(first, last + 1)})
    for kind, what, detail in items:
        if kind == "gap":
            report.reasons.append(detail)
        report.items.append((kind, what, 0 if kind == "gap" else _number(detail)))
    return report


# After every number that there can be: the last thing a talker says is that it ends.
END = 1 << 60


def _number(body: int | str) -> int:
    """The number of a message; its publisher's end comes after all of them."""
    return END if body == "end" else int(body)


def check(reports: Iterable[Report]) -> None:
    """What everybody got from everybody. Raises AssertionError with what was broken."""
    reports = list(reports)
    assert sum(report.sent for report in reports) > 0
    for subscriber in reports:
        for publisher in reports:
            _check_order(subscriber, publisher)
            _check_complete(subscriber, publisher)


def _check_order(subscriber: Report, publisher: Report) -> None:
    """In the order in which it was published, nothing twice, nothing that was not sent.

    What a program has published itself may come once more behind a Gap: an agent that begins anew does not know its
    predecessor's messages as its own when they come back from the master.
    """
    last = -1
    for kind, who, number in subscriber.items:
        if kind == "gap":
            last = -1 if publisher is subscriber else last
        elif who == publisher.name:
            assert last < number, f"{subscriber.name} got {number} of {who} after {last}"
            assert number < publisher.sent or number == END, f"{who} never sent {number}"
            last = number


def _check_complete(subscriber: Report, publisher: Report) -> None:
    """What is missing was reported: a Gap came behind everything that is older than it.

    (Of an agent that has died the Gap comes when its session has expired, so newer messages may come before.)
    """
    numbers = [number for kind, who, number in subscriber.items if kind == "got" and who == publisher.name]
    assert END in numbers, f"{subscriber.name} did not get the end of {publisher.name}"
    missing = set(range(publisher.sent)) - set(numbers) - publisher.unknown
    oldest = _oldest_after_gaps(subscriber, publisher)
    silent = {number for number in missing if number > oldest}
    assert not silent, f"{subscriber.name} misses {_shown(silent)} of {publisher.name}, and no Gap says so"


def _oldest_after_gaps(subscriber: Report, publisher: Report) -> int:
    """The first new number of the publisher behind the last Gap on its topic: from there on nothing may be missing."""
    newest = oldest = -1
    gap = False
    for kind, who, number in subscriber.items:
        if kind == "gap":
            gap = gap or topics.overlap(who, f"flow.{publisher.name}")
        elif who == publisher.name and number > newest:
            oldest, gap = (number, False) if gap else (oldest, False)
            newest = number
    return oldest


def _shown(numbers: set[int]) -> str:
    return f"{len(numbers)} messages from {min(numbers)} to {max(numbers)}"
