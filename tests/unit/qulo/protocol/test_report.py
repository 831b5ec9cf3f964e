"""What a hub tells of itself: plain values, bounded, and no secrets."""

from __future__ import annotations

import msgpack
import pytest

from qulo.protocol.report import report
from tests.unit.qulo.protocol.fake_net import Host, Net


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
