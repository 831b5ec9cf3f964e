"""Random schedules with loss, cuts, delay, deaths and a checker of what was promised; one seed is one world.

QULO_SEEDS=5000 plays more of them, QULO_SEEDS=17: (with a colon) only number 17.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation import checker
from tests.simulation.world import World

# So many take some seconds; the first ones are the same every time, a longer run has new ones.
SEEDS = 200


def seeds() -> list[int]:
    """The seeds to play."""
    wanted = os.environ.get("QULO_SEEDS", str(SEEDS))
    first, colon, _ = wanted.partition(":")
    return [int(first)] if colon else list(range(int(wanted)))


def play(seed: int) -> World:
    """One world from its beginning to its last check."""
    world = World(seed)
    try:
        world.run()
        checker.check_rest(world)
        checker.check(world)
        checker.check_afterwards(world)
        checker.check(world)
    except Exception as error:
        replay = f"QULO_SEEDS={seed}: python -m pytest {__file__.rpartition('tests/')[1]}simulation"
        tail = "\n  ".join(world.trace)
        raise AssertionError(f"seed {seed}: {error!r}\n  replay with: {replay}\n  {tail}") from error
    return world


@pytest.mark.parametrize("seed", seeds())
def test_every_promise_holds_in_a_random_world(seed: int) -> None:
    play(seed)
