"""The checker of the fault stories finds what it is there for: a story that cannot fail would prove nothing."""

from __future__ import annotations

import pytest

from tests.functional.talk import END, Report, check

Item = tuple[str, str, int]
GAP: Item = ("gap", "flow.a", 0)


def got(*numbers: int) -> list[Item]:
    """What came from a."""
    return [("got", "a", number) for number in numbers]


def reports(*items: Item, sent: int = 4, unknown: tuple[int, ...] = ()) -> list[Report]:
    """What b got from a, of four messages; all else is well."""
    end: Item = ("got", "b", END)
    a = Report("a", sent, set(unknown), [*got(*range(sent), END), end])
    return [a, Report("b", 0, set(), [*items, end])]


@pytest.mark.parametrize(
    ("items", "unknown"),
    [
        (got(0, 1, 2, 3, END), ()),
        ([*got(0), GAP, *got(3, END)], ()),
        ([*got(0), ("gap", ">", 0), *got(3, END)], ()),
        ([*got(0, 3), GAP, *got(END)], ()),  # an agent died: its Gap comes when its session has expired
        (got(0, 3, END), (1, 2)),
        ([GAP, *got(0, 1, 2, 3, END)], ()),  # a Gap may turn out to be about nothing
    ],
    ids=["all", "in its place", "of another pattern", "late", "doubtful", "needless"],
)
def test_what_is_told_is_no_loss(items: list[Item], unknown: tuple[int, ...]) -> None:
    check(reports(*items, unknown=unknown))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (got(0, 3, END), "b misses 2 messages from 1 to 2 of a, and no Gap says so"),
        (got(0, 1, 2, END), "b misses 1 messages from 3 to 3"),
        ([GAP, *got(0, 3, END)], "b misses 2 messages from 1 to 2"),  # what came behind it is older than the loss
        ([*got(0), ("gap", "flow.c", 0), *got(3, END)], "b misses 2 messages from 1 to 2"),
        (got(0, 1, 2, 3), "b did not get the end of a"),
        (got(0, 2, 1, 3, END), "b got 1 of a after 2"),
        (got(0, 1, 1, 2, 3, END), "b got 1 of a after 1"),
        ([*got(0, 1), GAP, *got(1, 2, 3, END)], "b got 1 of a after 1"),
        (got(0, 1, 2, 3, 4, END), "a never sent 4"),
    ],
)
def test_what_is_missing_in_silence_twice_or_late_is_found(items: list[Item], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check(reports(*items))


def test_an_own_message_may_come_again_behind_a_gap_only() -> None:
    (a, b) = reports(*got(0, 1, 2, 3, END))
    a.items = [*got(0, 1, 2), GAP, *got(1, 2, 3, END), ("got", "b", END)]
    check([a, b])
    a.items = [*got(0, 1, 2, 1, 3, END), ("got", "b", END)]
    with pytest.raises(AssertionError, match="a got 1 of a after 2"):
        check([a, b])
