"""Each rule of the checker, broken once by a small history, and the legal history beside it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.history.checker import check
from tests.history.events import FAIL, INVOKE, OK, UNKNOWN, Event
from tests.history.report import KEPT, Final, Params

STREAMS = {"ORDERS": ("orders.>",)}
EMPTY = Final(streams=STREAMS, left={("ORDERS", "billing"): set()})
LEASE = Params(lease=30, grace=2)


class Story:
    """Events one second apart, unless told otherwise."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.t = 100.0

    def say(self, who: str, op: str, phase: str = OK, **said: Any) -> Story:
        """One event."""
        self.t += said.pop("after", 1.0)
        self.events.append(Event(self.t, who, op, phase, **said))
        return self

    def put(self, n: int, end: str = OK, who: str = "p", **said: Any) -> Story:
        """A put with its end; "": it has none. It is number n of the stream, too."""
        key = f"{who}-{n}"
        self.say(who, "put", INVOKE, key=key, topic="orders.new", n=n, id=said.pop("id", key))
        stored: dict[str, Any] = {"stream": "ORDERS", "seq": n, "at": "master"}
        if end == OK:
            said = stored | said
        return self.say(who, "put", end, key=key, **said) if end else self

    def deliver(self, n: int, who: str = "w", sender: str = "p", **said: Any) -> Story:
        """To a worker."""
        where: dict[str, Any] = {"seq": n, "stream": "ORDERS", "group": "billing", "topic": "orders.new"}
        return self.say(who, "deliver", key=f"{sender}-{n}", **where | said)

    def settle(self, n: int, who: str = "w", op: str = "ack", **said: Any) -> Story:
        """By a worker."""
        return self.say(who, op, INVOKE, key=f"p-{n}", stream="ORDERS", group="billing", **said)

    def flush(self, who: str = "w", end: str = OK) -> Story:
        """Of a worker."""
        self.say(who, "flush", INVOKE, stream="ORDERS", group="billing")
        return self.say(who, "flush", end, stream="ORDERS", group="billing")

    def done(self, n: int, who: str = "w") -> Story:
        """Delivered, acknowledged, flushed."""
        return self.deliver(n, who).settle(n, who).flush(who)

    def publish(self, n: int, end: str = OK, topic: str = "news") -> Story:
        """By a publisher."""
        self.say("p", "publish", INVOKE, key=f"p-{n}", topic=topic, n=n)
        return self.say("p", "publish", end, key=f"p-{n}") if end else self

    def receive(self, n: int, topic: str = "news") -> Story:
        """By a subscriber."""
        return self.say("s", "receive", key=f"p-{n}", topic=topic)


def rules(story: Story, final: Final = EMPTY, params: Params = LEASE) -> list[str]:
    """The rules that a story breaks."""
    violations = check(story.events, final, params)
    assert all(str(violation) for violation in violations)
    return [violation.rule for violation in violations]


def left(*keys: str, dead: tuple[tuple[str, str], ...] = (), gone: tuple[str, ...] = ()) -> Final:
    """What group billing has not acknowledged, and dead letters."""
    return Final(streams=STREAMS, left={("ORDERS", "billing"): set(keys)}, dead=set(dead), gone=set(gone))


# -- nothing is lost


def test_what_is_delivered_and_acknowledged_is_not_lost() -> None:
    assert not rules(Story().put(1).done(1))


def test_an_acknowledged_put_that_is_nowhere_is_lost() -> None:
    violations = check(Story().put(1).events, EMPTY)
    assert [v.rule for v in violations] == ["lost"]
    assert str(violations[0]) == (
        "lost: p-1: p's 1 on orders.new was acknowledged at 102.000, never delivered,"
        " and ORDERS/billing has it no more (at 102.000)"
    )


def test_it_is_lost_when_only_one_of_two_groups_had_it() -> None:
    final = Final(streams=STREAMS, left={("ORDERS", "billing"): set(), ("ORDERS", "audit"): set()})
    assert rules(Story().put(1).done(1), final) == ["lost"]


@pytest.mark.parametrize(
    "final",
    [left("p-1"), left(dead=(("billing", "p-1"),)), left(dead=(("", "p-1"),)), left(gone=("p-1",))],
    ids=["in the stream", "in its dead letters", "in an agent's dead letters", "purged"],
)
def test_what_is_still_somewhere_is_not_lost(final: Final) -> None:
    assert not rules(Story().put(1), final)


def test_the_dead_letters_of_another_group_are_no_excuse() -> None:
    assert rules(Story().put(1), left(dead=(("audit", "p-1"),))) == ["lost"]


