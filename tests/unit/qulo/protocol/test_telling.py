"""What strangers cause is told, within bounds, and how much was not told is told too."""

from __future__ import annotations

from qulo.protocol.telling import Telling


def test_each_key_is_told_so_often_and_then_with_what_was_left_out() -> None:
    telling = Telling(3, 100)
    assert [telling.tell("a", 1.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert telling.tell("b", 2.0) == 0
    assert telling.tell("a", 61.5) == 2
    assert telling.tell("a", 61.6) == 0


def test_all_keys_together_are_bounded_too() -> None:
    telling = Telling(3, 10)
    told = [telling.tell(str(number), 1.0) for number in range(1000)]
    assert told.count(0) == 10
    assert told.count(None) == 990
    assert telling.tell("new", 62.0) == 0


def test_what_was_left_out_of_a_period_is_told_once_when_it_is_over() -> None:
    telling = Telling(1, 100)
    for _ in range(5):
        telling.tell("a", 0.0)
    telling.tell("b", 1.0)
    assert telling.overdue(30.0) == []
    assert telling.overdue(60.0) == [("a", 4)]
    assert telling.overdue(120.0) == []


def test_the_table_is_bounded_and_nothing_is_forgotten_uncounted() -> None:
    telling = Telling(1, 5, keys=10)
    for number in range(1000):
        telling.tell(str(number), 1.0)
    assert len(telling._keys) <= 11
    assert sum(count for _, count in telling.overdue(100.0)) == 995


def test_no_count_is_lost_when_the_next_period_is_full_at_once() -> None:
    telling = Telling(1, 1)
    assert [telling.tell("a", 0.0) for _ in range(4)] == [0, None, None, None]
    assert telling.tell("b", 61.0) == 0
    assert telling.tell("a", 62.0) is None
    assert telling.overdue(200.0) == [("a", 4)]
