"""Streams at a hub, over the fake network and the fake store: what is put is kept, and each group gets it."""

from __future__ import annotations

from typing import Any

import pytest

from qulo.errors import NoStream, QuloError, StoreFull, UsageError
from qulo.protocol import events
from qulo.protocol.journal import ROOM
from qulo.protocol.permissions import Permissions, Rule
from qulo.protocol.ports import Limits
from qulo.protocol.storage import Append, Operation, Result, Stream
from qulo.protocol.streams import TRIM, Streams
from qulo.store.memory import MemoryStore
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Net


class Shop:
    """A hub with the stream ORDERS, a program that puts and two that work."""

    def __init__(self, limits: Limits | None = None, **options: Any) -> None:
        self.net = Net(limits)
        self.disk = MemoryStore()
        self.hub = self.net.host("hub", disk=self.disk)
        self.add(Stream("ORDERS", ("orders.>",), **{"keep": "limits", "max_tries": 3, "dedupe_ms": 60_000, **options}))
        self.putter = self.net.program("putter", self.hub)
        self.one = self.net.program("one", self.hub)
        self.two = self.net.program("two", self.hub)

    @property
    def streams(self) -> Streams:
        assert self.hub.hub.streams is not None
        return self.hub.hub.streams

    def add(self, stream: Stream) -> None:
        told: list[QuloError | None] = []
        self.streams.add(stream, told.append, self.net.now)
        self.hub.flush()
        assert told == [None]

    def put(self, *bodies: str, topic: str = "orders.new", **extra: Any) -> list[Any]:
        rids = self.putter.put(topic, *bodies, **extra)
        self.net.settle()
        return self.putter.put_answers(rids)

    def consume(self, program: Program, **options: Any) -> int:
        sid = program.consume("ORDERS", **options)
        self.net.settle()
        return sid

    def ack(self, program: Program, sid: int, *seqs: int) -> None:
        program.ack(sid, *seqs)
        self.net.settle()

    def done(self, group: str = "g") -> tuple[int, list[tuple[int, int]]]:
        """The floor of a group and the spans above it, in the store."""
        state = next(state for state in self.disk.groups("ORDERS") if state.group == group)
        return state.floor, [(first, last) for first, last in state.acked]

    def bodies(self, program: Program, sid: int) -> list[str]:
        return [body for _, body, _, _ in program.delivered(sid)]


# -- putting


def test_a_put_is_answered_when_it_is_on_disk_and_not_before() -> None:
    shop = Shop()
    shop.hub.disk_is_slow = True
    assert shop.put("1", "2") == [None, None]
    shop.hub.sync()
    shop.net.settle()
    assert shop.putter.put_answers([1, 2]) == [("master", 1, False), ("master", 2, False)]
    assert [message.body for message in shop.disk.read("ORDERS", 0, 10, 1000, 0).messages] == [b"1", b"2"]


def test_what_comes_while_a_batch_is_under_way_goes_together() -> None:
    shop = Shop()
    shop.hub.disk_is_slow = True
    shop.put("1")
    first = shop.hub.under_way
    for number in range(5):
        shop.put(str(number))
    assert shop.hub.under_way is first
    shop.hub.sync()
    assert shop.hub.under_way is not None
    assert sum(isinstance(op, Append) for op in shop.hub.under_way.operations) == 5


def test_a_topic_that_no_stream_stores_is_refused_and_says_what_makes_one() -> None:
    shop = Shop()
    assert shop.put("1", topic="other") == [NoStream.code]
    assert "qulo stream add" in next(e.text for e in shop.putter.events if isinstance(e, events.Unstored))
    assert shop.put("1", topic="local.orders") == [NoStream.code]


def test_an_id_is_stored_once() -> None:
    shop = Shop()
    assert shop.put("1", ids=["a"]) == [("master", 1, False)]
    assert shop.put("1", ids=["a"]) == [("master", 1, True)]
    assert shop.put("2", ids=["b"]) == [("master", 2, False)]


def test_whoever_subscribes_gets_what_was_put_once_it_is_stored_and_no_duplicate() -> None:
    shop = Shop()
    tracker = shop.one.subscribe("orders.>")
    shop.net.settle()
    shop.hub.disk_is_slow = True
    shop.put("1", ids=["a"])
    assert shop.one.texts(tracker) == []
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.settle()
    shop.put("1", ids=["a"])
    assert shop.one.texts(tracker) == ["1"]


