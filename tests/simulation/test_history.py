"""The judge of histories, who judges real processes too, finds nothing in simulated worlds, but what was sown there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation import bugs
from tests.simulation.bugs import Bug
from tests.simulation.history import judge
from tests.simulation.world import World

# Worlds of the clean run, and those in which a bug has to show.
WORLDS, BUGGED = 60, 120

# Bugs that a history shows, each with the rule that it breaks.
SHOWN = (
    (bugs.gap_not_passed, "missed"),
    (bugs.overlapping_twice, "order"),
    (bugs.dedupe_forgotten, "stored twice"),
    (bugs.mark_not_stored, "stored twice"),
    (bugs.flag_forgotten, "unflagged duplicate"),
    (bugs.floor_beyond_unacked, "lost"),
    (bugs.nak_loses, "lost"),
)


def played(count: int) -> Iterator[World]:
    """Worlds with streams that came to rest, of the first `count` seeds."""
    for seed in range(count):
        world = World(seed)
        if world.with_streams:
            world.run()
            if world.rested is not None:
                yield world


@pytest.mark.slow
def test_a_simulated_world_is_a_history_without_a_violation() -> None:
    found = {world.seed: violations for world in played(WORLDS) if (violations := judge(world))}
    assert not found


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "rule"), SHOWN, ids=lambda each: getattr(each, "__name__", None))
def test_a_bug_shows_in_the_history_as_what_it_is(bug: Bug, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch.setattr)
    for world in played(BUGGED):
        if any(violation.rule == rule for violation in judge(world)):
            return
    pytest.fail(f"no history of {BUGGED} worlds showed this: {bug.__doc__}")
