"""One subscription at its subscriber: its states, the gaps it sees, and that nothing comes twice."""

from __future__ import annotations

import itertools

import pytest

from qulo.protocol.tracker import NEWER_LIMIT, TRANSITIONS, Gap, Item, Run, State, Tracker

EPOCH = 7

EVENTS = sorted({event for _, event in TRANSITIONS})


def run(topic: str, first: int, *bodies: bytes) -> Run:
    """A run whose first message has this number."""
    return topic, 0, list(bodies or (b"x",)), b"origin", first


def live(at: int = 0, count: int = 0) -> tuple[Tracker, list[Item]]:
    """A tracker that has just been confirmed."""
    tracker, out = Tracker(1, "a.>"), list[Item]()
    assert not tracker.ready(EPOCH, at, count, out)
    return tracker, out


@pytest.mark.parametrize(("state", "event"), TRANSITIONS)
def test_each_row_of_the_table_leads_where_it_says(state: State, event: str) -> None:
    tracker = Tracker(1, "a", state=state)
    tracker.step(event)
    assert tracker.state is TRANSITIONS[state, event]


@pytest.mark.parametrize(("state", "event"), sorted(set(itertools.product(State, EVENTS)) - set(TRANSITIONS), key=str))
def test_what_is_not_in_the_table_is_a_bug(state: State, event: str) -> None:
    tracker = Tracker(1, "a", state=state)
    with pytest.raises(KeyError):
        tracker.step(event)
    assert tracker.state is state


def test_nothing_leads_out_of_closed() -> None:
    assert State.CLOSED not in {state for state, _ in TRANSITIONS}


def test_runs_come_through_while_nothing_is_missing() -> None:
    tracker, out = live(5)
    assert not tracker.take(0, run("a.b", 6, b"1", b"2"), out)
    assert not tracker.take(3, run("a.c", 8), out)
    assert not tracker.take(7, run("a.b", 9), out)
    assert out == [run("a.b", 6, b"1", b"2"), run("a.c", 8), run("a.b", 9)]
    assert (tracker.count, tracker.newest) == (4, 9)


def test_a_run_that_came_already_is_dropped() -> None:
    tracker, out = live(5)
    for _ in range(2):
        tracker.take(0, run("a.b", 6), out)
    tracker.take(0, run("a.b", 4), out)
    assert out == [run("a.b", 6)]


def test_a_hole_before_a_run_asks_for_a_repair_and_holds_it() -> None:
    tracker, out = live(5)
    assert tracker.take(6, run("a.b", 8), out)
    assert not tracker.take(7, run("a.c", 9), out)
    assert out == []
    assert tracker.resume() == (5, {})
    tracker.repair(run("a.b", 6), out)
    tracker.repair(run("a.c", 7), out)
    tracker.repair(run("a.b", 8), out)
    assert not tracker.repaired(8, 3, out)
    assert out == [run("a.b", 6), run("a.c", 7), run("a.b", 8), run("a.c", 9)]
    assert tracker.state is State.LIVE
    assert tracker.count == 4


def test_a_repair_names_what_is_newer_by_topic_unless_that_is_too_much() -> None:
    tracker, out = live()
    for number in range(1, NEWER_LIMIT + 1):
        tracker.take(0, run(f"a.{number}", number), out)
    assert len(tracker.resume()[1]) == NEWER_LIMIT
    tracker.take(0, run("a.x", NEWER_LIMIT + 1), out)
    assert tracker.resume() == (0, {})


def test_equal_counts_verify_everything_so_far() -> None:
    tracker, out = live(5, 2)
    tracker.take(0, run("a.b", 6), out)
    assert not tracker.told(9, 3)
    assert (tracker.verified, tracker.last) == (9, {})
    assert not tracker.told(7, 99), "an older pulse says nothing"


def test_a_count_that_is_higher_at_the_hub_means_a_loss() -> None:
    tracker, out = live(5, 2)
    tracker.take(0, run("a.b", 6), out)
    assert tracker.told(9, 4)
    assert tracker.state is State.REPAIRING
    assert tracker.resume() == (5, {"a.b": 6})


