"""What PUB loses is repaired, in order and exactly once, or reported as a Gap: a hub and its links over a fake net."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qulo.protocol import topics, wire
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_net import Connection, Host, Net, Program


def connection_of(program: Program) -> Connection:
    assert program.connection is not None
    return program.connection


def losing(*numbers: int) -> Callable[[bytes], bool]:
    """Lose the n-th, … frame with messages that comes from now on."""
    seen = 0

    def lose(data: bytes) -> bool:
        nonlocal seen
        if data.startswith(b"$qulo.s."):
            return False
        seen += 1
        return seen in numbers

    return lose


def world(pattern: str = "a.>", limits: Limits | None = None) -> tuple[Net, Host, Program, Program]:
    """A hub with a publisher and a subscriber."""
    net = Net(limits)
    hub = net.host("hub")
    return net, hub, net.program("p", hub), net.program("s", hub)


def test_a_message_lost_in_the_middle_is_repaired_in_order_and_once() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    connection_of(s).lose_pub = losing(2, 3)
    for text in "12345":
        p.publish("a.b", text)
        net.settle()
    assert s.texts(tracker) == list("12345")
    assert s.gaps(tracker) == []
    assert hub.hub.counters.repairs == 1


def test_a_message_lost_at_the_tail_is_found_by_the_pulse_and_repaired() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    connection_of(s).lose_pub = losing(3)
    for text in "123":
        p.publish("a.b", text)
        net.settle()
    assert s.texts(tracker) == ["1", "2"]
    net.advance(2 * net.limits.heartbeat)
    assert s.texts(tracker) == ["1", "2", "3"]


def test_a_loss_on_a_topic_that_stays_silent_is_repaired_while_others_go_on() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    connection_of(s).lose_pub = losing(1)
    p.publish("a.lost", "0")
    net.settle()
    for number in range(20):
        p.publish("a.other", str(number))
        net.settle()
    assert s.texts(tracker) == [str(n) for n in range(20)]
    net.advance(2 * net.limits.heartbeat)
    assert sorted(s.texts(tracker)) == sorted(["0", *(str(n) for n in range(20))])
    assert tracker.state is State.LIVE


def test_a_repair_that_overtakes_pub_gives_nothing_twice() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    connection = connection_of(s)
    connection.lose_pub = losing(1)
    p.publish("a.b", "1")
    net.settle()
    p.publish("a.b", "2")
    connection.paused.add("down")
    net.settle()  # the gap is seen, the repair waits
    connection.paused = {"pub"}
    p.publish("a.b", "3")
    net.settle()  # the repair comes before what was on PUB
    connection.paused.clear()
    p.publish("a.b", "4")
    net.settle()
    assert s.texts(tracker) == ["1", "2", "3", "4"]


def test_a_pulse_that_comes_by_router_before_pub_asks_for_nothing() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    connection_of(s).paused.add("pub")
    p.publish("a.b", "1", "2")
    net.advance(2 * net.limits.heartbeat)
    connection_of(s).paused.clear()
    net.settle()
    assert s.texts(tracker) == ["1", "2"]
    assert hub.hub.counters.repairs == 0


@pytest.mark.parametrize("pattern", ["a.>", "a.*"])
def test_a_window_that_is_too_small_gives_one_gap_and_then_everything_goes_on(pattern: str) -> None:
    net, hub, p, s = world(limits=Limits(replay_window=4000))
    tracker = s.subscribe(pattern)
    net.settle()
    p.publish("a.b", "first")
    net.settle()
    connection_of(s).lose_pub = lambda data: not data.startswith(b"$qulo.s.")
    s.fail(RuntimeErrorLike())
    for number in range(100):
        p.publish("a.b", f"{number:03}" * 10)
        net.settle()
    net.advance(2)
    gaps = s.gaps(tracker)
    assert [gap.reason for gap in gaps] == ["window"]
    assert gaps[0].pattern == pattern
    got = s.texts(tracker)[1:]
    assert gaps[0].first == 2
    assert gaps[0].last == 101 - len(got)
    assert got == [f"{n:03}" * 10 for n in range(100 - len(got), 100)]
    p.publish("a.b", "after")
    net.settle()
    assert s.texts(tracker)[-1] == "after"
    assert len(s.gaps(tracker)) == 1
    assert hub.hub.counters.gaps == 1


def RuntimeErrorLike() -> Exception:
    raise NotImplementedError
