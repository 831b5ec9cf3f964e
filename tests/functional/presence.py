"""What `qulolist` at the master says of the agents, look by look. It must never look behind what an operator sees."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.functional.cluster import AGENTS, MASTER, SESSION_TIMEOUT, Cluster, Running
from tests.functional.waiting import PATIENCE

# Seconds between two looks.
LOOK = 0.1

Entry = Mapping[str, Any]


class Watch:
    """`qulolist --watch` at the master. Its master has to run, and to go on."""

    def __init__(self, cluster: Cluster) -> None:
        argv = ("qulolist", "--json", "--agents", "--watch", str(LOOK))
        self._running: Running = cluster.start(MASTER, *argv)
        self._running.line()  # every look begins with a line on the hub

    def look(self) -> list[Entry]:
        """The agents of the next look: a name is there once for its session, and for each that has ended."""
        entries: list[Entry] = []
        while (entry := json.loads(self._running.line()))["type"] != "hub":
            entries.append(entry)
        return entries

    def until(self, name: str, state: str, timeout: float = PATIENCE) -> Entry:
        """The first look at which the host has a session in that state, or for down: has ended one and has no other."""
        deadline = time.monotonic() + timeout
        while True:
            of_host = [entry for entry in self.look() if entry["name"] == name]
            alive = [entry for entry in of_host if entry["state"] != "down"]
            found = [entry for entry in alive or of_host if entry["state"] == state]
            if found:
                return found[0]
            assert time.monotonic() < deadline, f"{name} is not {state} within {timeout:g} s: {of_host}"

    def end(self) -> None:
        """Look no more."""
        done = self._running.interrupt()
        assert done.code == 0, done


def wait_until_well(cluster: Cluster, agents: Sequence[str] = AGENTS) -> None:
    """Until each of these agents is up, and no session of before is still waited for: what has ended was reported."""
    watch = Watch(cluster)
    deadline = time.monotonic() + SESSION_TIMEOUT + PATIENCE
    while not is_well(entries := watch.look(), agents):
        assert time.monotonic() < deadline, f"the site is not well: {entries}"
    watch.end()


def is_well(entries: list[Entry], agents: Sequence[str]) -> bool:
    """Has every agent one session, and is it up? (One that was killed has two, until the old one has expired.)"""
    alive = [(entry["name"], entry["state"]) for entry in entries if entry["state"] != "down"]
    return sorted(alive) == [(agent, "up") for agent in agents]
