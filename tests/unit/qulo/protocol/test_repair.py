"""What PUB loses is repaired, in order and exactly once, or reported as a Gap: a hub and its links over a fake net."""

from __future__ import annotations

import pytest

from qulo.protocol.ports import Limits
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net


def world(limits: Limits | None = None) -> tuple[Net, Host, Program, Program]:
    """A hub with a publisher and a subscriber."""
    net = Net(limits)
    hub = net.host("hub")
    return net, hub, net.program("p", hub), net.program("s", hub)


def publish(net: Net, program: Program, topic: str, *texts: str) -> None:
    """One PUB frame for each."""
    for text in texts:
        program.publish(topic, text)
        net.settle()


@pytest.mark.parametrize("pattern", ["a.>", "a.b", ">"])
def test_a_message_lost_in_the_middle_is_repaired_in_order_and_once(pattern: str) -> None:
    net, hub, p, s = world()
    tracker = s.subscribe(pattern)
    net.settle()
    s.wire.lose(2, 3)
    publish(net, p, "a.b", *"12345")
    assert s.texts(tracker) == list("12345")
    assert s.gaps(tracker) == []
    assert hub.hub.counters.repairs == 1


def test_a_message_lost_at_the_tail_is_found_by_the_pulse_and_repaired() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(3)
    publish(net, p, "a.b", *"123")
    assert s.texts(tracker) == ["1", "2"]
    net.advance(2 * net.limits.heartbeat)
    assert s.texts(tracker) == ["1", "2", "3"]
    assert tracker.state is State.LIVE


def test_a_loss_on_a_topic_that_stays_silent_is_repaired_while_others_go_on() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(1)
    publish(net, p, "a.lost", "lost")
    others = [str(number) for number in range(20)]
    publish(net, p, "a.other", *others)
    assert s.texts(tracker) == others
    net.advance(2 * net.limits.heartbeat)
    assert s.texts(tracker) == [*others, "lost"]


def test_a_loss_on_one_topic_holds_back_the_later_messages_of_that_subscription_only() -> None:
    net, _, p, s = world()
    wide, narrow = s.subscribe("a.>"), s.subscribe("b.x")
    net.settle()
    s.wire.lose(1)
    publish(net, p, "a.b", "1")
    s.wire.paused.add("down")
    publish(net, p, "a.b", "2")
    publish(net, p, "b.x", "3")
    assert s.texts(wide) == []
    assert s.texts(narrow) == ["3"]
    s.wire.paused.clear()
    net.settle()
    assert s.texts(wide) == ["1", "2"]


def test_a_repair_that_overtakes_pub_gives_nothing_twice() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(1)
    publish(net, p, "a.b", "1")
    s.wire.paused.add("down")
    publish(net, p, "a.b", "2")  # the gap is seen, the repair waits
    s.wire.paused = {"pub"}
    publish(net, p, "a.b", "3")  # the repair comes before what was on PUB
    s.wire.paused.clear()
    publish(net, p, "a.b", "4")
    assert s.texts(tracker) == ["1", "2", "3", "4"]


def test_a_pulse_that_comes_by_router_before_pub_asks_for_nothing() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.paused.add("pub")
    publish(net, p, "a.b", "1", "2")
    net.advance(2 * net.limits.heartbeat)
    s.wire.paused.clear()
    net.settle()
    assert s.texts(tracker) == ["1", "2"]
    assert hub.hub.counters.repairs == 0


def test_losses_one_after_another_are_all_repaired() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(*range(1, 100, 3))
    sent = [str(number) for number in range(100)]
    publish(net, p, "a.b", *sent)
    net.advance(2 * net.limits.heartbeat)
    assert s.texts(tracker) == sent


def test_a_loss_during_a_repair_is_repaired_by_the_next_one() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(1, 4)
    publish(net, p, "a.b", "1")
    s.wire.paused.add("down")
    publish(net, p, "a.b", "2", "3", "4", "5")
    s.wire.paused.clear()
    net.settle()
    assert s.texts(tracker) == list("12345")


