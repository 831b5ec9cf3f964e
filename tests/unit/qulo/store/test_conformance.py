"""What every store promises, told once and held against each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qulo.errors import NoStream, StoreFailed, StoreFull, UsageError
from qulo.protocol.storage import (
    Ack,
    Appended,
    Bury,
    DeadPurge,
    Delayed,
    GroupAdd,
    GroupRemove,
    Numbers,
    Purge,
    Removed,
    Requeue,
    Retried,
    Retry,
    Spool,
    SpoolBury,
    SpoolRelease,
    Stream,
    StreamAdd,
    StreamChange,
    StreamRemove,
    TopicState,
    Trim,
    size,
)
from tests.unit.qulo.store.shop import PLENTY, Shop, put, span, stream


@pytest.fixture
def s(shop: Shop) -> Shop:
    """A store with a stream S that remembers ids for ten seconds."""
    shop.commit(StreamAdd(stream(dedupe_ms=10_000)))
    return shop


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_there_after_a_restart_as_it_was_defined(shop: Shop) -> None:
    limits: dict[str, Any] = {
        "max_age_ms": 1,
        "max_bytes": 2,
        "max_msgs": 3,
        "per_topic": 4,
        "dedupe_ms": 5,
        "max_tries": 6,
    }
    definition = stream(keep="work", created_ms=7, **limits)
    shop.commit(StreamAdd(definition))
    shop.reopen()
    (state,) = shop.store.streams()
    assert state.stream == definition
    assert (state.first, state.last, state.messages, state.bytes) == (1, 0, 0, 0)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65])
def test_a_name_that_is_none_is_refused(shop: Shop, name: str) -> None:
    assert isinstance(shop.do(StreamAdd(stream(name))), UsageError)
    shop.commit(StreamAdd(stream()))
    assert isinstance(shop.do(GroupAdd("S", name)), UsageError)


@pytest.mark.parametrize("bad", [{"topics": ()}, {"topics": ("a..b",)}, {"keep": "all"}, {"max_msgs": -1}])
def test_a_definition_that_is_none_is_refused(shop: Shop, bad: dict[str, object]) -> None:
    definition = {"name": "S", "topics": ("a",)} | bad
    assert isinstance(shop.do(StreamAdd(Stream(**definition))), UsageError)  # type: ignore[arg-type]
    assert not shop.store.streams()


def test_there_is_one_stream_of_a_name(s: Shop) -> None:
    assert isinstance(s.do(StreamAdd(stream())), UsageError)


def test_a_stream_that_is_not_there_is_said_so(shop: Shop) -> None:
    for operation in (
        put(),
        StreamChange(stream()),
        StreamRemove("S"),
        Purge("S", 1),
        GroupAdd("S", "g"),
        GroupRemove("S", "g"),
        Ack("S", "g", (span(1),)),
        Retry("S", "g", 1, 1),
        Bury("S", "g", 1, "", 1, 0),
    ):
        assert isinstance(shop.do(operation), NoStream)
    with pytest.raises(NoStream):
        shop.store.read("S", 0, 1, 1, 0)


def test_a_group_that_is_not_there_is_said_so(s: Shop) -> None:
    for operation in (
        GroupRemove("S", "g"),
        Ack("S", "g", (span(1),)),
        Retry("S", "g", 1, 1),
        Bury("S", "g", 1, "", 1, 0),
    ):
        assert isinstance(s.do(operation), NoStream)
    with pytest.raises(NoStream):
        s.store.retries("S", "g")


def test_a_refused_operation_leaves_the_rest_of_its_batch_alone(s: Shop) -> None:
    results = s.store.commit([put("1"), put(to="nowhere"), put("2")])
    assert results[0] == Appended(1)
    assert isinstance(results[1], NoStream)
    assert results[2] == Appended(2)


def test_a_removed_stream_takes_everything_with_it_but_its_dead_letters(s: Shop) -> None:
    s.commit(GroupAdd("S", "g"), put("a", id="x"), put("b"), Ack("S", "g", (span(2),)), Retry("S", "g", 1, 1))
    s.commit(Bury("S", "g", 1, "why", 1, 0), StreamRemove("S"))
    assert s.store.streams() == []
    s.reopen()
    s.trim(limit=1)
    s.commit(StreamAdd(stream(dedupe_ms=10_000)), GroupAdd("S", "g"), put("c", id="x"))
    s.reopen()
    assert [(m.seq, m.body) for m in s.all()] == [(1, b"c")]
    assert s.store.topics("S") == [TopicState("t.a", 1, 4)]
    assert s.store.groups("S")[0][1:4] == (0, (), 0)
    assert s.store.dead_counts() == {("S", "g"): 1}


def test_a_stream_of_the_same_name_can_be_made_before_the_old_one_is_swept(s: Shop) -> None:
    s.commit(*[put(str(i)) for i in range(5)])
    s.commit(StreamRemove("S"), StreamAdd(stream()), put("new"))
    s.trim(limit=2)
    s.reopen()
    assert [m.body for m in s.all()] == [b"new"]


# -- appending --------------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_as_it_was(s: Shop) -> None:
    s.commit(put("body", "t.ü", at=5, id="i", visible_ms=7, expires_ms=9), put(at=6))
    s.reopen()
    first, second = s.all()
    assert first == (1, "t.ü", 1, b"body", 5, "i", 7, 9)
    assert second == (2, "t.a", 1, b"", 6, None, 0, 0)


def test_numbers_are_each_streams_own_and_never_used_again(s: Shop) -> None:
    s.commit(StreamAdd(stream("T")))
    assert s.commit(put(), put(to="T"), put()) == [Appended(1), Appended(1), Appended(2)]
    s.commit(Purge("S", 2))
    s.reopen()
    assert s.commit(put()) == [Appended(3)]


def test_a_repeated_id_is_the_first_message_within_the_window(s: Shop) -> None:
    assert s.commit(put("1", id="x", at=0), put("2", id="x", at=1)) == [Appended(1), Appended(1, True)]
    s.reopen()
    assert s.do(put("3", id="x", at=9_999)) == Appended(1, True)
    assert s.do(put("4", id="x", at=10_000)) == Appended(2)
    assert s.do(put("5", id="x", at=10_001)) == Appended(2, True)
    s.trim(30_000)
    assert s.do(put("6", id="x", at=19_000)) == Appended(3)


def test_an_id_is_remembered_when_its_message_is_gone(s: Shop) -> None:
    s.commit(put(id="x"), Purge("S", 1))
    assert s.do(put(id="x", at=1)) == Appended(1, True)


def test_a_stream_without_a_window_stores_ids_and_compares_none(shop: Shop) -> None:
    shop.commit(StreamAdd(stream()))
    assert shop.commit(put(id="x"), put(id="x")) == [Appended(1), Appended(2)]
    assert [m.id for m in shop.all()] == ["x", "x"]


def test_ids_are_each_streams_own(s: Shop) -> None:
    s.commit(StreamAdd(stream("T", dedupe_ms=10_000)))
    assert s.commit(put(id="x"), put(id="x", to="T")) == [Appended(1), Appended(1)]


def test_a_put_of_an_agent_is_stored_once_for_ever(s: Shop) -> None:
    assert s.commit(put(origin=("a", 5)), put(origin=("a", 5)), put(origin=("b", 5))) == [
        Appended(1),
        Appended(0, True),
        Appended(2),
    ]
    s.trim(10**12)
    s.commit(StreamAdd(stream("T")))
    s.reopen()
    assert s.do(put(origin=("a", 4), at=10**12)) == Appended(0, True)
    assert s.do(put(origin=("a", 5), to="T")) == Appended(0, True)
    assert s.do(put(origin=("a", 7))) == Appended(3)
    assert s.store.marks() == {"a": 7, "b": 5}


def test_a_put_known_by_its_id_raises_its_agents_mark(s: Shop) -> None:
    s.commit(put(id="x"))
    assert s.do(put(id="x", origin=("a", 1))) == Appended(1, True)
    s.reopen()
    assert s.store.marks() == {"a": 1}


def test_a_refused_put_does_not_raise_its_agents_mark(s: Shop) -> None:
    s.do(put(to="nowhere", origin=("a", 1)))
    assert s.do(put(origin=("a", 1))) == Appended(1)


def test_counts_are_kept_per_stream_and_topic(s: Shop) -> None:
    s.commit(put("1", "t.b"), put("22", "t.a"), put("333", "t.b"))
    s.reopen()
    s.commit(put("4", "t.b"), Purge("S", 1))
    (state,) = s.store.streams()
    assert (state.first, state.last, state.messages, state.bytes) == (2, 4, 3, 15)
    assert s.store.topics("S") == [TopicState("t.a", 1, 5), TopicState("t.b", 2, 10)]
    s.commit(Purge("S", 4))
    assert s.store.topics("S") == []
    assert s.store.streams()[0].first == 5


def test_at_the_quota_producers_are_refused_and_everything_else_works(kind: str, tmp_path: Path) -> None:
    shop = Shop(kind, tmp_path, {"max_store": 1_000_000})
    shop.commit(StreamAdd(stream(keep="work")), GroupAdd("S", "g"), Numbers(10))
    stored = 0
    while isinstance(shop.do(put("x" * 10_000, at=stored)), Appended):
        stored += 1
    assert 50 <= stored <= 100
    assert isinstance(shop.do(put("x" * 10_000)), StoreFull)
    assert isinstance(shop.do(Spool(1, "t", 1, b"x" * 10_000, 0)), StoreFull)
    assert shop.do(put("y" * 10_000, origin=("a", 1))).code == "store-full"
    assert shop.store.marks() == {}
    shop.reopen()
    assert isinstance(shop.do(put("x" * 10_000)), StoreFull)
    for seq in range(1, stored + 1):
        assert shop.do(Ack("S", "g", (span(seq),))) == seq
    assert shop.trim() == stored
    assert shop.do(put("x" * 10_000)) == Appended(stored + 1)
    shop.store.close()


# -- reading ----------------------------------------------------------------------------------------------------------


def test_reading_goes_on_after_a_number_and_is_bounded(s: Shop) -> None:
    s.commit(*[put("12345") for _ in range(10)])
    read = s.store.read("S", 3, 4, PLENTY, 0)
    assert ([m.seq for m in read.messages], read.delayed, read.upto) == ([4, 5, 6, 7], [], 7)
    each = size("t.a", b"12345")
    assert [m.seq for m in s.store.read("S", 3, 100, 2 * each, 0).messages] == [4, 5]
    assert [m.seq for m in s.store.read("S", 3, 100, 1, 0).messages] == [4]
    assert s.store.read("S", 8, 100, PLENTY, 0).upto == 10
    assert s.store.read("S", 10, 100, PLENTY, 0) == ([], [], 10)


def test_reading_shows_holes_delayed_and_expired_ones(s: Shop) -> None:
    s.commit(put(), put(visible_ms=50), put(expires_ms=20), put(), put())
    s.commit(GroupAdd("S", "g"), Purge("S", 1))
    read = s.store.read("S", 0, 10, PLENTY, 20)
    assert ([m.seq for m in read.messages], read.delayed, read.upto) == ([4, 5], [Delayed(50, 2)], 5)
    read = s.store.read("S", 0, 2, PLENTY, 19)
    assert ([m.seq for m in read.messages], read.delayed, read.upto) == ([3], [Delayed(50, 2)], 3)
    assert [m.seq for m in s.store.read("S", 0, 10, PLENTY, 50).messages] == [2, 4, 5]


def test_single_messages_are_fetched_and_missing_ones_left_out(s: Shop) -> None:
    s.commit(put("1"), put("2"), put("3"), Purge("S", 1))
    assert [m.body for m in s.store.fetch("S", [3, 1, 2, 3, 99, 0, -5])] == [b"2", b"3"]


def test_a_time_finds_the_first_message_stored_then_or_later(s: Shop) -> None:
    assert s.store.at("S", 0) == 1
    s.commit(*[put(at=time) for time in (10, 10, 20, 30, 40)])
    s.commit(Purge("S", 1))
    assert [s.store.at("S", time) for time in (0, 10, 11, 20, 35, 40, 41)] == [2, 2, 3, 3, 5, 5, 6]


def test_the_last_message_of_each_topic_is_found_by_pattern(s: Shop) -> None:
    topics = ["t.a", "t.b", "t.a.x", "t.a", "t.ab", "t.b"]
    s.commit(*[put(str(i), topic) for i, topic in enumerate(topics)])
    last = s.store.last

    def seqs(*args: object) -> list[int]:
        return [m.seq for m in last("S", *args)]  # type: ignore[arg-type]

    assert seqs("t.>") == [4, 3, 5, 6]
    assert seqs("t.*") == [4, 5, 6]
    assert seqs("t.a") == [4]
    assert seqs("t.a.>") == [3]
    assert seqs("*.b") == [6]
    assert seqs(">") == [4, 3, 5, 6]
    assert seqs("t.>", "t.a", 2) == [3, 5]
    assert seqs("t.nothing") == []
    assert [t.topic for t in s.store.topics("S", "t.*", "t.a", 1)] == ["t.ab"]


@pytest.mark.parametrize("per_topic", [0, 5])
def test_the_last_message_is_the_last_that_is_still_there(shop: Shop, per_topic: int) -> None:
    shop.commit(StreamAdd(stream(keep="work", per_topic=per_topic)), GroupAdd("S", "g"), put("1"), put("2"), put("3"))
    shop.commit(Ack("S", "g", (span(2, 3),)), Trim(0))
    assert [m.seq for m in shop.store.last("S", "t.a")] == [1]


def test_delayed_messages_are_listed_with_their_time(s: Shop) -> None:
    s.commit(StreamAdd(stream("T")), put(to="T", visible_ms=25))
    s.commit(put(visible_ms=30), put(), put(visible_ms=20), put(visible_ms=30), put(visible_ms=10))
    s.reopen()
    assert s.store.delayed("S", 10) == [Delayed(20, 3), Delayed(30, 1), Delayed(30, 4)]
    assert s.store.delayed("S", 0, 2) == [Delayed(10, 5), Delayed(20, 3)]


# -- groups -----------------------------------------------------------------------------------------------------------


def test_a_group_has_a_floor_and_what_is_acked_above_it(s: Shop) -> None:
    s.commit(*[put() for _ in range(20)])
    s.commit(GroupAdd("S", "g", created_ms=3), GroupAdd("S", "h", floor=7))
    assert s.do(Ack("S", "g", (span(1, 3), span(5), span(9, 10)))) == 3
    s.reopen()
    g, h = s.store.groups("S")
    assert (g.group, g.floor, g.acked, g.created_ms) == ("g", 3, (span(5), span(9, 10)), 3)
    assert (h.group, h.floor, h.acked) == ("h", 7, ())
    assert s.do(Ack("S", "g", (span(4),))) == 5
    assert s.do(Ack("S", "g", (span(7), span(6), span(8, 12), span(15)))) == 12
    s.reopen()
    assert s.store.groups("S")[0][1:3] == (12, (span(15),))


def test_nothing_is_acked_before_it_is_there(s: Shop) -> None:
    s.commit(put(), GroupAdd("S", "g", floor=100))
    assert s.store.groups("S")[0].floor == 1
    assert s.do(Ack("S", "g", (span(1, 100), span(50)))) == 1
    assert isinstance(s.do(GroupAdd("S", "g")), UsageError)


def test_tries_are_kept_until_the_message_is_acked(s: Shop) -> None:
    s.commit(*[put() for _ in range(5)], GroupAdd("S", "g"))
    s.commit(Retry("S", "g", 2, 1), Retry("S", "g", 4, 3, 99), Retry("S", "g", 2, 2, 50), Retry("S", "g", 9, 1))
    s.reopen()
    assert s.store.retries("S", "g") == [Retried(2, 2, 50), Retried(4, 3, 99)]
    assert s.store.retries("S", "g", after=2) == [Retried(4, 3, 99)]
    assert s.store.groups("S")[0].retries == 2
    s.commit(Ack("S", "g", (span(1, 3),)), Retry("S", "g", 3, 1))
    s.reopen()
    assert s.store.retries("S", "g") == [Retried(4, 3, 99)]
    assert s.store.groups("S")[0].retries == 1


def test_a_group_made_anew_knows_nothing_of_the_old_one(s: Shop) -> None:
    s.commit(*[put() for _ in range(5)], GroupAdd("S", "g"))
    s.commit(Ack("S", "g", (span(2), span(4))), Retry("S", "g", 3, 1), GroupRemove("S", "g"), GroupAdd("S", "g"))
    s.reopen()
    s.trim(limit=1)
    s.reopen()
    assert s.store.groups("S")[0][1:4] == (0, (), 0)
    assert s.store.retries("S", "g") == []


# -- what goes --------------------------------------------------------------------------------------------------------


def test_work_goes_when_every_group_has_acked_it(shop: Shop) -> None:
    shop.commit(StreamAdd(stream(keep="work")), *[put() for _ in range(10)])
    assert shop.trim() == 0
    shop.commit(GroupAdd("S", "g"), GroupAdd("S", "h"), Ack("S", "g", (span(1, 4), span(6, 8))))
    assert shop.trim() == 0
    shop.commit(Ack("S", "h", (span(2, 3), span(7, 9))))
    shop.reopen()
    assert shop.trim() == 4
    assert shop.seqs() == [1, 4, 5, 6, 9, 10]
    shop.commit(GroupRemove("S", "h"))
    assert shop.trim(limit=1) == 3
    assert shop.seqs() == [5, 9, 10]
    shop.commit(GroupRemove("S", "g"))
    assert shop.trim() == 0


def test_limits_take_the_oldest_first(shop: Shop) -> None:
    shop.commit(StreamAdd(stream(max_msgs=7)), *[put("12345", at=at) for at in range(10)])
    assert shop.trim() == 3
    shop.commit(StreamChange(stream(max_bytes=5 * size("t.a", b"12345") + 1)))
    assert shop.trim() == 2
    shop.commit(StreamChange(stream(max_age_ms=100)))
    assert shop.trim(now_ms=107) == 3
    shop.reopen()
    assert shop.seqs() == [9, 10]
    assert shop.store.streams()[0].messages == 2


def test_each_topic_keeps_its_newest(shop: Shop) -> None:
    shop.commit(StreamAdd(stream(per_topic=2)))
    shop.commit(*[put(str(i), f"t.{'abc'[i % 3]}") for i in range(12)], put("x", "t.d"))
    shop.reopen()
    assert shop.trim(limit=1) == 6
    assert shop.seqs() == [7, 8, 9, 10, 11, 12, 13]
    shop.commit(StreamChange(stream(per_topic=1)))
    assert shop.trim() == 3
    shop.commit(put("new", "t.d"), put("new", "t.d"))
    assert shop.trim() == 2
    assert [m.seq for m in shop.store.last("S", ">")] == [10, 11, 12, 15]
    assert shop.seqs() == [10, 11, 12, 15]


def test_a_number_per_topic_is_settled_when_the_stream_is_made(s: Shop) -> None:
    assert isinstance(s.do(StreamChange(stream(per_topic=1))), UsageError)
    s.commit(StreamAdd(stream("T", per_topic=1)))
    assert isinstance(s.do(StreamChange(stream("T"))), UsageError)


def test_expired_messages_go(s: Shop) -> None:
    s.commit(put(expires_ms=50), put(), put(expires_ms=20), put(expires_ms=20))
    s.reopen()
    assert s.trim(now_ms=19) == 0
    assert s.trim(now_ms=20, limit=1) == 2
    assert s.seqs() == [1, 2]


def test_a_trim_and_a_purge_keep_to_their_limit(shop: Shop) -> None:
    shop.commit(StreamAdd(stream(max_msgs=1)), *[put() for _ in range(50)])
    assert shop.do(Trim(0, 20)) == Removed(20, True)
    assert shop.do(Purge("S", 50, 10)) == Removed(10, True)
    assert shop.do(Trim(0, 100)) == Removed(19, False)


def test_what_is_appended_and_trimmed_in_one_batch_is_gone(shop: Shop) -> None:
    shop.commit(StreamAdd(stream(keep="work")), GroupAdd("S", "g"))
    *_, removed = shop.commit(put(), put(), Ack("S", "g", (span(1, 2),)), Trim(0))
    assert removed == Removed(2, False)
    assert shop.store.streams()[0][1:] == (3, 2, 0, 0)


# -- dead letters -----------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_a_copy_and_acked(s: Shop) -> None:
    s.commit(put("1"), put("22", "t.b", at=5, id="i", visible_ms=1, expires_ms=10**9), GroupAdd("S", "g"))
    s.commit(Retry("S", "g", 2, 4))
    number = s.do(Bury("S", "g", 2, "bad", 5, 77))
    s.commit(Purge("S", 2))
    s.reopen()
    (letter,) = s.store.dead()
    assert letter == (number, "S", "g", 2, "t.b", 2, "bad", 5, 77)
    assert s.store.letter(number) == (letter, (2, "t.b", 1, b"22", 5, "i", 1, 10**9))
    assert s.store.groups("S")[0][1:4] == (0, (span(2),), 0)
    assert s.store.dead_counts() == {("S", "g"): 1}
    assert s.store.dead(after=number) == []


def test_what_is_gone_or_acked_is_not_buried(s: Shop) -> None:
    s.commit(put(), put(), GroupAdd("S", "g"), Purge("S", 1))
    assert s.do(Bury("S", "g", 1, "", 1, 0)) == 0
    assert s.store.groups("S")[0].floor == 1
    s.commit(Ack("S", "g", (span(2),)))
    assert s.do(Bury("S", "g", 2, "", 1, 0)) == 0
    assert s.do(Bury("S", "g", 3, "", 1, 0)) == 0
    assert s.store.dead() == []
    assert s.store.letter(1) is None


def test_a_requeued_letter_is_new_for_its_group_alone(s: Shop) -> None:
    s.commit(put("x", id="i", expires_ms=50), put(), GroupAdd("S", "g"), GroupAdd("S", "h"))
    number = s.do(Bury("S", "g", 1, "bad", 5, 0))
    assert s.do(Requeue(number, 99)) == Appended(3)
    s.reopen()
    assert s.all()[-1] == (3, "t.a", 1, b"x", 99, "i", 0, 0)
    g, h = s.store.groups("S")
    assert (g.floor, g.acked) == (1, ())
    assert (h.floor, h.acked) == (0, (span(3),))
    assert s.store.dead() == []
    assert s.do(Requeue(number, 99)) is None
    assert s.do(put(id="i", at=100)) == Appended(3, True)


def test_a_letter_whose_group_is_gone_stays_dead(s: Shop) -> None:
    s.commit(put(), GroupAdd("S", "g"))
    number = s.do(Bury("S", "g", 1, "bad", 5, 0))
    s.commit(GroupRemove("S", "g"))
    assert isinstance(s.do(Requeue(number, 0)), NoStream)
    s.commit(StreamRemove("S"))
    assert isinstance(s.do(Requeue(number, 0)), NoStream)
    assert [letter.number for letter in s.store.dead()] == [number]


def test_dead_letters_are_purged_by_number(s: Shop) -> None:
    s.commit(*[put() for _ in range(5)], GroupAdd("S", "g"))
    s.commit(*[Bury("S", "g", seq, "", 1, 0) for seq in range(1, 6)])
    assert s.do(DeadPurge(2, 4, 2)) == Removed(2, True)
    assert s.do(DeadPurge(2, 4)) == Removed(1, False)
    assert [letter.seq for letter in s.store.dead()] == [1, 5]
    s.commit(DeadPurge(1, 9))
    s.reopen()
    s.commit(put())
    assert s.do(Bury("S", "g", 6, "", 1, 0)) == 6


# -- the spool --------------------------------------------------------------------------------------------------------


def test_a_spool_gives_back_what_was_put_in_oldest_first(shop: Shop) -> None:
    agent = shop.store.spool_state().agent
    assert shop.do(Numbers(5)) == 1
    puts = [Spool(n, "t", 1, f"{n}".encode(), n, f"i{n}", 2 * n, 3 * n) for n in (1, 3, 5)]
    shop.commit(*puts)
    shop.reopen()
    assert shop.store.spool(0, 10, PLENTY) == puts
    assert shop.store.spool(1, 1, PLENTY) == puts[1:2]
    assert shop.store.spool(1, 10, 1) == puts[1:2]
    assert shop.store.spool_state() == (agent, 1, 3, 6, 6)
    assert shop.do(SpoolRelease(3)) == 2
    assert shop.do(SpoolRelease(3)) == 0
    shop.reopen()
    assert shop.store.spool_state() == (agent, 5, 1, 2, 6)


def test_spool_numbers_are_never_given_out_twice(shop: Shop) -> None:
    assert shop.do(Numbers(100)) == 1
    shop.reopen()
    assert shop.do(Numbers(1)) == 101
    shop.commit(Spool(50, "t", 1, b"", 0), SpoolRelease(50))
    shop.reopen()
    for number in (50, 49, 0, 102):
        assert isinstance(shop.do(Spool(number, "t", 1, b"", 0)), UsageError)


def test_what_the_master_refused_is_dead_and_can_be_spooled_again(shop: Shop) -> None:
    shop.commit(Numbers(5), Spool(1, "t", 1, b"x", 7, "i"), Spool(2, "t", 1, b"y", 7))
    number = shop.do(SpoolBury(1, "no-stream", 9))
    assert shop.do(SpoolBury(1, "no-stream", 9)) == 0
    shop.reopen()
    assert shop.store.dead() == [(number, "", "", 1, "t", 1, "no-stream", 0, 9)]
    assert shop.store.spool_state()[1:4] == (2, 1, 2)
    assert isinstance(shop.do(Requeue(number, 20, 2)), UsageError)
    assert shop.do(Requeue(number, 20, 4)) == Appended(4)
    assert shop.store.spool(0, 10, PLENTY)[1] == (4, "t", 1, b"x", 20, "i", 0, 0)
    assert shop.store.dead() == []


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_report_says_what_each_stream_has(s: Shop) -> None:
    s.commit(put(), put())
    report = s.store.check()
    assert (report.problems, report.last) == ([], {"S": 2})


def test_a_closed_store_refuses_everything(s: Shop) -> None:
    s.store.close()
    for call in (
        lambda: s.store.commit([put()]),
        s.store.streams,
        s.store.check,
        lambda: s.store.read("S", 0, 1, 1, 0),
    ):
        with pytest.raises(StoreFailed):
            call()
