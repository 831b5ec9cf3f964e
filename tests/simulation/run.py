"""Plays seeds: one world each, checked for safety, for liveness, or for both. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation import liveness, safety
from tests.simulation.coverage import Coverage
from tests.simulation.world import World

MODES = ("safety", "liveness", "both")

# The least that a seed has to be worth counting.
LEAST_NODES, LEAST_OPERATIONS, LEAST_FAULTS = 3, 100, 3


class SeedFailed(AssertionError):
    """A seed has shown something wrong; says how to play it again."""

    def __init__(self, seed: int, mode: str, error: BaseException) -> None:
        self.seed = seed
        replay = f"python -m tests.simulation --seed {seed} --mode {mode} --trace"
        super().__init__(f"seed {seed} ({mode}): {type(error).__name__}: {error}\n  replay it with: {replay}")


def play(
    seed: int, mode: str = "both", coverage: Coverage | None = None, trace: Callable[[str], None] | None = None
) -> World:
    """One seed. Raises SeedFailed."""
    try:
        world = World(seed, trace)
        world.run()
        if mode != "liveness":
            safety.check(world)
        if mode != "safety":
            liveness.check(world)
    except Exception as error:
        raise SeedFailed(seed, mode, error) from error
    nodes = len(world.hubs) + len(world.programs)
    assert nodes >= LEAST_NODES
    assert world.operations >= LEAST_OPERATIONS
    assert world.faults.happened >= LEAST_FAULTS
    if coverage is not None:
        coverage.add(world.coverage)
        coverage.seeds += 1
    return world


def play_all(seeds: range, mode: str = "both") -> Coverage:
    """All of them; the coverage of the run. Raises SeedFailed for the first that fails."""
    coverage = Coverage()
    with coverage.watch():
        for seed in seeds:
            play(seed, mode, coverage)
    return coverage
