"""Random operations on the store on disk and on the fake, with restarts: they agree about everything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qulo.errors import QuloError
from qulo.protocol.spans import Span
from qulo.protocol.storage import (
    Ack,
    Append,
    Bury,
    DeadPurge,
    GroupAdd,
    GroupRemove,
    Numbers,
    Operation,
    Origin,
    Purge,
    Removed,
    Requeue,
    Retry,
    Spool,
    SpoolBury,
    SpoolRelease,
    Store,
    Stream,
    StreamAdd,
    StreamChange,
    StreamRemove,
    Trim,
)
from qulo.store.memory import MemoryStore
from qulo.store.sqlite import SqliteStore

TOPICS = ("t.a", "t.b", "t.a.b", "u")

names = st.sampled_from(["S", "S", "S", "T"])
groups = st.sampled_from(["g", "g", "h"])
seqs = st.integers(1, 12)
ids = st.sampled_from([None, None, "x", "y"])
origins = st.sampled_from([None, None, *(Origin(agent, number) for agent in "ab" for number in range(1, 6))])
spans = st.tuples(seqs, st.integers(0, 5)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
limits = st.sampled_from([0, 0, 0, 1, 3, 10])
definitions = st.builds(
    Stream,
    names,
    st.just((">",)),
    st.sampled_from(["work", "limits"]),
    max_age_ms=limits,
    max_bytes=limits.map(lambda limit: 10 * limit),
    max_msgs=limits,
    per_topic=st.sampled_from([0, 0, 1, 2]),
    dedupe_ms=limits,
)
messages = st.builds(
    Append, names, st.sampled_from(TOPICS), st.just(1), st.binary(max_size=9), st.just(0), ids, origin=origins
)
later = st.sampled_from([0, 0, 1, 5])


class Both(RuleBasedStateMachine):
    """Both stores, told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="qulo-store-"))
        self.path = str(self.place / "store.db")
        self.disk = SqliteStore(self.path, reserve=0)
        self.fake = MemoryStore(agent=self.disk.spool_state().agent)
        self.now = 0
        self.numbers = 0
        self.batch: list[Operation] = []

    def teardown(self) -> None:
        self.disk.close()
        shutil.rmtree(self.place)

    @initialize(definition=definitions, other=st.booleans())
    def begin(self, definition: Stream, other: bool) -> None:
        definition = replace(definition, name="S")
        self.batch += [StreamAdd(definition), GroupAdd("S", "g")]
        if other:
            self.batch += [
                StreamAdd(replace(definition, name="T", keep="work")),
                GroupAdd("T", "g"),
                GroupAdd("S", "h"),
            ]
        self.append_many("S", 6)

    # Operations wait for `commit`, so that batches of all lengths come to be.

    @rule(message=messages, times=st.tuples(later, later))
    def append(self, message: Append, times: tuple[int, int]) -> None:
        self.now += 1
        visible, expires = (self.now + each if each else 0 for each in times)
        self.batch.append(message._replace(time_ms=self.now, visible_ms=visible, expires_ms=expires))

    @rule(stream=names, count=st.integers(1, 8))
    def append_many(self, stream: str, count: int) -> None:
        self.batch += [Append(stream, TOPICS[i % 3], i, b"12", self.now) for i in range(count)]

    @rule(stream=names, group=groups, acked=st.lists(spans, max_size=3))
    def ack(self, stream: str, group: str, acked: list[Span]) -> None:
        self.batch.append(Ack(stream, group, acked))

    @rule(stream=names, group=groups, seq=seqs)
    def retry(self, stream: str, group: str, seq: int) -> None:
        self.batch.append(Retry(stream, group, seq, seq % 3, self.now))

    @rule(stream=names, group=groups, seq=seqs)
    def bury(self, stream: str, group: str, seq: int) -> None:
        self.batch.append(Bury(stream, group, seq, "why", 3, self.now))

    @rule(stream=names, group=groups, seq=seqs)
    def bury_and_requeue(self, stream: str, group: str, seq: int) -> None:
        self.commit()
        bury = Bury(stream, group, seq, "why", 3, self.now)
        (letter,) = self.disk.commit([bury])
        assert plain(self.fake.commit([bury])) == plain([letter])
        if isinstance(letter, int):
            self.batch.append(Requeue(letter, self.now))

    @rule(letter=st.integers(1, 4))
    def requeue(self, letter: int) -> None:
        self.numbers += 1
        self.batch += [Numbers(1), Requeue(letter, self.now, self.numbers)]

    @rule(first=st.integers(1, 4), limit=st.integers(1, 3))
    def dead_purge(self, first: int, limit: int) -> None:
        self.batch.append(DeadPurge(first, first + 3, limit))

    @rule(stream=names, upto=seqs, limit=st.integers(1, 9))
    def purge(self, stream: str, upto: int, limit: int) -> None:
        self.batch.append(Purge(stream, upto, limit))

    @rule(definition=definitions, change=st.booleans())
    def define(self, definition: Stream, change: bool) -> None:
        self.batch.append(StreamChange(definition) if change else StreamAdd(definition))

    @rule(stream=names, group=groups, floor=st.integers(0, 9), add=st.integers(0, 2))
    def group(self, stream: str, group: str, floor: int, add: int) -> None:
        self.batch.append(GroupAdd(stream, group, floor, self.now) if add else GroupRemove(stream, group))

    @rule(stream=names, really=st.integers(0, 4))
    def remove(self, stream: str, really: int) -> None:
        if not really:
            self.batch.append(StreamRemove(stream))

    @rule(amount=st.integers(1, 3), wrong=st.sampled_from([0, 0, 0, 1, -1]))
    def spool(self, amount: int, wrong: int) -> None:
        self.numbers += amount
        self.batch += [Numbers(amount), Spool(self.numbers + wrong, "t.a", 1, b"abc", self.now)]

    @rule(below=st.integers(0, 4), bury=st.booleans())
    def unspool(self, below: int, bury: bool) -> None:
        number = self.numbers - below
        self.batch.append(SpoolBury(number, "denied", self.now) if bury else SpoolRelease(number))

    @rule(ahead=later, limit=st.sampled_from([1, 2, 1000]))
    def trim(self, ahead: int, limit: int) -> None:
        """To the end: steps may be cut differently, what is left may not."""
        self.commit()
        for store in (self.disk, self.fake):
            more = True
            while more:
                (removed,) = store.commit([Trim(self.now + ahead, limit)])
                assert isinstance(removed, Removed)
                assert removed.gone <= limit
                more = removed.more

    @rule()
    def commit(self) -> None:
        batch, self.batch = self.batch, []
        assert plain(self.disk.commit(batch)) == plain(self.fake.commit(batch))

    @rule()
    def reopen(self) -> None:
        self.commit()
        self.disk.close()
        self.disk = SqliteStore(self.path, reserve=0)

    @invariant()
    def they_agree(self) -> None:
        if not self.batch:
            assert everything(self.disk, self.now) == everything(self.fake, self.now)


def plain(results: Iterable[Any]) -> list[Any]:
    """Errors compare by their kind."""
    return [type(result) if isinstance(result, QuloError) else result for result in results]


def everything(store: Store, now: int) -> dict[str, Any]:
    """All that can be read."""
    found: dict[str, Any] = {
        "streams": store.streams(),
        "dead": [store.letter(letter.number) for letter in store.dead()],
        "dead counts": store.dead_counts(),
        "marks": store.marks(),
        "spool": [store.spool(0, 100, 1 << 30), store.spool(3, 2, 5), store.spool_state()],
        "problems": store.check().problems,
    }
    for name in (state.stream.name for state in found["streams"]):
        found[name] = [
            store.topics(name),
            store.topics(name, "t.*", "t.a", 1),
            store.read(name, 0, 100, 1 << 30, now),
            store.read(name, 2, 3, 10, now),
            store.fetch(name, range(1, 1000)),
            [store.at(name, time) for time in range(0, now + 2, 3)],
            [store.last(name, pattern) for pattern in (">", "t.*", "t.a", "t.>")],
            store.delayed(name, now),
            [(state, store.retries(name, state.group)) for state in store.groups(name)],
        ]
    return found


TestBoth = Both.TestCase
TestBoth.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