def test_a_put_at_the_agent_belongs_to_the_stream_of_its_topic() -> None:
    assert rules(Story().put(1, at="agent", stream="", seq=0)) == ["lost"]


def test_a_message_that_was_delivered_and_never_settled_is_lost_when_it_vanishes() -> None:
    violations = check(Story().put(1).deliver(1).events, EMPTY)
    assert "delivered, never settled" in str(violations[0])


def test_a_put_of_unknown_outcome_may_be_nowhere() -> None:
    assert not rules(Story().put(1, UNKNOWN).put(2, ""))


def test_but_when_a_group_had_it_then_it_was_stored_and_cannot_vanish() -> None:
    assert rules(Story().put(1, UNKNOWN).deliver(1)) == ["lost"]


def test_what_was_rejected_is_in_the_dead_letters() -> None:
    story = Story().put(1).deliver(1).settle(1, op="reject").flush()
    assert rules(story) == ["lost"]
    assert not rules(story, left(dead=(("billing", "p-1"),)))


def test_a_put_with_a_ttl_may_be_gone() -> None:
    story = Story().say("p", "put", INVOKE, key="k", topic="orders.new", n=1, ttl=5.0)
    assert not rules(story.say("p", "put", key="k", stream="ORDERS", seq=1, at="master"))


# -- nothing is made up


def test_what_nobody_sent_is_not_delivered() -> None:
    assert rules(Story().deliver(1)) == ["never sent"]


def test_it_is_not_delivered_before_it_was_sent() -> None:
    assert "never sent" in rules(Story().deliver(1).put(1))


def test_what_nobody_published_is_not_received() -> None:
    assert rules(Story().say("s", "subscribe", topic="news").receive(1)) == ["never sent"]


def test_what_failed_is_not_delivered() -> None:
    assert rules(Story().put(1, FAIL).done(1)) == ["refused"]


def test_what_failed_first_and_was_put_again_is_delivered() -> None:
    assert not rules(Story().put(1, FAIL).put(1).done(1))


def test_what_failed_is_not_received() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1, FAIL).receive(1)
    assert rules(story) == ["refused"]


# -- once, or flagged


def test_a_second_delivery_says_so() -> None:
    story = Story().put(1).deliver(1).settle(1, op="nak").deliver(1, redelivered=True).settle(1)
    assert not rules(story)


def test_a_second_delivery_that_does_not_say_so_is_a_violation() -> None:
    story = Story().put(1).deliver(1).settle(1, op="nak").deliver(1, "w2").settle(1, "w2")
    assert rules(story) == ["unflagged duplicate"]


def test_the_first_delivery_may_be_flagged() -> None:
    assert not rules(Story().put(1).deliver(1, redelivered=True).settle(1))


def test_each_group_has_its_own_first_delivery() -> None:
    story = Story().put(1).done(1).deliver(1, "x", group="audit")
    assert not rules(story.say("x", "ack", INVOKE, key="p-1", stream="ORDERS", group="audit"))


def test_a_dead_letter_that_was_put_back_comes_as_new() -> None:
    story = Story().put(1).deliver(1).settle(1, op="reject").flush().say("me", "requeue", key="p-1")
    assert not rules(story.deliver(1, seq=7).settle(1))


# -- what is done is done


def test_what_was_acknowledged_and_flushed_never_comes_again() -> None:
    assert rules(Story().put(1).done(1).deliver(1, "w2", redelivered=True)) == ["delivered after ack"]


def test_what_was_acknowledged_and_not_flushed_may_come_again() -> None:
    again: dict[str, Any] = {"redelivered": True, "after": 31.0}
    assert not rules(Story().put(1).deliver(1).settle(1).flush(end=UNKNOWN).deliver(1, "w2", **again))
    assert not rules(Story().put(1).deliver(1).settle(1).deliver(1, "w2", **again))


def test_an_ack_behind_the_end_of_the_lease_counts_for_nothing() -> None:
    story = Story().put(1).deliver(1).settle(1, after=31.0).flush()
    assert not rules(story.deliver(1, "w2", redelivered=True).settle(1, "w2"))


def test_who_is_cut_off_may_still_be_handed_what_another_one_acknowledged() -> None:
    story = Story().put(1).say("w2", "disturb", INVOKE).done(1).deliver(1, "w2", redelivered=True)
    assert not rules(story.say("w2", "disturb"))


