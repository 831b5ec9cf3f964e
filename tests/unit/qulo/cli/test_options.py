"""Durations and sizes as options: written as in the configuration, the same for all verbs."""

from __future__ import annotations

import argparse

import pytest

from qulo.cli.asking import shown_duration, shown_size
from qulo.cli.options import duration, size, whole


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5m", 300), ("2h", 7200), ("7d", 604800), ("3", 3)])
def test_a_duration(text: str, seconds: float) -> None:
    assert duration()(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1h30m", "99999d"])
def test_what_is_no_duration_says_what_is(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration such as 500ms, 2s, 5m, 1h or 7d"):
        duration()(text)


def test_a_duration_has_its_bounds() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"from 1s to 24h, found '1ms'"):
        duration(1.0, 86400.0)("1ms")


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("65536", 65536), ("64K", 65536), ("1g", 2**30)])
def test_a_size(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "1T", "0.3", "1 kilo"])
def test_what_is_no_size_says_what_is(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size such as 65536, 64K, 4M or 1G"):
        size(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "٣", "9" * 19])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number, 0 or more"):
        whole(text)


def test_they_are_shown_in_the_units_they_are_given_in() -> None:
    assert [shown_size(each) for each in (0, 1023, 1536, 2**20, 5 * 2**30, 2**41)] == [
        *("0", "1023", "1.5K", "1M", "5G", "2T"),
    ]
    assert [shown_duration(each) for each in (0.5, 90, 600, 7200, 604800)] == ["0.5s", "90s", "10m", "2h", "7d"]