def test_what_is_published_on_a_streams_topic_is_stored_too() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.putter.publish("orders.new", "1", "2")
    shop.putter.publish("other", "3")
    shop.net.settle()
    assert shop.bodies(shop.one, sid) == ["1", "2"]


class Full(MemoryStore):
    """Nothing can be appended."""

    full = True

    def commit(self, operations: Any) -> list[Result]:
        kept: list[Operation] = [op for op in operations if not (self.full and isinstance(op, Append))]
        results = iter(super().commit(kept))
        return [
            StoreFull("the store is full") if self.full and isinstance(op, Append) else next(results)
            for op in operations
        ]


def test_what_cannot_be_stored_is_told_to_whoever_put_or_published_it() -> None:
    shop = Shop()
    shop.hub.disk = Full()
    shop.hub.restart()
    shop.net.advance(2)
    shop.add(Stream("ORDERS", ("orders.>",)))
    assert shop.put("1", "2") == [StoreFull.code] * 2
    shop.putter.publish("orders.new", "3")
    shop.net.settle()
    assert [e.error.code for e in shop.putter.events if isinstance(e, events.Forbidden)] == [StoreFull.code]
    assert shop.streams.unstored == 1
    assert shop.hub.said("1 messages were published and not stored")


def test_nobody_is_refused_when_the_disk_is_slow_but_credit_runs_out() -> None:
    shop = Shop()
    shop.hub.disk_is_slow = True
    shop.put("first")
    body = b"x" * 50_000
    for _ in range(2 * ROOM // len(body)):
        if shop.putter.link.room < len(body):
            break
        shop.putter.put("orders.new", body)
        shop.net.settle()
    assert shop.streams.journal.is_full or shop.putter.link.room < len(body)
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.settle()
    assert not shop.streams.journal.is_full
    assert None not in shop.putter.put_answers(list(range(1, shop.putter.link.next_id)))


@pytest.mark.parametrize(
    "extra",
    [
        {"what": 1},
        {"ids": ["a", "b"]},
        {"ids": [1]},
        {"ids": [""]},
        {"delay": -1},
        {"delay": "soon"},
        {"ttl": 10**18},
        {"agent": "a"},
        {"number": 5},
        {"agent": "a", "number": 0},
    ],
)
def test_a_put_that_says_more_than_it_may_is_no_put(extra: dict[str, Any]) -> None:
    shop = Shop()
    assert shop.put("1", **extra) == [None]
    assert shop.hub.hub.counters.bad_frames == 1
    assert shop.hub.session(shop.one).bad == 0  # nobody else's matter


# -- consuming


def test_each_group_gets_every_message_and_each_message_goes_to_one_member() -> None:
    shop = Shop()
    one, two, other = shop.consume(shop.one), shop.consume(shop.two), shop.consume(shop.two, group="h")
    shop.put(*map(str, range(10)))
    first, second = shop.bodies(shop.one, one), shop.bodies(shop.two, two)
    assert first
    assert second
    assert sorted(first + second) == [str(n) for n in range(10)]
    assert shop.bodies(shop.two, other) == [str(n) for n in range(10)]


def test_a_new_group_begins_with_the_first_message_or_with_what_is_new() -> None:
    shop = Shop()
    shop.put("1", "2")
    first, new = shop.consume(shop.one), shop.consume(shop.one, group="h", start="new")
    shop.put("3")
    assert shop.bodies(shop.one, first) == ["1", "2", "3"]
    assert shop.bodies(shop.one, new) == ["3"]


def test_no_consumer_holds_more_than_it_wants() -> None:
    shop = Shop()
    sid = shop.consume(shop.one, prefetch=3)
    shop.put(*map(str, range(10)))
    assert shop.bodies(shop.one, sid) == ["0", "1", "2"]
    shop.ack(shop.one, sid, 2)
    assert shop.bodies(shop.one, sid) == ["3"]


def test_an_ack_is_in_the_store_and_then_told() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.put(*map(str, range(5)))
    shop.hub.disk_is_slow = True
    shop.ack(shop.one, sid, 1, 2, 4)
    record = shop.one.link.settled_by(sid)
    assert shop.done() == (0, [])
    shop.hub.sync()
    shop.net.settle()
    assert shop.done() == (2, [(4, 4)])
    assert [e.record for e in shop.one.events if isinstance(e, events.Acked)] == [record] == [1]


def test_a_group_goes_on_where_it_was_and_says_what_may_have_been_delivered_before() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.put(*map(str, range(5)))
    assert all(not again for _, _, _, again in shop.one.delivered(sid))
    shop.ack(shop.one, sid, 1, 2, 4)
    shop.hub.restart()
    shop.net.advance(3)
    shop.put("new")
    assert shop.one.delivered(sid) == [(3, "2", 1, True), (5, "4", 1, True), (6, "new", 1, False)]


def test_what_is_given_back_comes_again_after_its_delay_and_counts() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.put("1", "2")
    shop.one.delivered(sid)
    shop.one.link.nak(sid, [1, 1], 0, True)
    shop.one.link.nak(sid, [2, 2], 5000, True)
    shop.one.turn()
    shop.net.settle()
    assert shop.one.delivered(sid) == [(1, "1", 2, True)]
    shop.net.advance(4.5)
    assert shop.one.delivered(sid) == []
    shop.net.advance(1.5)
    assert shop.one.delivered(sid) == [(2, "2", 2, True)]


def test_a_delay_outlives_a_restart() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.put("1")
    shop.one.link.nak(sid, [1, 1], 20_000, True)
    shop.one.turn()
    shop.net.settle()
    shop.one.delivered(sid)
    shop.hub.restart()
    shop.net.advance(10)
    assert shop.one.delivered(sid) == []
    shop.net.advance(11)
    assert shop.one.delivered(sid) == [(1, "1", 2, True)]


def test_a_lease_ends_and_another_one_gets_the_message() -> None:
    shop = Shop()
    one = shop.consume(shop.one, lease=5)
    shop.put("1")
    assert shop.bodies(shop.one, one) == ["1"]
    two = shop.consume(shop.two)
    shop.net.advance(4)
    assert shop.two.delivered(two) == []
    shop.one.link.extend(one, [1, 1])
    shop.one.turn()
    shop.net.advance(4)
    assert shop.two.delivered(two) == []
    shop.net.advance(2)
    assert shop.two.delivered(two) == [(1, "1", 2, True)]  # the one that was too slow is asked last


def test_whoever_had_it_too_long_is_told_and_its_ack_counts_until_somebody_else_has_it() -> None:
    shop = Shop()
    one = shop.consume(shop.one, lease=5, prefetch=1)
    shop.put("1")
    shop.hub.disk_is_slow = True  # so that it is not read again at once
    shop.net.advance(6)
    assert [e.spans for e in shop.one.events if isinstance(e, events.Expired)] == [[1, 1]]
    shop.ack(shop.one, one, 1)
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.settle()
    assert shop.bodies(shop.one, one) == ["1"]  # the first time only
    assert shop.done() == (1, [])


def test_a_late_ack_does_not_take_the_message_from_whoever_has_it_now() -> None:
    shop = Shop()
    one = shop.consume(shop.one, lease=5)
    shop.put("1")
    shop.one.wire.paused.add("down")
    two = shop.consume(shop.two)
    shop.one.wire.paused.clear()
    shop.hub.hub.streams.table["ORDERS"].groups["g"].consumers[0].prefetch = 0  # type: ignore[union-attr]
    shop.net.advance(6)
    assert shop.two.delivered(two) == [(1, "1", 2, True)]
    shop.ack(shop.one, one, 1)
    assert shop.done() == (0, [])
    shop.ack(shop.two, two, 1)
    assert shop.done() == (1, [])


def test_a_worker_that_is_lost_gives_its_messages_back_and_one_of_them_is_counted() -> None:
    shop = Shop()
    one = shop.consume(shop.one)
    shop.put("1", "2", "3")
    assert shop.bodies(shop.one, one) == ["1", "2", "3"]
    two = shop.consume(shop.two)
    shop.hub.expire(shop.one)
    shop.net.settle()
    assert shop.two.delivered(two) == [(1, "1", 2, True), (2, "2", 1, True), (3, "3", 1, True)]


def test_a_message_that_kills_its_workers_ends_in_the_dead_letters_and_takes_no_other_with_it() -> None:
    shop = Shop()
    shop.put("poison", "2", "3")
    sid = shop.consume(shop.one)
    for _ in range(3):
        assert shop.one.delivered(sid)[0][1] == "poison"
        shop.hub.expire(shop.one)
        shop.net.advance(4)  # it comes back, and consumes again
    assert [(letter.seq, letter.tries) for letter in shop.disk.dead()] == [(1, 3)]
    assert "3 times delivered; one was lost" in shop.disk.dead()[0].reason
    assert shop.one.delivered(sid) == [(2, "2", 1, True), (3, "3", 1, True)]


def test_a_rejected_message_goes_to_the_dead_letters_with_its_reason() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.put("1", "2")
    shop.one.link.reject(sid, 1, "no such customer")
    shop.one.turn()
    shop.net.settle()
    assert [(letter.seq, letter.reason) for letter in shop.disk.dead()] == [(1, "no such customer")]
    assert shop.done() == (1, [])
    record = shop.one.link.settled_by(sid)
    assert [e.record for e in shop.one.events if isinstance(e, events.Acked)] == [record]


def test_a_requeued_letter_goes_to_its_own_group_only() -> None:
    shop = Shop()
    one, other = shop.consume(shop.one), shop.consume(shop.two, group="h")
    shop.put("1")
    shop.one.link.reject(one, 1, "later")
    shop.one.turn()
    shop.ack(shop.two, other, 1)
    shop.one.delivered(one), shop.two.delivered(other)
    shop.streams.requeue(shop.disk.dead()[0], lambda results, now: None, shop.net.now)
    shop.hub.flush()
    shop.net.settle()
    shop.put("3")
    assert shop.one.delivered(one) == [(2, "1", 1, False), (3, "3", 1, False)]
    assert shop.two.delivered(other) == [(3, "3", 1, False)]
    shop.ack(shop.two, other, 3)
    assert shop.done("h") == (3, [])


def test_a_letter_of_a_group_that_was_removed_is_not_requeued_into_nothing() -> None:
    shop = Shop(keep="work")
    sid = shop.consume(shop.one)
    shop.put("1")
    shop.one.link.reject(sid, 1, "no")
    shop.one.turn()
    shop.net.settle()
    shop.streams.remove_group("ORDERS", "g", lambda error: None)
    shop.hub.flush()
    with pytest.raises(NoStream, match="has no group g any more"):
        shop.streams.requeue(shop.disk.dead()[0], lambda results, now: None, shop.net.now)
    assert len(shop.disk.dead()) == 1


def test_what_was_purged_is_delivered_to_nobody_and_holds_nobody_up() -> None:
    shop = Shop()
    sid = shop.consume(shop.one, prefetch=1)
    shop.put("1", "2", "3")
    assert shop.bodies(shop.one, sid) == ["1"]
    told: list[QuloError | int] = []
    shop.streams.purge("ORDERS", 2, told.append)
    shop.hub.flush()
    assert told == [2]
    shop.ack(shop.one, sid, 1)
    assert shop.bodies(shop.one, sid) == ["3"]
    shop.ack(shop.one, sid, 3)
    assert shop.done() == (3, [])


def test_a_delayed_message_comes_when_its_time_has_come_and_an_expired_one_never() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    late = shop.consume(shop.two, group="h")
    shop.put("later", delay=5000)
    shop.put("gone", ttl=3000, delay=4000)
    shop.put("now")
    assert shop.bodies(shop.one, sid) == ["now"]
    shop.net.advance(4)
    assert shop.bodies(shop.one, sid) == []
    shop.net.advance(2)
    assert shop.one.delivered(sid) == [(1, "later", 1, False)]
    assert shop.bodies(shop.two, late) == ["now", "later"]
    shop.ack(shop.one, sid, 1, 3)
    shop.net.advance(3)
    shop.put("last")
    shop.ack(shop.one, sid, 4)
    assert shop.done() == (4, [])


def test_a_delay_that_ends_while_the_stream_is_being_read_is_not_forgotten() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.hub.disk_is_slow = True
    shop.put("later", delay=400)
    shop.hub.sync()  # stored; the next batch reads on, and finds it delayed
    assert shop.hub.under_way is not None
    shop.net.advance(0.5)
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.advance(1)
    assert shop.one.delivered(sid) == [(1, "later", 1, False)]


def test_a_delay_that_ends_before_the_message_is_stored_is_not_forgotten() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.hub.disk_is_slow = True
    shop.put("1", delay=1)
    shop.put("2", delay=400)
    shop.hub.sync()  # the first is stored; the second is on its way, with a question for what came after nothing
    shop.net.advance(0.5)
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.advance(1)
    assert {body for _, body, _, _ in shop.one.delivered(sid)} == {"1", "2"}


def test_a_delay_that_has_ended_once_is_not_forgotten_when_the_clock_is_set_back() -> None:
    shop = Shop()
    shop.one.close(shop.consume(shop.one))
    shop.net.settle()
    shop.put("later", delay=400)
    shop.net.advance(1)
    shop.streams.offset_ms -= 5000
    sid = shop.consume(shop.one)
    shop.net.advance(10)
    assert shop.one.delivered(sid) == [(1, "later", 1, False)]


def test_leases_end_also_of_what_was_given_out_of_order() -> None:
    shop = Shop(max_tries=0)
    sid = shop.consume(shop.one, lease=2)
    shop.put("1", "2", "3", "4")
    shop.one.link.extend(sid, [4, 4, 1, 1, 3, 3, 2, 2])  # as many as from the first to the last, which says nothing
    shop.one.link.extend(sid, [2, 2, 1, 1, 4, 4])
    shop.one.turn()
    shop.net.settle()
    shop.ack(shop.one, sid, 3)
    shop.net.advance(5)
    again = {seq for seq, _, _, redelivered in shop.one.delivered(sid) if redelivered}
    assert again == {1, 2, 4}


def test_a_stream_may_be_removed_while_somebody_reads_it_and_the_store_goes_on() -> None:
    shop = Shop()
    shop.put("1", "2")
    shop.hub.disk_is_slow = True
    shop.consume(shop.one)  # makes its group; then it reads, in a batch behind that
    told: list[QuloError | None] = []
    found: list[Any] = []
    shop.streams.remove("ORDERS", told.append)
    shop.streams.journal.ask(lambda store: store.topics("ORDERS"), lambda topics, now: found.append(topics))
    shop.streams.journal.ask(
        lambda store: store.topics("ORDERS"), lambda topics, now: None, lambda error, now: found.append(error.code)
    )
    shop.hub.disk_is_slow = False
    shop.hub.sync()
    shop.net.settle()
    assert told == [None]
    assert found == [NoStream.code]


def test_work_is_gone_when_every_group_has_acked_it() -> None:
    shop = Shop(keep="work")
    one, other = shop.consume(shop.one), shop.consume(shop.two, group="h")
    shop.put("1", "2")
    shop.ack(shop.one, one, 1, 2)
    shop.ack(shop.two, other, 1)
    shop.net.advance(3)
    assert [message.seq for message in shop.disk.read("ORDERS", 0, 10, 1000, 0).messages] == [2]


def test_what_a_limit_removed_is_counted_as_missed_and_holds_nobody_up() -> None:
    shop = Shop(max_msgs=5)
    shop.put(*map(str, range(20)))
    shop.net.advance(3)
    sid = shop.consume(shop.one)
    assert [seq for seq, *_ in shop.one.delivered(sid)] == [16, 17, 18, 19, 20]
    shop.ack(shop.one, sid, 16, 17, 18, 19, 20)
    assert shop.done() == (20, [])
    assert shop.streams.group_report("ORDERS")[0]["missed"] == 15


def test_trimming_goes_on_until_nothing_is_left_to_trim() -> None:
    shop = Shop(max_msgs=1)
    for _ in range(3):
        shop.put(*(["x"] * TRIM))
    shop.net.advance(4)
    assert shop.disk.streams()[0].messages == 1


def test_a_large_backlog_is_read_in_parts_and_in_order() -> None:
    shop = Shop()
    shop.put(*map(str, range(5000)))
    sid = shop.consume(shop.one, prefetch=700)
    got: list[int] = []
    while batch := shop.one.delivered(sid):
        got += [seq for seq, *_ in batch]
        shop.ack(shop.one, sid, *(seq for seq, *_ in batch))
    assert got == list(range(1, 5001))
    assert shop.done() == (5000, [])


def test_messages_that_nobody_waits_for_are_not_held_in_memory() -> None:
    shop = Shop()
    shop.put(*map(str, range(50)))
    sid = shop.consume(shop.one, prefetch=1)
    shop.one.link.close(sid)
    shop.one.turn()
    shop.net.settle()
    assert not shop.streams.table["ORDERS"].groups["g"]._ready
    again = shop.consume(shop.two)
    assert [seq for seq, *_ in shop.two.delivered(again)] == list(range(1, 51))


# -- the end of streams, groups and rights


def test_consumers_of_a_removed_stream_or_group_are_told() -> None:
    shop = Shop()
    one, other = shop.consume(shop.one), shop.consume(shop.two, group="h")
    shop.streams.remove_group("ORDERS", "g", lambda error: None)
    shop.hub.flush()
    shop.net.settle()
    assert [(e.sid, e.error.code) for e in shop.one.events if isinstance(e, events.Rejected)] == [(one, NoStream.code)]
    shop.streams.remove("ORDERS", lambda error: None)
    shop.hub.flush()
    shop.net.settle()
    assert [(e.sid, e.error.code) for e in shop.two.events if isinstance(e, events.Rejected)] == [
        (other, NoStream.code)
    ]
    assert shop.put("1") == [NoStream.code]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"stream": "NONE"}, "there is no stream 'NONE'; there are: ORDERS"),
        ({"group": "a b"}, "the group's name 'a b'"),
        ({"prefetch": 0}, "prefetch is 1 to 10000"),
        ({"lease": 0.0}, "a lease is 100 ms"),
        ({"start": "middle"}, "first or new"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_with_what_could(wish: dict[str, Any], words: str) -> None:
    shop = Shop()
    shop.one.consume(**{"stream": "ORDERS", **wish})
    shop.net.settle()
    assert next(str(e.error) for e in shop.one.events if isinstance(e, events.Rejected)).find(words) >= 0


def test_streams_have_no_topic_in_common_and_none_of_a_host_or_of_the_system() -> None:
    shop = Shop()
    for pattern in ("orders.new", ">", "*.new", "local.x", "$qulo.x"):
        with pytest.raises(UsageError):
            shop.streams.add(Stream("OTHER", (pattern,)), lambda error: None, shop.net.now)
    with pytest.raises(UsageError, match="there is a stream ORDERS already"):
        shop.streams.add(Stream("ORDERS", ("x",)), lambda error: None, shop.net.now)


def test_who_may_not_publish_puts_nothing_and_who_may_not_consume_gets_nothing() -> None:
    shop = Shop()
    rules = (Rule(True, ("publish",), ("*",), ("orders.a",)), Rule(True, ("stream",), ("nobody",), (">",)))
    shop.hub.hub.adopt_permissions(Permissions(rules), shop.net.now)
    assert shop.put("1", topic="orders.b") == ["denied"]
    assert shop.put("1", topic="orders.a") == [("master", 1, False)]
    shop.consume(shop.one)
    assert [e.error.code for e in shop.one.events if isinstance(e, events.Rejected)] == ["denied"]


def test_a_consumer_that_may_not_any_more_is_told_and_gets_nothing_more() -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.hub.hub.adopt_permissions(Permissions((Rule(True, ("publish",), ("*",), (">",)),)), shop.net.now)
    shop.put("1")
    assert shop.one.delivered(sid) == []
    assert [e.error.code for e in shop.one.events if isinstance(e, events.Rejected)] == ["denied"]


@pytest.mark.parametrize("spans", [[1], ["a", 2], [1.5, 2], [[1, 2]], [2, 1], [0, 1], [1, 2**62], [1, 9000] * 3])
def test_spans_that_are_none_are_a_bad_frame_and_cost_nothing(spans: list[Any]) -> None:
    shop = Shop()
    sid = shop.consume(shop.one)
    shop.one.link.nak(sid, spans, 0, True)
    shop.one.turn()
    shop.net.settle()
    assert shop.hub.hub.counters.bad_frames == 1