def test_a_pulse_older_than_what_came_is_not_compared() -> None:
    tracker, out = live(5)
    tracker.take(0, run("a.b", 6), out)
    assert not tracker.told(5, 99)
    assert tracker.state is State.LIVE


def test_only_a_live_subscription_listens_to_pulses() -> None:
    tracker = Tracker(1, "a.>")
    assert not tracker.told(5, 5)


def test_a_second_loss_while_repairing_starts_another_repair() -> None:
    tracker, out = live()
    tracker.take(1, run("a.b", 2), out)
    tracker.take(9, run("a.b", 10), out)
    tracker.repair(run("a.b", 1), out)
    tracker.repair(run("a.b", 2), out)
    assert tracker.repaired(5, 2, out)
    assert tracker.state is State.REPAIRING
    assert out == [run("a.b", 1), run("a.b", 2)]


def test_runs_that_exceed_the_hold_are_left_to_the_next_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qulo.protocol.tracker.HOLD_LIMIT", 200)
    tracker, out = live()
    tracker.take(1, run("a.b", 2), out)
    for number in range(3, 10):
        tracker.take(number - 1, run("a.b", number), out)
    assert tracker.held_size <= 200
    tracker.repair(run("a.b", 1), out)
    assert tracker.repaired(1, 1, out), "more was missed meanwhile"
    assert [item[4] for item in out if not isinstance(item, Gap)] == [1, 2, 3, 4][: len(out)]
    assert tracker.held == []


def test_a_reconnection_resumes_from_what_is_known() -> None:
    tracker, out = live(5)
    tracker.take(0, run("a.b", 6), out)
    tracker.disconnected()
    assert not tracker.take(6, run("a.b", 7), out), "a run of nowhere"
    assert tracker.ready(EPOCH, 9, 4, out)
    assert tracker.resume() == (5, {"a.b": 6})
    assert out == [run("a.b", 6)]


def test_a_reconnection_drops_what_was_held_for_the_repair_brings_it() -> None:
    tracker, out = live()
    tracker.take(1, run("a.b", 2), out)
    tracker.disconnected()
    assert (tracker.held, tracker.held_size, tracker.missed_more) == ([], 0, False)
    assert tracker.state is State.ASKED


def test_a_hub_that_forgot_everything_is_one_gap() -> None:
    tracker, out = live(5)
    tracker.take(0, run("a.b", 6), out)
    tracker.disconnected()
    assert not tracker.ready(EPOCH + 1, 3, 1, out)
    assert out[1:] == [Gap("a.>", EPOCH, 7, None, "restart")]
    assert (tracker.state, tracker.verified, tracker.count, tracker.last) == (State.LIVE, 3, 1, {})


def test_a_hub_that_is_new_before_the_first_confirmation_is_no_gap() -> None:
    tracker, out = Tracker(1, "a"), list[Item]()
    tracker.disconnected()
    assert not tracker.ready(EPOCH, 3, 1, out)
    assert out == []


@pytest.mark.parametrize("state", ["live", "repairing"])
def test_being_served_anew_means_a_repair(state: str) -> None:
    tracker, out = live(5)
    if state == "repairing":
        tracker.take(6, run("a.b", 7), out)
    assert tracker.ready(EPOCH, 9, 4, out)
    assert tracker.state is State.REPAIRING


def test_what_an_earlier_repair_brings_late_is_taken_and_counted() -> None:
    tracker, out = live(5)
    tracker.repair(run("a.b", 6), out)
    tracker.repair(run("a.b", 6), out)
    assert out == [run("a.b", 6)]
    assert not tracker.told(6, 1)
    assert not tracker.take(6, run("a.b", 7), out)


def test_an_end_of_repair_that_nobody_waits_for_changes_nothing() -> None:
    tracker, out = live(5)
    assert not tracker.repaired(9, 9, out)
    assert (tracker.verified, tracker.count) == (5, 0)
