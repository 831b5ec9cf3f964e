"""TERM ends a daemon in order: what it has acknowledged arrives, and of the daemon itself nothing stays."""

from __future__ import annotations

import json
import re

import pytest

from tests.functional import programs
from tests.functional.cluster import MASTER, Cluster
from tests.functional.waiting import until

MESSAGES = 20_000


@pytest.mark.parametrize(("host", "far"), [(MASTER, "agent2"), ("agent1", MASTER)], ids=["qmaster", "qagent"])
def test_term_delivers_what_was_acknowledged_and_leaves_nothing(site: Cluster, host: str, far: str) -> None:
    listeners = [programs.start(site, where, "listener", str(MESSAGES), "work.>") for where in (host, far)]
    text = "".join(f"{number}\n" for number in range(MESSAGES))
    published = site.run(host, "qulo", "pub", "work.numbers", "--lines", stdin=text)
    assert published.code == 0, published
    site.signal(host, "TERM")
    until(lambda: site.pid(host) is None)

    for listener in listeners:
        done = listener.end()
        assert done.code == 0, done.err
        lines = done.out.splitlines()[1:]
        assert [json.loads(line) for line in lines] == [["work.numbers", str(number)] for number in range(MESSAGES)]

    log = site.log(host).splitlines()
    assert any(line.endswith("draining for at most 10 s") for line in log)
    assert log[-1].endswith("stopped")
    assert not [line for line in log if " ERROR " in line]
    assert site.control(host, "status").code == 3
    left = site.run(host, "ls", site.path(host, "socket"), f"{site.path(host, 'socket')}.pub")
    assert left.out == ""
    assert site.read(host, site.path(host, "pid").replace(".pid", ".state")) == ""


def test_term_delivers_what_an_agent_has_acknowledged_while_its_master_was_away(site: Cluster) -> None:
    listener = programs.start(site, "agent2", "listener", "101", "work.>")
    site.pause(MASTER)
    until(lambda: "lost tcp://" in site.log("agent1"))
    text = "".join(f"{number}\n" for number in range(100))
    published = site.run("agent1", "qulo", "pub", "work.numbers", "--lines", stdin=text)
    assert published.code == 0, published  # the agent has them: they wait in its buffer
    site.signal("agent1", "TERM")
    site.resume(MASTER)
    until(lambda: site.pid("agent1") is None)
    until(lambda: re.search(r" agent agent1 \(.*\) is down: ", site.log(MASTER)))
    # Behind all that came through agent1, or what would have.
    assert site.run("agent2", "qulo", "pub", "work.end", "").code == 0
    got = []
    while (item := json.loads(listener.line())) != ["work.end", ""]:
        got.append(item)
    assert got == [["work.numbers", str(number)] for number in range(100)]
