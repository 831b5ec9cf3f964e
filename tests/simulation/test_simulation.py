"""A thousand worlds, each of one seed: nothing that was promised is broken in any, and all that can happen happens.

QULO_SEEDS=5000 plays more of them. One that fails says how to play it alone; `make simulate` is for long runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from qulo.protocol import wire
from tests.simulation.coverage import Coverage
from tests.simulation.faults import KINDS
from tests.simulation.run import LEAST_FAULTS, LEAST_NODES, LEAST_OPERATIONS, play, play_all

# So many take half a minute on one core. The same every time: a longer run has new ones.
SEEDS = int(os.environ.get("QULO_SEEDS", "1000"))

# Seeds of one test: enough that pytest costs nothing, few enough to see that it goes on.
PORTION = 100

# Codes that things end with, which all are reached; some of them seldom.
CODES = {
    *(f"request: {code}" for code in ("ok", "deadline", "denied", "disconnected", "handler", "no-responders")),
    *(f"request: {code}" for code in ("responder-lost", "no-stream", "usage")),
    *(f"put: {code}" for code in ("ok", "deadline", "denied", "disconnected", "gone", "no-stream", "unknown")),
    *("put: store-full", "refused: denied", "refused: no-stream", "forbidden: denied", "forbidden: store-full"),
    *(f"gap: {reason}" for reason in ("window", "restart", "overflow")),
    *("connection: disconnected", "connection: protocol", "connection: error"),
}


@pytest.fixture(scope="module")
def reached() -> Coverage:
    """What all seeds of this run have reached."""
    return Coverage()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_every_promise_holds_in_a_hundred_worlds(first: int, reached: Coverage) -> None:
    reached.add(play_all(range(first, min(first + PORTION, SEEDS))))


def test_every_fault_every_verb_and_every_code_was_reached(reached: Coverage) -> None:
    if reached.seeds < SEEDS:
        pytest.skip("says something about all seeds together only")
    assert not set(KINDS) - set(reached.faults)
    assert not {verb.name for verb in wire.VERBS.values()} - set(reached.verbs)
    assert not CODES - set(reached.codes)


def test_a_seed_is_large_enough_to_say_something() -> None:
    for seed in range(10):
        world = play(seed)
        assert len(world.hubs) + len(world.programs) >= LEAST_NODES
        assert world.operations >= LEAST_OPERATIONS
        assert world.faults.happened >= LEAST_FAULTS


def trace_of(seed: int) -> str:
    """A number for everything that happens in a world."""
    lines: list[str] = []
    play(seed, trace=lines.append)
    return sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.slow
def test_a_seed_is_the_same_world_every_time_and_in_every_process() -> None:
    seeds = range(5)
    here = [trace_of(seed) for seed in seeds]
    assert [trace_of(seed) for seed in seeds] == here
    code = f"from tests.simulation.test_simulation import trace_of\nfor seed in {seeds!r}: print(trace_of(seed))"
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == here