def test_but_not_when_that_is_over() -> None:
    story = Story().put(1).say("w2", "disturb", INVOKE).done(1).say("w2", "disturb")
    assert rules(story.deliver(1, "w2", redelivered=True, after=2.5)) == ["delivered after ack"]


# -- one holder


def test_two_consumers_do_not_hold_one_message() -> None:
    story = Story().put(1).deliver(1).deliver(1, "w2", redelivered=True).settle(1)
    assert rules(story) == ["two holders"]


@pytest.mark.parametrize(
    "end",
    [
        lambda story: story.say("w", "death"),
        lambda story: story.say("w", "lease_end", key="p-1", stream="ORDERS", group="billing"),
        lambda story: story.say("w", "lease_end", stream="ORDERS", group="billing"),
        lambda story: story.settle(1, op="nak"),
        lambda story: story.say("w", "disturb", INVOKE),
        lambda story: story.say("*", "disturb", INVOKE).say("*", "disturb").say("x", "lease_end", after=3),
        lambda story: story.say("w", "lease_end", stream="ORDERS", group="billing", after=31),
        lambda story: story.settle(1),
    ],
    ids=["dead", "told", "told of all", "given back", "cut off", "hub restarted", "lease over", "acknowledged"],
)
def test_the_next_one_has_it_when_the_first_has_it_no_more(end: Any) -> None:
    assert not rules(end(Story().put(1).deliver(1)).deliver(1, "w2", redelivered=True).settle(1, "w2"))


def test_the_lease_is_as_long_as_the_delivery_says() -> None:
    story = Story().put(1).deliver(1, lease=5.0)
    assert not rules(story.deliver(1, "w2", redelivered=True, after=5.5).settle(1, "w2"))


def test_an_extended_lease_goes_on() -> None:
    story = Story().put(1).deliver(1, lease=5.0)
    story.say("w", "extend", key="p-1", stream="ORDERS", group="billing", after=4, lease=5.0)
    assert rules(story.deliver(1, "w2", redelivered=True, after=3).settle(1)) == ["two holders"]


def test_leases_that_end_early_by_less_than_the_tolerance_pass() -> None:
    story = Story().put(1).deliver(1, lease=5.0).deliver(1, "w2", redelivered=True, after=4.5).settle(1)
    assert rules(story) == ["two holders"]
    assert not rules(story, params=Params(early=1))


def test_a_disturbance_of_somebody_else_ends_no_lease() -> None:
    story = Story().put(1).deliver(1).say("w3", "disturb", INVOKE).deliver(1, "w2", redelivered=True).settle(1)
    assert rules(story) == ["two holders"]


# -- order


def test_a_stream_has_a_publishers_puts_in_order() -> None:
    assert not rules(Story().put(1).put(2), left("p-1", "p-2"))
    assert rules(Story().put(1, seq=5).put(2, seq=4), left("p-1", "p-2")) == ["order"]


def test_the_order_of_two_publishers_is_free() -> None:
    assert not rules(Story().put(1, who="p", seq=5).put(2, who="q", seq=4), left("p-1", "q-2"))


def test_the_number_is_that_of_the_delivery_where_the_put_has_none() -> None:
    story = Story().put(1, at="agent", seq=0).put(2, at="agent", seq=0)
    story.deliver(1, "w1", seq=9).deliver(2, "w2", seq=8)
    assert rules(story, left("p-1", "p-2")) == ["order"]


def test_a_put_that_was_tried_again_may_be_stored_later() -> None:
    assert not rules(Story().put(1, UNKNOWN).put(2, seq=4).put(1, seq=5), left("p-1", "p-2"))


def test_a_consumer_gets_the_order_of_the_stream() -> None:
    story = Story().put(1).put(2).deliver(2).deliver(1)
    assert rules(story, left("p-1", "p-2")) == ["order"]


def test_what_comes_again_may_come_behind_newer_ones() -> None:
    story = Story().put(1).put(2).deliver(1).settle(1, op="nak").deliver(2).deliver(1, redelivered=True)
    assert not rules(story, left("p-1", "p-2"))


# -- one id, one message


def test_one_id_is_stored_once() -> None:
    assert rules(Story().put(1).put(1), left("p-1")) == ["stored twice"]
    assert not rules(Story().put(1).put(1, duplicate=True), left("p-1"))


def test_behind_the_window_an_id_is_new() -> None:
    story = Story().put(1).put(1)
    assert not rules(story, left("p-1"), Params(dedupe=1.5))


def test_two_numbers_of_one_message_are_two_messages() -> None:
    story = Story().put(1, at="agent", seq=0).deliver(1, seq=1).deliver(1, "w2", seq=2, redelivered=True)
    assert "stored twice" in rules(story, left("p-1"))


