"""Bounds: who is waited for and for how long, what is parked, what a peer may hold, and what garbage costs others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from qulo.errors import Denied, Overloaded, QuloError
from qulo.protocol import events, wire
from qulo.protocol.ports import Limits
from qulo.protocol.report import report
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_link import Dialler, Program
from tests.unit.qulo.protocol.fake_net import Host, Net

SMALL = Limits(high_water=32, link_buffer=100_000, max_message=10_000)


def world(limits: Limits = SMALL) -> tuple[Net, Host, Program, Program]:
    """A hub with a publisher and a subscriber, and queues as long as the hub believes."""
    net = Net(limits, high_water=limits.high_water)
    hub = net.host("hub")
    return net, hub, net.program("p", hub), net.program("s", hub)


def refusals(program: Program) -> list[QuloError]:
    """Why subscriptions were refused."""
    return [event.error for event in program.events if isinstance(event, events.Rejected)]


def test_publishers_wait_for_a_healthy_subscriber_and_nothing_is_lost() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    s.wire.paused.add("pub")
    for number in range(60):
        p.publish("a", str(number))
        net.settle()
    assert hub.hub.intake.blocked
    assert hub.session(p).parked
    s.wire.paused.clear()
    net.settle()
    net.advance(1)
    assert s.texts(tracker) == [str(number) for number in range(60)]
    assert not hub.session(p).parked
    assert s.wire.lost == 0
    assert hub.hub.counters.repairs == 0


@pytest.mark.parametrize("pattern", ["a", "*"])
def test_a_slow_subscriber_holds_nobody_up_beyond_slow_after_and_is_named(pattern: str) -> None:
    net, hub, p, s = world()
    fast = net.program("fast", hub)
    slow, well = s.subscribe(pattern), fast.subscribe("a")
    net.settle()
    s.wire.paused |= {"pub", "down"}
    s.heard = s.heard_pub = 1e9  # its heartbeats go on: it is slow and not dead
    sent = [f"{number:05}" * 400 for number in range(100)]
    for text in sent:
        p.publish("a", text)
    net.advance(SMALL.slow_after + 1.5)
    assert hub.said("s (fake) is slow")
    assert fast.texts(well) == sent
    (peer,) = [peer for peer in report(hub.hub, net.now)["peers"] if peer["name"] == "s"]
    assert peer["slow"]
    assert peer["lag"] > 0 or peer["queued"] > 0
    s.wire.paused.clear()
    net.advance(3 * net.limits.heartbeat)
    assert s.texts(slow) == sent
    assert hub.said("s keeps up again")
    assert not hub.session(s).slow


def test_publishers_are_released_in_their_order_and_take_turns() -> None:
    net, hub, p, s = world()
    q = net.program("q", hub)
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.paused.add("pub")
    for number in range(40):
        for program in (p, q):
            program.publish(f"a.{program.name}", f"{program.name}{number}")
            net.settle()
    assert hub.session(p).parked
    assert hub.session(q).parked
    s.wire.paused.clear()
    net.settle()
    net.advance(1)
    got = s.texts(tracker)
    for name in "pq":
        assert [text for text in got if text[0] == name] == [f"{name}{number}" for number in range(40)]


def test_a_parked_publisher_that_reconnects_loses_and_doubles_nothing() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a")
    net.settle()
    s.wire.paused.add("pub")
    for number in range(40):
        p.publish("a", str(number))
        net.settle()
    assert hub.session(p).parked
    p.cut()
    net.advance(1)
    s.wire.paused.clear()
    net.advance(3)
    assert s.texts(tracker) == [str(number) for number in range(40)]


def test_heartbeats_and_subscriptions_pass_a_hub_that_holds_publishers_back() -> None:
    net, hub, p, s = world()
    s.subscribe("a")
    net.settle()
    s.wire.paused.add("pub")
    for number in range(40):
        p.publish("a", str(number))
        net.settle()
    other = net.program("other", hub)
    tracker = other.subscribe("b")
    net.settle()
    assert hub.hub.intake.blocked
    assert tracker.state is State.LIVE


def test_more_than_the_credit_is_refused() -> None:
    net, hub, p, s = world()
    s.subscribe("a")
    net.settle()
    s.wire.paused.add("pub")
    number = p.link.channel.number
    for extra in range(1, 60):
        record = [wire.PUBLISH, "a", wire.RAW, [b"x" * 9000]]
        hub.receive(p.wire, wire.encode(number + extra, 0, [record]))
    assert hub.session(p).parked_size <= 2 * SMALL.link_buffer + SMALL.max_message
    assert hub.session(p).bad


def test_a_silent_peer_costs_no_more_than_its_buffer() -> None:
    net, hub, p, s = world()
    s.subscribe("*")  # by ROUTER
    net.settle()
    s.wire.silent = True
    s.heard = s.heard_pub = 1e9
    for _ in range(60):
        p.publish("a", b"x" * 5000)
        net.advance(0.5)
    instance = s.link.identity.instance
    session = next((each for each in hub.hub.sessions.values() if each.instance == instance), None)
    assert session is None or session.channel.bytes <= SMALL.link_buffer + SMALL.max_message


def test_the_number_of_subscriptions_of_a_peer_is_bounded() -> None:
    net, _, _, s = world(Limits(max_subscriptions=3))
    s.subscribe("a")
    s.join("b", "g")
    s.serve("c", lambda call: None)
    net.settle()
    s.subscribe("d")
    s.join("e", "g")
    s.serve("f", lambda call: None)
    net.settle()
    assert [type(error) for error in refusals(s)] == [Overloaded] * 3


def test_a_peer_at_its_bound_can_reconnect() -> None:
    net, hub, _, s = world(Limits(max_subscriptions=3))
    tracker = s.subscribe("a")
    s.join("b", "g")
    s.serve("c", lambda call: None)
    net.settle()
    s.cut()
    hub.expire(s)
    net.advance(3)
    s.cut()
    net.advance(3)
    assert refusals(s) == []
    assert tracker.state is State.LIVE


def test_requests_under_way_are_bounded_and_counted_back() -> None:
    net, hub, p, s = world(Limits(max_pending=2))
    s.serve("svc", lambda call: None)
    net.settle()
    rids = [p.ask("svc", ttl=1000) for _ in range(3)]
    net.settle()
    assert [code for rid in rids for code, _ in p.answers(rid)] == [Overloaded.code]
    net.advance(4)
    assert hub.session(p).calls == 0
    s.respond = lambda call: b"yes"
    rid = p.ask("svc")
    net.settle()
    assert p.answers(rid) == [("", b"yes")]


def test_local_topics_are_for_local_programs() -> None:
    net, hub, p, _ = world()
    away = net.program("away", hub, local=False)
    mine = p.subscribe("local.x")
    for pattern in ("local.>", "local.x", "local.*"):
        away.subscribe(pattern)
    away.join("local.x", "g")
    away.serve("local.svc", lambda call: None)
    net.settle()
    assert [type(error) for error in refusals(away)] == [Denied] * 5
    p.publish("local.x", "1")
    rid = away.ask("local.svc")
    net.settle()
    assert p.texts(mine) == ["1"]
    assert [code for code, _ in away.answers(rid)] == [Denied.code]
    away.publish("local.x", "2")  # known to the hub by now, and yet not for everybody
    net.settle()
    assert p.texts(mine) == ["1"]


def test_nobody_publishes_on_the_systems_topics_but_the_hub() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("$qulo.live")
    net.settle()
    hub.hub.router.publish("$qulo.live", wire.RAW, [b"hub"], b"hub")
    hub.flush()
    p.publish("$qulo.live", "forged")
    net.settle()
    assert s.texts(tracker) == ["hub"]


def test_nobody_sees_the_tokens_of_other_sessions() -> None:
    net, hub, p, s = world()
    for pattern in ("$qulo.>", "$qulo.s.>", "$qulo.*.*", ">", "*"):
        s.subscribe(pattern)
    net.settle()
    seen: list[bytes] = []

    def watch(data: bytes) -> bool:
        seen.append(data)
        return False

    s.wire.lose_pub = watch
    p.subscribe("x")
    net.advance(2 * net.limits.heartbeat)
    token = hub.session(p).token.hex().encode()
    assert seen
    assert not [data for data in seen if token in data]


def garbage(rng: random.Random) -> bytes:
    """Something like a frame."""
    odd: list[Any] = [None, -1, 2**63, b"", "x" * 300, [], {}, {"a": 1}, [[]], True, 1.5]
    verbs = [*wire.VERBS, 0, -1, 99]
    record = [rng.choice(verbs), *(rng.choice(odd) for _ in range(rng.randrange(8)))]
    shape = rng.randrange(4)
    if shape == 0:
        return rng.randbytes(rng.randrange(60))
    if shape == 1:
        return wire.encode(rng.choice((0, 1, 2**40)), 0, [rng.choice(odd) for _ in range(3)])
    return wire.encode(rng.choice((0, 0, 1, 5, 2**63)), rng.choice((0, 1, 2**62)), [record])


def test_ten_thousand_bad_frames_of_one_peer_leave_the_others_alone() -> None:
    net, hub, p, s = world(Limits())
    bad = net.program("bad", hub)
    tracker = s.subscribe("a.>")
    s.serve("svc", lambda call: b"yes")
    net.settle()
    rng = random.Random(1)
    peer = bad.wire
    answers = 0
    for number in range(10_000):
        peer.silent = False
        hub.receive(peer, garbage(rng))
        answers += len(peer.down)
        peer.down.clear()
        if number % 500 == 0:
            p.publish("a.b", str(number))
            net.settle()
    rid = p.ask("svc")
    net.settle()
    assert s.texts(tracker) == [str(number) for number in range(0, 10_000, 500)]
    assert p.answers(rid) == [("", b"yes")]
    assert hub.session(p).bad == hub.session(s).bad == 0
    assert hub.hub.counters.bad_frames + hub.hub.counters.ignored > 5000
    assert answers < 10_000


def test_many_long_subscriptions_in_one_turn_fit_into_frames() -> None:
    net, hub, _, s = world(Limits())
    hub.running = False  # it is busy reading, and flushes once for all
    trackers = [s.link.subscribe(f"{'t' * 220}.{number}") for number in range(900)]
    s.turn()
    net.settle()
    hub.running = True
    hub.flush()
    net.settle()
    assert s.errors == []
    assert {tracker.state for tracker in trackers} == {State.LIVE}


def test_a_long_code_of_a_responder_is_its_own_affair() -> None:
    net, hub, p, s = world(Limits())
    s.serve("svc", lambda call: None)
    net.settle()
    rid = p.ask("svc")
    net.settle()
    (call,) = s.of(events.Call)
    assert isinstance(call, events.Call)
    s.link.reply(call.rid, "x" * 60_000, 0, b"")
    s.turn()
    net.settle()
    peers: list[Dialler] = [p]
    assert [peer.errors for peer in peers] == [[]]
    assert p.answers(rid) == []
    assert hub.session(s).bad == 1


@pytest.mark.parametrize("high_water", [1, 2, 3])
def test_the_smallest_high_water_is_slow_and_no_deadlock(high_water: int) -> None:
    net, hub, p, s = world(Limits(high_water=high_water))
    net.high_water = 1000
    tracker = s.subscribe("a")
    net.settle()
    for number in range(10):
        p.publish("a", str(number))
        net.settle()
    net.advance(30)
    assert s.texts(tracker) == [str(number) for number in range(10)]
    assert not hub.hub.intake.blocked
