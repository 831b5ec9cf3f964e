"""So much per second on average, bursts of a bounded size, and debts."""

from __future__ import annotations

from qulo.protocol.bucket import Bucket


def test_a_bucket_starts_full_and_shuts_when_it_is_empty() -> None:
    bucket = Bucket(10, 1.0, 0.0)
    for _ in range(10):
        assert bucket.is_open(0.0)
        bucket.take(1)
    assert not bucket.is_open(0.0)


def test_it_fills_with_time_and_never_over_its_burst() -> None:
    bucket = Bucket(10, 2.0, 0.0)
    bucket.take(20)
    assert bucket.is_open(0.1)
    bucket.take(1)
    assert not bucket.is_open(0.1)
    assert bucket.is_open(1000.0)
    bucket.take(20)
    assert not bucket.is_open(1000.0)


def test_what_is_larger_than_the_bucket_is_taken_whole_and_paid_off() -> None:
    bucket = Bucket(10, 1.0, 0.0)
    bucket.take(500)
    assert not bucket.is_open(48.9)
    assert bucket.is_open(49.1)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, 1.0, 100.0)
    bucket.take(11)
    assert not bucket.is_open(0.0)
    assert not bucket.is_open(0.05)


def test_the_average_is_the_rate_whatever_the_sizes() -> None:
    bucket, taken, now = Bucket(100, 1.0, 0.0), 0, 0.0
    while now < 100:
        if bucket.is_open(now):
            bucket.take(37)
            taken += 37
        now += 0.01
    assert 100 * 100 <= taken <= 100 * 100 + 100 + 37
