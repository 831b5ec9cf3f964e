"""Publish and subscribe inside a hub: numbers, bundles, interests, and what a subscription is owed."""

from __future__ import annotations

from qulo.protocol import topics, wire
from qulo.protocol.ports import Counters, Limits
from qulo.protocol.router import Router
from qulo.protocol.session import Listener
from tests.unit.qulo.protocol.fake_net import Net


def bundles(router: Router) -> list[tuple[bytes, list[wire.Run]]]:
    """The PUB frames with messages: (key, runs)."""
    router.close_bundle()
    frames, router.frames = router.frames, []
    found = []
    for _, data in frames:
        if not data.startswith(topics.SESSIONS):
            end = data.find(b"\0") + 1
            found.append((data[:end], wire.decode_bundle(data, end)[1]))
    return found


def world(*patterns: str) -> tuple[Net, Router]:
    """A hub with one subscriber of each pattern; the rest is done by hand."""
    net = Net()
    hub = net.host("hub")
    for number, pattern in enumerate(patterns):
        net.program(f"s{number}", hub).subscribe(pattern)
    net.settle()
    hub.hub.take_pub()
    return net, hub.hub.router


def test_messages_are_numbered_one_by_one_and_each_run_names_the_one_before_on_its_topic() -> None:
    _, router = world(">")
    first = router.seq
    for topic, bodies in (("a", [b"1", b"2"]), ("b", [b"3"]), ("a", [b"4"])):
        router.publish(topic, wire.RAW, bodies, b"origin")
    ((_, runs),) = bundles(router)
    assert [(run[0], run[1] - first, max(0, run[2] - first)) for run in runs] == [("a", 1, 0), ("b", 3, 0), ("a", 4, 2)]
    assert all(run[3] == b"origin" for run in runs)


def test_runs_that_the_same_subscriptions_match_share_a_frame_with_their_longest_prefix() -> None:
    _, router = world("a.>", ">", "a.b", "x.*")
    for topic in ("a.c", "a.d", "a.b", "z", "a.c", "x.y"):
        router.publish(topic, wire.RAW, [b"x"], b"")
    assert [(key, [run[0] for run in runs]) for key, runs in bundles(router)] == [
        (b".a.\0", ["a.c", "a.d"]),
        (b".a.b\0", ["a.b"]),
        (b".\0", ["z"]),
        (b".a.\0", ["a.c"]),
        (b".\0", ["x.y"]),
    ]


def test_a_bundle_is_closed_before_it_grows_too_large() -> None:
    _, router = world(">")
    for number in range(200):
        router.publish(f"t.{number}", wire.RAW, [b"x" * 1000], b"")
    frames = bundles(router)
    assert len(frames) > 2
    assert sum(len(runs) for _, runs in frames) == 200


def test_runs_whose_bodies_differ_in_size_make_no_frame_that_a_peer_would_refuse() -> None:
    _, router = world("a.>")
    for number in range(40):
        router.publish(f"a.{number % 3}", wire.RAW, [b"", b"x" * 50_000], b"origin")
    router.close_bundle()
    assert all(len(data) <= wire.SMALL for _, data in router.frames)


def test_local_topics_share_no_frame_with_others() -> None:
    _, router = world(">")
    for topic in ("a", "local.a", "b"):
        router.publish(topic, wire.RAW, [b"x"], b"")
    assert [[run[0] for run in runs] for _, runs in bundles(router)] == [["a"], ["local.a"], ["b"]]


def test_what_nobody_wants_makes_no_frame_and_is_not_kept() -> None:
    _, router = world("a")
    router.publish("b", wire.RAW, [b"x"], b"")
    assert bundles(router) == []
    assert router.window.size == 0
    assert router.window.topics["b"].gone == router.seq


def test_one_interest_goes_on_while_a_session_subscribes_anew() -> None:
    net, _ = world("a")
    (subscription,) = net.hosts[0].session(net.programs[0]).subscriptions.values()
    interest = subscription.interest
    net.programs[0].cut()
    net.advance(3)
    (again,) = net.hosts[0].session(net.programs[0]).subscriptions.values()
    assert again is not subscription
    assert again.interest is interest
    assert (interest.users, sum(interest.on_pub.values())) == (1, 1)


def test_nothing_remains_of_subscriptions_that_ended() -> None:
    net, router = world("a.>", "a.*", "a")
    for program in net.programs:
        program.join("jobs", "g")
        program.serve("svc", lambda call: None)
        program.publish("a.b", "1")
    net.settle()
    for program in net.programs:
        for sid in [*program.link.trackers, *program.link._registered]:
            program.close(sid)
    net.settle()
    assert router._index.values() == []
    assert router._groups.values() == []
    assert not net.hosts[0].hub.calls.find("svc")


def test_a_subscription_on_pub_is_owed_the_frames_since_it_began() -> None:
    net, _ = world("a.>")
    program = net.programs[0]
    session = net.hosts[0].session(program)
    other = net.program("p", net.hosts[0])
    for _ in range(5):
        other.publish("a.b", "x")
        net.settle()
    assert session.owed == 5
    second = program.subscribe("a.b")
    net.settle()
    other.publish("a.b", "x")
    net.settle()
    assert session.owed == 7
    program.close(second.sid)
    net.settle()
    assert session.owed == 7, "what was sent stays owed"
    net.advance(2 * net.limits.heartbeat)
    assert session.lag == 0


def test_a_pulse_names_a_subscription_until_its_count_was_agreed_to() -> None:
    net, router = world("a", "b")
    net.advance(3 * net.limits.heartbeat)
    session = net.hosts[0].session(net.programs[0])
    other = net.program("p", net.hosts[0])
    other.publish("a", "x")
    net.settle()
    _, _, at, _, pairs = router.pulse(session, 0)[1]
    assert pairs[1::2] == [1]
    router.pulse_confirmed(session, at)
    *_, pairs = router.pulse(session, 0)[1]
    assert pairs == []


def test_agreement_with_an_earlier_pulse_of_the_same_number_is_none_with_a_newer_subscription() -> None:
    net, router = world("a", "b")
    program = net.programs[0]
    session = net.hosts[0].session(program)
    router.pulse(session, 0)
    at = session.pulse[0]
    tracker = program.subscribe("b")  # there is such an interest, so the number stays
    net.settle()
    router.pulse(session, 0)
    assert session.pulse[0] == at
    router.pulse_confirmed(session, at)
    assert session.subscriptions[tracker.sid].confirmed == -1


def test_a_listener_that_nobody_listens_on_gets_nothing() -> None:
    router = Router(1, Limits(), Counters(), lambda note: None)
    router.publish("a", wire.RAW, [b"x"], b"")
    assert Listener(0, True, 0).routes == {}
    assert bundles(router) == []
