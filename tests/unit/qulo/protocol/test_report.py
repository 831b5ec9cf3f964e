"""What a hub tells of itself: plain values, bounded, and no secrets."""

from __future__ import annotations

import msgpack
import pytest

from qulo.protocol.permissions import Actor, Permissions, Rights, Rule
from qulo.protocol.report import report, seen_by
from tests.unit.qulo.protocol.fake_net import Host, Net
from tests.unit.qulo.protocol.test_hub import hello, make_hub, say


def world() -> tuple[Net, Host]:
    """A hub with some peers and topics."""
    net = Net()
    master = net.host("master")
    agent = net.host("agent", master)
    for name, host in (("a", master), ("b", master), ("c", agent)):
        program = net.program(name, host)
        program.subscribe("x.>")
        program.join("jobs", "g")
        program.serve("svc", lambda call: None)
        program.publish(f"x.{name}", "1", "2")
    net.settle()
    return net, master


def test_a_report_is_plain_values_and_tells_no_token() -> None:
    net, master = world()
    packed = msgpack.packb(report(master.hub, net.now))
    assert not any(session.token in packed for session in master.hub.sessions.values())


def test_a_peer_is_told_with_its_state() -> None:
    net, master = world()
    net.programs[1].cut()
    master.expire(net.programs[1])
    peers = {peer["name"]: peer for peer in report(master.hub, net.now)["peers"]}
    assert list(peers) == ["agent", "a", "b"], "those that are down come last"
    assert (peers["a"]["state"], peers["b"]["state"], peers["agent"]["kind"]) == ("up", "down", "agent")
    assert (peers["a"]["subscriptions"], peers["a"]["responders"]) == (2, 1)
    assert (peers["agent"]["subscriptions"], peers["agent"]["responders"]) == (2, 1)


def test_a_hub_tells_whether_it_is_the_authority() -> None:
    net, master = world()
    agent = net.hosts[1]
    assert report(master.hub, net.now)["hub"]["authority"] is True
    assert report(agent.hub, net.now)["hub"]["authority"] is False
    assert report(agent.hub, net.now)["hub"]["upstream"] is True
    agent.way_up.cut()
    assert report(agent.hub, net.now)["hub"]["upstream"] is False


def test_topics_are_told_with_their_messages() -> None:
    net, master = world()
    topics = {topic["topic"]: topic["messages"] for topic in report(master.hub, net.now)["topics"]}
    assert topics == {"x.a": 2, "x.b": 2, "x.c": 2}


def test_a_report_is_bounded_and_its_totals_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qulo.protocol.report.MOST", 2)
    net, master = world()
    told = report(master.hub, net.now)
    assert (len(told["peers"]), len(told["topics"])) == (2, 2)
    assert (told["hub"]["peers"], told["hub"]["topics"]) == (3, 3)


def test_an_agent_that_came_back_or_died_twice_is_told_once() -> None:
    hub, listener = make_hub()
    states = []
    for number in range(3):
        say(hub, listener, hello(instance=b"agent-%02d" % number, kind="agent"), user=f"web1#{number}", route=b"a")
        states.append([peer["state"] for peer in report(hub, 1.0)["peers"]])
        (session,) = hub.sessions.values()
        hub.end(session, "expired", 1.0)
        states.append([peer["state"] for peer in report(hub, 1.0)["peers"]])
    assert states == [["up"], ["down"]] * 3


def test_whoever_asks_hears_of_the_topics_that_it_may_subscribe_to_and_an_administrator_of_all() -> None:
    net, master = world()
    told = report(master.hub, net.now)
    session = next(iter(master.hub.sessions.values()))
    rules = Permissions([Rule(True, ("subscribe",), ("me",), ("x.a",))])
    session.rights = Rights(rules, Actor("me", False))
    seen = seen_by(session, told)
    assert [topic["topic"] for topic in seen["topics"]] == ["x.a"]
    assert seen["peers"] == told["peers"]
    session.rights = Rights(rules, Actor("other", False))
    assert seen_by(session, told)["topics"] == []
    session.rights = Rights(rules, Actor("hub/local", True, admin=True))
    assert seen_by(session, told) == told
