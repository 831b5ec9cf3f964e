"""A set of numbers as spans behaves as a set of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qulo.protocol.spans import Span, Spans

pairs = st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))


def numbers(spans: list[Span]) -> list[int]:
    """All in these spans."""
    return [number for first, last in spans for number in range(first, last + 1)]


@given(st.integers(0, 10), st.lists(pairs, max_size=30))
def test_adding_spans_is_adding_numbers(floor: int, added: list[Span]) -> None:
    spans, model = Spans(floor), set(range(1, floor + 1))
    written: dict[int, int] = {}
    for span in added:
        new = set(numbers([span]))
        fresh = numbers(spans.add(*span))
        assert fresh == sorted(new - model)
        model |= new
        for first in spans.touched:  # what a store would write
            last = spans.last_of(first)
            if last is None:
                written.pop(first, None)
            else:
                written[first] = last
        spans.touched.clear()
        assert tuple(Span(*pair) for pair in sorted(written.items())) == spans.spans()
    assert set(range(1, spans.floor + 1)) | set(numbers(list(spans.spans()))) == model
    assert spans.floor + 1 not in model
    assert all(b.first > a.last + 1 for a, b in zip(spans.spans(), spans.spans()[1:], strict=False))


@given(st.integers(0, 10), st.lists(pairs, max_size=10), pairs)
def test_a_part_is_what_is_in_both(floor: int, added: list[Span], asked: Span) -> None:
    spans = Spans(floor, added)
    model = set(range(1, floor + 1)) | set(numbers(added))
    assert numbers(spans.within(asked)) == sorted(model & set(numbers([asked])))
    assert (asked.first in spans) == (asked.first in model)


def test_acks_in_order_are_the_floor_alone() -> None:
    spans = Spans()
    for number in range(1, 100):
        assert spans.add(number, number) == [Span(number, number)]
        assert not spans.touched
    assert (spans.floor, spans.spans()) == (99, ())
    assert spans.add(50, 99) == []
