"""Sessions outlive connections: reconnection, half-open links, expiry and restarts of the hub, over a fake net."""

from __future__ import annotations

import pytest

from qulo.protocol import events, wire
from qulo.protocol.link import Phase
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net
from tests.unit.qulo.protocol.test_hub import hello, make_hub, say


def world() -> tuple[Net, Host, Program, Program]:
    """A hub with a publisher and a subscriber."""
    net = Net()
    hub = net.host("hub")
    return net, hub, net.program("p", hub), net.program("s", hub)


@pytest.mark.parametrize("path", ["up", "down", "pub"])
@pytest.mark.parametrize("pattern", ["a.>", "a.*"])
def test_a_reconnection_within_the_session_loses_and_doubles_no_message(path: str, pattern: str) -> None:
    net, _, p, s = world()
    tracker = s.subscribe(pattern)
    net.settle()
    for number in range(30):
        for program in (p, s):
            program.wire.paused = {path}
        p.publish("a.b", str(number))
        net.settle()
        (p if number % 2 else s).cut()
        net.advance(1)
    for program in (p, s):
        program.wire.paused.clear()
    net.advance(6)
    assert s.texts(tracker) == [str(number) for number in range(30)]
    assert s.gaps(tracker) == []


def test_a_reconnection_within_the_session_keeps_requests_replies_and_work() -> None:
    net, hub, p, s = world()
    s.serve("svc", lambda call: call.body + b"!")
    s.join("jobs", "g")
    net.settle()
    rids = []
    for number in range(20):
        s.wire.paused, p.wire.paused = {"down"}, {"up"}
        rids.append(p.ask("svc", str(number).encode()))
        p.publish("jobs", str(number))
        net.settle()
        (p if number % 2 else s).cut()
        net.advance(1)
    for program in (p, s):
        program.wire.paused.clear()
    net.advance(6)
    assert [p.answers(rid) for rid in rids] == [[("", f"{n}!".encode())] for n in range(20)]
    assert s.work() == [str(number) for number in range(20)]
    assert hub.session(p).calls == 0


def test_a_connection_lost_right_after_subscribing_is_no_harm() -> None:
    net, _, p, s = world()
    s.wire.paused.add("down")
    trackers = [s.subscribe("a.*"), s.subscribe("a.>")]
    net.settle()
    s.cut()
    net.advance(3)
    p.publish("a.b", "1")
    net.settle()
    assert [t.state for t in trackers] == [State.LIVE] * 2
    assert [s.texts(t) for t in trackers] == [["1"]] * 2


def test_what_a_repair_had_on_its_way_does_not_end_the_repair_of_the_next_connection() -> None:
    net, _, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.lose(1)
    p.publish("a.b", "1")
    net.settle()
    s.wire.paused.add("down")
    p.publish("a.b", "2")
    net.settle()  # REPAIRED is on its way, and lost
    s.cut()
    net.advance(1)
    s.wire.lose(1)
    p.publish("a.b", "3", "4")
    net.advance(6)
    assert s.texts(tracker) == ["1", "2", "3", "4"]
    assert s.gaps(tracker) == []


def test_one_principal_has_so_many_sessions_and_no_more_and_others_have_theirs() -> None:
    hub, listener = make_hub()
    hub.adopt(Limits(max_sessions=3))

    def greet(number: int, user: str) -> wire.Record:
        records = say(hub, listener, hello(instance=b"inst-%03d" % number), user=user, route=b"%d" % number)
        return records[0]

    assert [greet(number, f"me#{number}")[0] for number in range(3)] == [wire.WELCOME] * 3
    refused = greet(3, "me#3")
    assert refused[:2] == [wire.REFUSED, "overloaded"]
    assert "the limit is max_sessions: end some of them (qulolist), or raise it" in refused[2]
    assert greet(4, "other#4")[0] == wire.WELCOME
    say(hub, listener, [wire.BYE], user="me#1", route=b"1")
    assert greet(5, "me#5")[0] == wire.WELCOME
    assert greet(6, "me#6")[0] == wire.REFUSED
    hub.adopt(Limits(max_sessions=4))
    assert greet(6, "me#6")[0] == wire.WELCOME


def test_a_half_open_connection_is_noticed_and_nothing_is_lost() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.silent = True
    for number in range(20):
        p.publish("a.b", str(number))
        net.advance(0.5)
    assert hub.said("s is suspect")
    net.advance(10)
    assert s.texts(tracker) == [str(number) for number in range(20)]
    assert len(hub.hub.sessions) == 2


def test_a_session_that_expired_is_repaired_from_the_window() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    other = net.program("other", hub)
    other.subscribe("a.>")  # keeps the window filled
    net.settle()
    s.cut()
    hub.expire(s)
    p.publish("a.b", "1", "2")
    net.advance(3)
    p.publish("a.b", "3")
    net.settle()
    assert s.texts(tracker) == ["1", "2", "3"]
    assert s.gaps(tracker) == []


def test_a_session_that_expired_gets_a_gap_for_what_nobody_kept() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.cut()
    hub.expire(s)
    p.publish("a.b", "1", "2")
    net.advance(3)
    p.publish("a.b", "3")
    net.settle()
    assert s.texts(tracker) == ["3"]
    assert [gap.reason for gap in s.gaps(tracker)] == ["window"]


