"""Presence: what `qulolist` at the master says of an agent that falls silent, and when."""

from __future__ import annotations

import time

import pytest

from qulo.net.hub import TICKS
from qulo.protocol.hub import SILENT_BEATS
from tests.functional.cluster import HEARTBEAT, SESSION_TIMEOUT, Cluster
from tests.functional.presence import Watch

# Seconds: the hub looks at its clock so often, and says so at the next look of a machine that has other things to do.
NOTICED = HEARTBEAT / TICKS
BUSY = 1.5


@pytest.mark.parametrize("how", ["pause", "partition"])
def test_an_agent_that_falls_silent_is_suspect_then_down_and_up_again_when_it_is_back(site: Cluster, how: str) -> None:
    silence, again = (site.pause, site.resume) if how == "pause" else (site.partition, site.heal)
    watch = Watch(site)
    assert watch.until("agent3", "up")["seen"] < SILENT_BEATS * HEARTBEAT

    silence("agent3")
    suspect = watch.until("agent3", "suspect")
    assert SILENT_BEATS * HEARTBEAT < suspect["seen"] < SILENT_BEATS * HEARTBEAT + NOTICED + BUSY
    down = watch.until("agent3", "down")
    assert SESSION_TIMEOUT < down["seen"] < SESSION_TIMEOUT + NOTICED + BUSY
    others = {entry["name"]: entry["state"] for entry in watch.look() if entry["name"] != "agent3"}
    assert others == {"agent1": "up", "agent2": "up"}

    begin = time.monotonic()
    again("agent3")
    watch.until("agent3", "up")
    assert time.monotonic() - begin < BACK
    watch.end()


# Seconds until an agent is back: it notices (3 heartbeats of silence), and dials again after a pause of 3 s at most.
BACK = 3 * HEARTBEAT + 3.0 + BUSY