def test_a_duplicate_was_stored_before() -> None:
    assert rules(Story().put(1, duplicate=True), left("p-1")) == ["false duplicate"]
    assert rules(Story().put(1, FAIL).put(1, duplicate=True), left("p-1")) == ["false duplicate"]
    assert not rules(Story().put(1, UNKNOWN).put(1, duplicate=True), left("p-1"))


def test_an_agent_may_send_again_what_it_has_no_answer_to() -> None:
    assert not rules(Story().put(1, duplicate=True, seq=0), left("p-1"))


# -- subscribers


def test_who_is_subscribed_receives_what_was_acknowledged() -> None:
    story = Story().publish(1).say("s", "subscribe", topic="news").publish(2).publish(3, UNKNOWN).publish(4)
    assert rules(story.receive(2)) == ["missed"]
    assert not rules(story.receive(4))


def test_a_flush_acknowledges_what_was_published_before_it() -> None:
    story = Story().say("s", "subscribe", topic=">").publish(1, "").say("p", "flush", INVOKE).publish(2, "")
    violations = check(story.say("p", "flush").events)
    assert [(v.rule, v.key) for v in violations] == [("missed", "p-1")]


def test_a_gap_in_its_place_tells_of_what_is_missing() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1).publish(2)
    assert not rules(story.say("s", "gap", topic="news", reason="window").receive(2))


@pytest.mark.parametrize("topic", ["weather", "news.old"])
def test_a_gap_elsewhere_does_not(topic: str) -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1).publish(2)
    assert rules(story.say("s", "gap", topic=topic).receive(2)) == ["missed"]


def test_a_gap_from_before_does_not() -> None:
    story = Story().say("s", "subscribe", topic="news").say("s", "gap", topic="news").publish(1)
    assert rules(story) == ["missed"]


def test_a_gap_from_later_only_within_its_grace() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1).publish(2).receive(2)
    story.say("s", "gap", topic=">", after=5)
    assert rules(story) == ["missed"]
    assert not rules(story, params=Params(gap_grace=6))


def test_a_subscriber_that_died_need_not_have_got_it() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1, "").say("s", "death")
    assert not rules(story.say("p", "publish", key="p-1"))


def test_a_subscriber_gets_a_publishers_messages_in_order_and_once() -> None:
    assert not rules(Story().say("s", "subscribe", topic="news").publish(1).publish(2).receive(1).receive(2))
    story = Story().say("s", "subscribe", topic="news").publish(1).publish(2).receive(2).receive(1)
    assert sorted(rules(story)) == ["missed", "order"]


def test_twice_is_out_of_order_too() -> None:
    assert rules(Story().say("s", "subscribe", topic="news").publish(1).receive(1).receive(1)) == ["order"]


def test_behind_a_restart_they_may_come_again() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1).receive(1)
    assert not rules(story.say("s", "gap", topic="news", reason="restart").receive(1))


def test_what_was_published_before_a_disturbance_may_come_late_once() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1).say("p", "disturb", INVOKE).publish(2)
    story.receive(2).receive(1)
    assert not rules(story)
    assert rules(story.receive(1)) == ["order"]


def test_nobody_receives_what_it_did_not_subscribe_to() -> None:
    story = Story().say("s", "subscribe", topic="news").publish(1, UNKNOWN, topic="weather").receive(1)
    assert rules(story) == ["never subscribed"]


def test_puts_are_heard_where_that_is_asked_for() -> None:
    story = Story().say("s", "subscribe", topic="orders.>").put(1)
    assert not rules(story, left("p-1"))
    assert rules(story, left("p-1"), Params(puts_are_heard=True)) == ["missed"]


# -- the history itself


def test_what_makes_no_sense_is_said() -> None:
    assert rules(Story().say("p", "put", OK, key="k")) == ["malformed"]
    assert rules(Story().say("p", "dance")) == ["malformed"]
    assert rules(Story().say("w", "death", after=5).say("w", "death", after=-1)) == ["malformed"]
    assert rules(Story().put(1, UNKNOWN, id="").put(1, id=""), left("p-1")) == ["malformed"]


def test_of_many_violations_some_are_shown_and_all_are_counted() -> None:
    story = Story()
    for n in range(1, 101):
        story.put(n)
    violations = check(story.events, EMPTY)
    assert len(violations) == KEPT + 1
    assert str(violations[-1]) == "lost: 80 more: 100 in all"
