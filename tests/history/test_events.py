"""How histories are written and read back, and how fast they are judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.history.checker import Checker
from tests.history.events import INVOKE, OK, Event, Writer, merge, read
from tests.history.report import Final

# Seconds for 100,000 messages through two groups: 2 M take a minute or two. A busy machine gets three times that.
BOUND = 20.0


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    events = [
        Event(1.5, "p", "put", INVOKE, key="k-1", topic="orders.new", n=1, id="k-1"),
        Event(2.25, "w", "deliver", key="k-1", stream="ORDERS", seq=7, group="billing", redelivered=True),
    ]
    writer = Writer(tmp_path / "history")
    for event in events:
        writer(event)
    writer.flush()
    assert list(read(tmp_path / "history")) == events
    writer.close()


def test_a_line_says_only_what_is_not_the_default() -> None:
    assert Event(1.0, "s", "gap", topic=">").to_json() == '{"t":1.0,"who":"s","op":"gap","topic":">"}'


def test_a_torn_last_line_is_no_event(tmp_path: Path) -> None:
    (tmp_path / "history").write_text('{"t":1.0,"who":"s","op":"gap"}\n{"t":2.0,"wh')
    assert [event.t for event in read(tmp_path / "history")] == [1.0]


def test_histories_are_merged_by_time() -> None:
    one, two = [Event(1, "a", "ack"), Event(4, "a", "ack")], [Event(2, "b", "ack"), Event(3, "b", "ack")]
    assert [event.t for event in merge([one, two])] == [1, 2, 3, 4]


def many(count: int) -> Iterator[Event]:
    """Puts, and two groups that work in batches of a hundred."""
    t = 0.0
    for first in range(1, count, 100):
        for phase in (INVOKE, OK):
            for n in range(first, first + 100):
                t += 1e-6
                where = {"stream": "S", "seq": n, "at": "master"} if phase == OK else {"topic": "s.x", "n": n}
                yield Event(t, "p", "put", phase, key=f"p-{n}", **where)  # type: ignore[arg-type]
        for group in ("g", "h"):
            for n in range(first, first + 100):
                t += 1e-6
                yield Event(t, group, "deliver", key=f"p-{n}", stream="S", seq=n, group=group)
                yield Event(t, group, "ack", INVOKE, key=f"p-{n}", stream="S", group=group)
            yield Event(t, group, "flush", INVOKE, stream="S", group=group)
            yield Event(t, group, "flush", stream="S", group=group)


def test_a_long_history_is_judged_soon() -> None:
    checker = Checker()
    began = time.process_time()
    for event in many(100_000):
        checker.feed(event)
    assert not checker.finish(Final(left={("S", "g"): set(), ("S", "h"): set()}))
    assert checker.sending.acked == 100_000
    assert sum(group.delivered for group in checker.groups.values()) == 200_000
    assert time.process_time() - began < BOUND