def test_a_gap_told_while_a_session_had_ended_is_told_when_it_comes_back() -> None:
    net, hub, _, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.cut()
    hub.expire(s)
    hub.hub.pass_gap("a.b", 0, None, None, "overflow")
    net.advance(3)
    assert len(s.gaps(tracker)) == 1
    s.cut()
    net.advance(3)
    assert len(s.gaps(tracker)) == 1, "and not again"


def test_a_restarted_hub_means_one_gap_for_each_subscription() -> None:
    net, hub, p, s = world()
    trackers = [s.subscribe(pattern) for pattern in ("a.>", "a.*", "b")]
    net.settle()
    p.publish("a.b", "1")
    net.settle()
    old = hub.hub.epoch
    hub.restart()
    net.advance(3)
    p.publish("a.b", "2")
    net.settle()
    for tracker in trackers:
        (gap,) = s.gaps(tracker)
        assert (gap.pattern, gap.epoch, gap.last, gap.reason) == (tracker.pattern, old, None, "restart")
    assert [s.texts(t) for t in trackers] == [["1", "2"], ["1", "2"], []]


def test_a_restarted_hub_leaves_sent_messages_unknown_and_gets_the_unsent_ones() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    p.wire.paused.add("up")
    p.publish("a.b", "sent", "sent too")
    hub.restart()
    p.publish("a.b", "unsent")
    net.advance(3)
    welcomed = p.of(events.Welcomed)[-1]
    assert isinstance(welcomed, events.Welcomed)
    assert (welcomed.resumed, welcomed.lost) == (False, {"a.b": 2})
    assert s.texts(tracker) in ([], ["unsent"])  # it may have come before the subscriber did
    assert p.link.settled


def test_responders_and_members_are_told_to_a_restarted_hub() -> None:
    net, hub, p, s = world()
    s.serve("svc", lambda call: b"yes")
    s.join("jobs", "g")
    net.settle()
    hub.restart()
    net.advance(3)
    rid = p.ask("svc")
    p.publish("jobs", "1")
    net.settle()
    assert p.answers(rid) == [("", b"yes")]
    assert s.work() == ["1"]


def test_an_answer_to_a_hub_that_is_gone_is_not_taken_for_another_one() -> None:
    net, hub, p, s = world()
    s.serve("svc", lambda call: None)
    net.settle()
    p.ask("svc")
    net.settle()
    (old,) = s.of(events.Call)
    hub.restart()
    net.advance(3)
    rid = p.ask("svc")
    net.settle()
    assert isinstance(old, events.Call)
    s.link.reply(old.rid, "", 0, b"to the old question")
    s.turn()
    net.settle()
    assert p.answers(rid) == []


def test_a_lost_welcome_is_followed_by_a_new_session_at_once() -> None:
    net, hub, _, s = world()
    hub.restart()
    net.now += 1
    s.tick()
    s.wire.paused.add("down")
    net.settle()  # the hub has a session for it, and it does not know
    s.cut()
    net.advance(3)
    assert s.link.phase is Phase.UP
    assert hub.session(s).connected


def test_the_instance_of_another_session_is_not_enough_to_take_it_over() -> None:
    net, hub, p, s = world()
    user = hub.session(s).user
    hello = [wire.HELLO, wire.VERSION, s.link.identity.instance, "s", "client", b"guess", hub.hub.epoch, 0, {}]
    p.wire.send("up", wire.encode(0, 0, [hello]))
    net.settle()
    assert hub.session(s).user == user
    assert hub.said("refused")


def test_many_hellos_on_one_connection_do_not_heap_up_sessions() -> None:
    _, hub, p, _ = world()
    wire_of_p = p.wire
    for number in range(500):
        hello = [wire.HELLO, wire.VERSION, number.to_bytes(8, "big"), "x", "client", None, 0, 0, {}]
        hub.receive(wire_of_p, wire.encode(0, 0, [hello]))
    assert len(hub.hub.sessions) <= 3


def test_nothing_of_a_session_remains_behind_its_bye() -> None:
    net, hub, p, s = world()
    s.subscribe("a.>")
    net.settle()
    s.wire.send("up", s.link.bye())
    net.settle()
    late: list[wire.Record] = [[wire.BYE], [wire.BYE], [wire.SUBSCRIBE, 5, "a.*", None], [wire.RESPOND, 6, "svc"]]
    p.wire.send("up", wire.encode(p.link.channel.number + 1, 0, late))
    net.settle()
    assert not hub.hub.router.sessions
    assert not hub.hub.calls.find("svc")
    assert not hub.hub.sessions


def test_a_new_answer_of_the_same_session_is_told_once() -> None:
    net, hub, p, s = world()
    s.serve("svc", lambda call: b"yes")
    net.settle()
    for _ in range(5):
        s.cut()
        net.advance(1)
    rid = p.ask("svc", many=True)
    net.settle()
    assert p.answers(rid) == [("", b"yes")]
    assert len(hub.session(s).responders) == 1


def test_a_draining_hub_takes_no_more_and_is_done_when_all_have_what_was_sent() -> None:
    net, hub, p, s = world()
    tracker = s.subscribe("a.>")
    net.settle()
    s.wire.paused.add("pub")
    p.publish("a.b", "1")
    net.settle()
    assert not hub.hub.drain()
    p.publish("a.b", "2")
    net.settle()
    assert not p.link.settled, "it was not acknowledged"
    s.wire.paused.clear()
    net.advance(3)
    assert hub.hub.drain()
    assert s.texts(tracker) == ["1"]
