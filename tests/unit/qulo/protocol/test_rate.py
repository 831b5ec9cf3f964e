"""max_rate: who publishes faster is held back by credit, loses nothing, is named once, and holds up nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qulo.protocol import wire
from qulo.protocol.ports import Limits
from qulo.protocol.session import AGENT_WEIGHT, Life
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net
from tests.unit.qulo.protocol.test_hub import hello, make_hub, say

LIMITS = Limits(max_rate=10)


def world(limits: Limits = LIMITS) -> tuple[Net, Host, Program, Program]:
    """A hub with a publisher and a subscriber."""
    net = Net(limits)
    hub = net.host("hub")
    p, s = net.program("p", hub), net.program("s", hub)
    return net, hub, p, s


def publish(net: Net, p: Program, count: int, first: int = 0) -> list[str]:
    """So many messages, each a frame of its own."""
    texts = [str(number) for number in range(first, first + count)]
    for text in texts:
        p.publish("a", text)
        net.settle()
    return texts


def test_a_fast_publisher_is_held_back_and_all_that_it_sent_comes_in_order_at_its_rate() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    sent = publish(net, p, 60)
    assert s.texts(tracker) == sent[:10]
    assert hub.session(p).parked
    assert hub.hub.intake.holding
    came = []
    for _ in range(4):
        net.advance(1)
        came.append(len(s.texts(tracker)))
    assert came == pytest.approx([20, 30, 40, 50], abs=2)
    net.advance(2)
    assert s.texts(tracker) == sent
    assert not hub.hub.intake.holding
    assert not hub.session(p).parked
    assert hub.hub.counters.repairs == hub.hub.counters.dropped == hub.hub.counters.bad_frames == 0
    assert len(hub.said("max_rate")) == 1
    publish(net, p, 60)
    assert len(hub.said("max_rate")) == 1
    assert "p (fake) publishes more than 10 messages per second (max_rate)" in hub.said("max_rate")[0]


def test_a_publisher_within_its_rate_notices_nothing() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    for number in range(20):
        publish(net, p, 4, first=4 * number)
        net.advance(0.5)
        assert len(s.texts(tracker)) == 4 * (number + 1)
    assert not hub.said("max_rate")


def test_others_go_on_while_one_is_held_back_and_so_do_its_heartbeats() -> None:
    net, hub, p, s = world()
    q = net.program("q", hub)
    tracker = s.subscribe("*")
    net.settle()
    publish(net, p, 100)
    q.publish("b", "x")
    net.settle()
    assert "x" in s.texts(tracker)
    net.advance(4)
    assert hub.session(p).life is Life.UP
    assert hub.session(p).parked
    assert not hub.hub.intake.blocked


def test_a_run_larger_than_the_rate_is_taken_whole_and_paid_off() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    p.publish("a", *map(str, range(50)))
    net.settle()
    assert len(s.texts(tracker)) == 50
    publish(net, p, 1, first=50)
    net.advance(3.5)
    assert hub.session(p).parked
    net.advance(1)
    assert len(s.texts(tracker)) == 51


def test_without_a_limit_nobody_is_held_back_and_nothing_is_counted() -> None:
    net, hub, p, s = world(Limits())
    tracker = s.subscribe("a")
    net.settle()
    assert publish(net, p, 200) == s.texts(tracker)
    assert hub.session(p).bucket is None


def test_an_agent_counts_as_many_peers() -> None:
    net = Net(LIMITS)
    master = net.host("master")
    agent = net.host("agent", master)
    p, s = net.program("p", agent), net.program("s", master)
    agent.hub.adopt(Limits())  # the agent itself holds nobody back
    tracker = s.subscribe("a")
    net.settle()
    sent = publish(net, p, AGENT_WEIGHT * 10 + 50)
    assert s.texts(tracker) == sent[: AGENT_WEIGHT * 10]
    net.advance(1)
    assert s.texts(tracker) == sent


def test_the_limit_changes_while_it_runs_and_lifting_it_releases_who_is_held() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    sent = publish(net, p, 100)
    hub.hub.adopt(replace(LIMITS, max_rate=1000))
    hub.hub.intake.release(net.now)
    hub.flush()
    net.settle()
    net.advance(0.5)
    assert s.texts(tracker) == sent
    hub.hub.adopt(LIMITS)
    sent += publish(net, p, 100, first=100)
    assert hub.hub.intake.holding
    hub.hub.adopt(replace(LIMITS, max_rate=0))
    net.advance(0.5)
    assert s.texts(tracker) == sent
    assert hub.session(p).bucket is None
    publish(net, p, 100)
    assert not hub.hub.intake.holding


def test_a_limit_that_is_set_while_it_runs_holds() -> None:
    net, hub, p, s = world(Limits())
    s.subscribe("a")
    net.settle()
    publish(net, p, 50)
    hub.hub.adopt(LIMITS)
    publish(net, p, 50)
    assert hub.hub.intake.holding


def test_reconnecting_loses_and_doubles_nothing_and_pays_no_debt() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    sent = publish(net, p, 40)
    p.cut()
    net.advance(1)
    assert len(s.texts(tracker)) < 25
    net.advance(5)
    assert s.texts(tracker) == sent


def test_saying_hello_again_on_the_same_connection_pays_no_debt() -> None:
    hub, listener = make_hub()
    hub.adopt(LIMITS)
    for number in range(20):
        instance = number.to_bytes(8, "big")
        say(hub, listener, hello(instance=instance))
        say(hub, listener, [wire.PUBLISH, "a", 0, [b"x"] * 5], number=1)
    assert hub.counters.messages <= 15
    assert len(hub._debts) == 0, "the session that there is has it"


def test_lag_and_rate_at_once_lose_nothing() -> None:
    net, hub, p, s = world(Limits(max_rate=10, high_water=32, link_buffer=100_000, max_message=10_000))
    tracker = s.subscribe("a")
    net.settle()
    s.wire.paused.add("pub")
    sent = publish(net, p, 10)
    for _ in range(3):
        net.advance(0.5)
        sent += publish(net, p, 10, first=len(sent))
    s.wire.paused.clear()
    net.advance(10)
    assert s.texts(tracker) == sent
    assert not hub.session(p).parked


def test_a_session_that_ends_while_it_is_held_back_leaves_nothing_behind() -> None:
    net, hub, p, _ = world()
    publish(net, p, 50)
    hub.expire(p)
    assert not hub.hub.intake.holding
    assert not hub.hub.intake.parked
    hub.hub.intake.release(net.now)