@pytest.mark.parametrize("pattern", ["a.>", "a.*"])
def test_a_window_that_is_too_small_gives_one_gap_and_then_everything_goes_on(pattern: str) -> None:
    net, hub, p, s = world(Limits(replay_window=4000))
    tracker = s.subscribe(pattern)
    net.settle()
    publish(net, p, "a.b", "first")
    s.cut()
    sent = [f"{number:03}" * 10 for number in range(100)]
    net.now += 0.1  # not yet time to dial again
    for text in sent:
        p.publish("a.b", text)
        for path in ("up", "down"):
            while getattr(p.wire, path):
                p.wire.deliver(path)
    net.advance(2)
    got = s.texts(tracker)[1:]
    assert 0 < len(got) < 100
    assert got == sent[-len(got) :]
    (gap,) = s.gaps(tracker)
    assert (gap.pattern, gap.reason, gap.epoch) == (pattern, "window", hub.hub.epoch)
    assert gap.first is not None
    assert gap.last is not None
    assert gap.last - gap.first + 1 == 100 - len(got)
    assert [type(item) for item in s.got[tracker]][1] is type(gap), "the gap stands where the messages are missing"
    publish(net, p, "a.b", "after")
    assert s.texts(tracker)[-1] == "after"
    assert len(s.gaps(tracker)) == hub.hub.counters.gaps == 1


def test_overlapping_patterns_of_one_link_each_get_a_message_once() -> None:
    net, _, p, s = world()
    trackers = [s.subscribe(pattern) for pattern in (">", "a.>", "a.*", "a.b", "*.b", "a.b")]
    net.settle()
    s.wire.lose(2)
    publish(net, p, "a.b", "1", "2", "3")
    net.advance(2 * net.limits.heartbeat)
    assert [s.texts(tracker) for tracker in trackers] == [["1", "2", "3"]] * 6


def test_order_across_topics_is_kept_on_each_path_although_the_paths_have_none() -> None:
    net, _, p, s = world()
    by_pub, by_router = s.subscribe("a.b"), s.subscribe("a.*")
    net.settle()
    s.wire.paused.add("down")
    publish(net, p, "a.c", "1")
    publish(net, p, "a.b", "2")
    s.wire.paused.clear()
    net.settle()
    assert s.texts(by_pub) == ["2"]
    assert s.texts(by_router) == ["1", "2"]


@pytest.mark.parametrize("lost", ["TIED", "READY"])
def test_a_confirmation_that_pub_loses_comes_again(lost: str) -> None:
    net, _, p, s = world()
    if lost == "TIED":
        s.cut()
        net.now += 1
        s.tick()
    s.wire.lose_pub = lambda data: True
    tracker = s.subscribe("a.>")
    net.settle()
    states = [tracker.state]
    s.wire.lose_pub = None
    net.advance(3 * net.limits.heartbeat)
    assert [*states, tracker.state] == [State.ASKED, State.LIVE]
    publish(net, p, "a.b", "1")
    assert s.texts(tracker) == ["1"]


def test_a_prefix_that_is_taken_back_late_is_installed_again() -> None:
    # Two subscriptions share a prefix, the first ends; the SUB's messages come later than the Link's.
    net, hub, p, s = world()
    s.wire.paused.add("subs")
    first = s.subscribe("a.>")
    net.settle()
    s.close(first.sid)
    second = s.subscribe("a.>")
    net.settle()
    s.wire.paused.clear()
    net.settle()
    publish(net, p, "a.b", "1")
    assert s.texts(second) == ["1"]
    assert hub.hub.counters.repairs == 0


def test_local_messages_never_travel_with_a_repair_to_another_host() -> None:
    net, hub, p, _ = world()
    away = net.program("away", hub, local=False)
    here = net.program("here", hub)
    for program in (away, here):
        program.subscribe(">")
    net.settle()
    publish(net, p, "a.b", "0")
    away.cut()
    hub.expire(away)
    p.link.publish("local.x", 0, b"secret")
    p.link.publish("a.b", 0, b"1")  # in one turn, for the one program that is left: they could share a frame
    p.turn()
    net.advance(3)
    assert "secret" in here.texts(next(iter(here.got)))
    assert away.texts(next(iter(away.got))) == ["0", "1"]
