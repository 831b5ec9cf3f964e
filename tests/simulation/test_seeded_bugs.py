"""The simulation is worth something: a core with any of these bugs does not get through it.

Each bug begins with a seed that has shown it, and then gets more: when the core changes, it may be another one.
"""

from __future__ import annotations

import pytest

from tests.simulation import bugs
from tests.simulation.bugs import Bug
from tests.simulation.run import SeedFailed, play

# A bug that so many seeds do not show is not caught.
SEEDS = 300

# By bug, a seed that shows it, where the first twenty do not. Of SEEDS it is the first.
FIRST = {
    "hole_not_seen": 37,
    "tail_not_seen": 66,
    "gap_dropped": 55,
    "never_had_dropped": 333,
    "gap_not_passed": 53,
    "unsent_forgotten": 191,
    "never_released": 37,
    "lost_not_told": 356,
    "ack_before_commit": 76,
    "flights_forgotten": 34,
    "spool_released_early": 51,
    "delay_forgotten": 33,
    "acks_kept_back": 169,
    "expire_keeps_consumers": 83,
    "lease_out_of_order": 1935,
}


def test_there_are_enough_of_them_and_each_says_what_it_is() -> None:
    assert len(bugs.BUGS) >= 10
    assert all(bug.__doc__ for bug in bugs.BUGS)
    sown = {name for name, value in vars(bugs).items() if getattr(value, "__module__", "") == bugs.__name__}
    assert {bug.__name__ for bug in bugs.BUGS} == {name for name in sown if not name.startswith("_")}


@pytest.mark.slow
@pytest.mark.parametrize("bug", bugs.BUGS, ids=lambda bug: bug.__name__)
def test_a_core_with_this_bug_is_caught(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch.setattr)
    first = FIRST.get(bug.__name__, 0)
    for seed in range(first, first + SEEDS):
        try:
            play(seed)
        except SeedFailed:
            return
    pytest.fail(f"none of {SEEDS} seeds showed this: {bug.__doc__}")
