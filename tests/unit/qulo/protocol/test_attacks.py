"""What a peer that was let in tries with frames of its own making; each of these once worked."""

from __future__ import annotations

import pytest

from qulo.protocol import wire
from qulo.protocol.hub import MOST_UNNUMBERED, UNREAD
from qulo.protocol.permissions import DEFAULT, Permissions, Rule
from qulo.protocol.ports import Limits
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net

EVERYTHING = Rule(True, ("publish", "subscribe", "request", "respond"), ("*",), (">",))


def world(*rules: Rule, limits: Limits | None = None) -> tuple[Net, Host, Program, Program]:
    """A hub, a program of its host, and one from elsewhere: `evil`."""
    net = Net(limits)
    hub = net.host("hub")
    hub.hub.authority.permissions = Permissions(rules or DEFAULT)
    return net, hub, net.program("good", hub), net.program("evil", hub, local=False)


def say(net: Net, hub: Host, peer: Program, *records: wire.Record) -> None:
    """A numbered frame, behind what its link has sent."""
    assert peer.connection is not None
    hub.receive(peer.connection, wire.encode(hub.session(peer).channel.received + 1, 0, list(records)))


def test_a_repair_brings_nothing_but_what_the_subscription_matches() -> None:
    mine = Rule(True, ("subscribe",), ("evil",), ("ok.>",))
    net, hub, good, evil = world(Rule(True, ("publish", "subscribe"), ("hub/local",), (">",)), mine)
    good.subscribe("*.>")
    net.settle()
    # In one frame: the same subscriptions match both, and so they are in one bundle.
    say(net, hub, good, [wire.PUBLISH, "ok.a", 0, [b"fine"]], [wire.PUBLISH, "secret.payroll", 0, [b"salaries"]])
    net.settle()
    session, where = hub.session(evil), evil.connection
    assert where is not None
    records = [[wire.SUBSCRIBE, 77, "ok.*", None], [wire.REPAIR, 77, 0, {}]]
    frame = wire.encode(session.channel.received + 1, 0, records)
    hub.hub.frame_received(where.listener, where.route, where.user, "fake", frame, net.now)
    while hub.hub.flush():
        pass
    frames = b"".join(frame for _, _, frame in hub.hub.take_out())
    assert b"fine" in frames
    assert b"salaries" not in frames


def test_a_number_is_one_registration_at_a_time_and_new_rules_end_the_right_one() -> None:
    net, hub, _good, evil = world(EVERYTHING)
    say(net, hub, evil, [wire.SUBSCRIBE, 5, "secret.>", "g"], [wire.SUBSCRIBE, 5, "ok.>", None])
    say(net, hub, evil, [wire.RESPOND, 6, "secret.ask"], [wire.SUBSCRIBE, 6, "ok.b", None])
    session = hub.session(evil)
    assert session.subscriptions.keys() == {5, 6}
    assert not session.members
    assert not session.responders
    say(net, hub, evil, [wire.SUBSCRIBE, 7, "secret.x", "g"], [wire.RESPOND, 8, "secret.ask"])
    denied = Rule(False, ("subscribe", "respond"), ("evil",), ("secret.>",))
    hub.hub.adopt_permissions(Permissions([EVERYTHING, denied]), net.now)
    assert session.subscriptions.keys() == {5, 6}
    assert not session.members
    assert not session.responders


@pytest.mark.parametrize("verb", ["publish", "request"])
def test_a_body_over_the_limit_is_refused_by_the_hub_itself(verb: str) -> None:
    limits = Limits(max_message=100_000, link_buffer=1_000_000)
    net, hub, good, evil = world(EVERYTHING, limits=limits)
    tracker = good.subscribe("a")
    good.serve("a", lambda call: b"")
    net.settle()
    large = bytes(100_001)
    record = [wire.PUBLISH, "a", 0, [large]] if verb == "publish" else [wire.REQUEST, 1, "a", 1000, False, 0, large]
    say(net, hub, evil, record)
    net.settle()
    assert not good.texts(tracker)
    assert hub.session(evil).bad == 1


def test_who_asks_and_does_not_read_is_dismissed_before_it_fills_the_memory() -> None:
    limits = Limits(link_buffer=20_000, max_message=10_000)
    _net, hub, _, evil = world(limits=limits)
    evil.wire.paused.add("down")
    session = hub.session(evil)
    for turn in range(200):
        assert evil.connection is not None
        records = [[wire.SUBSCRIBE, sid, "$qulo.local.admin.x", None] for sid in range(100)]
        hub.receive(evil.connection, wire.encode(turn + 1, 0, records))
        if session.key not in hub.hub.sessions:
            break
    assert session.key not in hub.hub.sessions
    assert session.channel.bytes < 2 * UNREAD * limits.link_buffer
    assert hub.said("asks and does not read")


def test_a_frame_without_a_number_is_a_heartbeat_and_not_a_thousand() -> None:
    _net, hub, _, evil = world()
    assert evil.connection is not None
    hub.receive(evil.connection, wire.encode(0, 0, [[wire.BEAT, 1, 1, 0, 0]] * (MOST_UNNUMBERED + 1)))
    assert hub.session(evil).bad == 1


def test_whose_sessions_are_slow_again_and_again_stops_nobody() -> None:
    limits = Limits(high_water=32, link_buffer=100_000, max_message=10_000, slow_after=2.0)
    net, hub, good, _evil = world(limits=limits)
    good.subscribe("a")
    for turn in range(3):
        sloth = net.program(f"sloth{turn}", hub, local=False)
        sloth.link.identity.name = "sloth"
        sloth.subscribe("*")
        net.settle()
        hub.session(sloth).principal = "sloth"
        sloth.wire.paused |= {"pub", "down"}
        sloth.heard = sloth.heard_pub = 1e9
        began = net.now
        for number in range(60):
            good.publish("a", "x" * 3000 + str(number))
            net.settle()
        while hub.hub.intake.blocked and net.now - began < 10:
            net.advance(0.5)
        waited = net.now - began
        assert waited <= (limits.slow_after + 1 if turn == 0 else 1), turn


def test_whoever_knows_an_instance_keeps_nobody_out() -> None:
    """Every run carries its publisher's: it is no secret."""
    net, hub, good, evil = world()
    assert evil.connection is not None
    instance = good.link.identity.instance
    good.cut()
    net.advance(net.limits.session_timeout + 1)
    hub.hub.tick(net.now + 60)
    hello = [wire.HELLO, wire.VERSION, instance, "evil", "client", None, 0, 0, {}]
    hub.receive(evil.connection, wire.encode(0, 0, [hello]))
    net.advance(10)
    assert good.link.phase.value == "up"
    assert {session.principal for session in hub.hub.sessions.values()} >= {"uid:1000"}
