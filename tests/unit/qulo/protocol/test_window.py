"""The replay window: what it keeps, what it says is gone, and that it stays bounded."""

from __future__ import annotations

import pytest

from qulo.protocol.interest import Interest
from qulo.protocol.ports import Counters, Limits
from qulo.protocol.router import Router
from qulo.protocol.window import ENTRY_OVERHEAD, Frame, Topic, Window


class Publisher:
    """Numbers runs as a router does."""

    def __init__(self, limit: int) -> None:
        self.window = Window(limit)
        self.seq = 0

    def publish(self, name: str, count: int = 1, kept: bool = True) -> Topic:
        """A run; with `kept` False nobody wanted it."""
        topic = self.window.topics.setdefault(name, Topic(name, local=False, last=self.window.floor))
        first, self.seq = self.seq + 1, self.seq + count
        topic.last = self.seq
        if kept:
            frame = Frame([topic], b"x" * 100)
            topic.runs.append((first, self.seq, frame))
            self.window.add(frame)
        else:
            topic.gone = self.seq
        return topic


def test_what_came_since_is_missed_and_nothing_else() -> None:
    publisher = Publisher(10_000)
    a, b = publisher.publish("a", 3), publisher.publish("b")
    publisher.publish("a")
    missed = publisher.window.missed([a, b], 3, {})
    assert [frame.topics for frame in missed.frames] == [[b], [a]]
    assert missed.lost is None
    assert publisher.window.missed([a, b], 3, {"b": 4}).frames == [a.runs[1][2]]
    assert publisher.window.missed([a, b], 5, {}).frames == []


def test_a_run_of_which_only_the_end_is_missing_comes_whole() -> None:
    publisher = Publisher(10_000)
    a = publisher.publish("a", 3)
    assert len(publisher.window.missed([a], 1, {}).frames) == 1


def test_the_oldest_make_room_and_are_told_as_lost() -> None:
    publisher = Publisher(3 * (100 + ENTRY_OVERHEAD))
    for _ in range(5):
        a = publisher.publish("a")
    missed = publisher.window.missed([a], 1, {})
    assert missed.lost == (2, 2)
    assert [first for first, _, _ in a.runs] == [3, 4, 5]
    assert publisher.window.size <= publisher.window.limit
    assert publisher.window.missed([a], 2, {}).lost is None


def test_a_window_of_nothing_keeps_nothing() -> None:
    publisher = Publisher(0)
    a = publisher.publish("a")
    assert publisher.window.missed([a], 0, {}).lost == (1, 1)
    assert publisher.window.size == 0


def test_what_nobody_wanted_is_lost_to_those_who_come_back() -> None:
    publisher = Publisher(10_000)
    a = publisher.publish("a", kept=False)
    publisher.publish("a")
    missed = publisher.window.missed([a], 0, {})
    assert missed.lost == (1, 1)
    assert len(missed.frames) == 1


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    """A router that remembers few topics."""
    monkeypatch.setattr("qulo.protocol.window.MAX_TOPICS", 10)
    router = Router(1, Limits(), Counters(), lambda note: None)
    router.window._enough = 10
    return router


def test_the_number_of_topics_is_bounded(router: Router) -> None:
    for number in range(1000):
        router.publish(f"t.{number}", 0, [b"x"], b"o")
    assert len(router.window.topics) <= 12
    assert router.window.floor > 0


def test_a_forgotten_topic_counts_as_lost_for_whoever_has_less(router: Router) -> None:
    for number in range(100):
        router.publish(f"t.{number}", 0, [b"x"], b"o")
    window = router.window
    assert window.missed([], 0, {}).lost == (1, window.floor)
    assert window.missed([], window.floor, {}).lost is None


def test_a_new_topic_is_never_the_one_that_is_forgotten(router: Router) -> None:
    router._index.setdefault("k.>", lambda: {True: Interest("k.>", True, 0)})
    for number in range(200):
        router.publish(f"k.{number}", 0, [b"x"], b"o")
        router.publish(f"n.{number}", 0, [b"x"], b"o")
        assert f"n.{number}" in router.window.topics
        assert f"k.{number}" in router.window.topics
