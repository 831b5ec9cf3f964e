"""Agents under a master, in trees: the origin rule, groups and requests across levels, local topics."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qulo.errors import BadTopic, Denied, NoResponders, Overloaded, ResponderLost
from qulo.protocol import events
from qulo.protocol.events import Asked
from qulo.protocol.ports import Limits
from qulo.protocol.report import LIST, LOCAL_LIST
from qulo.protocol.tracker import State
from qulo.protocol.wire import unpack_value
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net


def tree(limits: Limits | None = None) -> tuple[Net, list[Host], list[Program]]:
    """Three levels and a branch: master ← one ← two, master ← three; a program p0 … p3 at each."""
    net = Net(limits)
    master = net.host("master")
    one = net.host("one", master)
    hosts = [master, one, net.host("two", one), net.host("three", master)]
    return net, hosts, [net.program(f"p{number}", host) for number, host in enumerate(hosts)]


def signed(name: str) -> Callable[[events.Call], bytes]:
    """Answers with this name."""
    return lambda call: name.encode()


def test_a_message_reaches_every_level_once_and_its_publisher_too() -> None:
    net, _, programs = tree()
    trackers = [[program.subscribe(pattern) for pattern in ("a.>", "a.*")] for program in programs]
    net.settle()
    for program in programs:
        program.publish("a.b", program.name)
        net.settle()
    for program, (wide, narrow) in zip(programs, trackers, strict=True):
        assert program.texts(wide) == ["p0", "p1", "p2", "p3"]
        assert program.texts(narrow) == ["p0", "p1", "p2", "p3"]


def test_local_subscribers_are_served_at_once_and_there_is_no_echo() -> None:
    net, hosts, programs = tree()
    deep = programs[2]
    tracker = deep.subscribe("a")
    net.settle()
    hosts[2].way_up.wire.paused.add("up")
    deep.publish("a", "1")
    net.settle()
    assert deep.texts(tracker) == ["1"]
    hosts[2].way_up.wire.paused.clear()
    net.advance(3)
    assert deep.texts(tracker) == ["1"]
    assert hosts[0].hub.counters.messages == 1


def test_local_topics_never_leave_their_host() -> None:
    net, hosts, programs = tree()
    trackers = [program.subscribe(">") for program in programs]
    mine = programs[1].subscribe("local.>")
    net.settle()
    programs[1].publish("local.x", "here")
    net.advance(3)
    assert [program.texts(t) for program, t in zip(programs, trackers, strict=True)] == [[], ["here"], [], []]
    assert programs[1].texts(mine) == ["here"]
    assert hosts[0].hub.counters.messages == 0


def test_a_master_cannot_publish_on_the_local_topics_of_an_agents_host() -> None:
    net, hosts, programs = tree()
    tracker = programs[1].subscribe(">")
    net.settle()
    # The relay's own subscription is to everything; a master that has gone bad sends what it likes.
    relay = hosts[1].way_up.relay
    (above,) = relay.link.trackers.values()
    relay.turn([], [(above, ("local.x", 0, [b"forged"], b"", 10_000))], net.now)
    hosts[1].flush()
    net.settle()
    assert programs[1].texts(tracker) == []


def test_a_subscription_is_confirmed_when_the_master_has_confirmed_it() -> None:
    net, hosts, programs = tree()
    hosts[1].way_up.wire.paused.add("up")
    tracker = programs[2].subscribe("a")
    local = programs[2].subscribe("local.a")
    net.settle()
    assert (tracker.state, local.state) == (State.ASKED, State.LIVE)
    hosts[1].way_up.wire.paused.clear()
    net.settle()
    assert tracker.state is State.LIVE


def test_what_nobody_below_wants_any_more_is_not_sent_down() -> None:
    net, hosts, programs = tree()
    tracker = programs[2].subscribe("a")
    net.settle()
    programs[2].close(tracker.sid)
    net.settle()
    assert not hosts[0].session(hosts[1].way_up).subscriptions
    assert not hosts[1].way_up.link.trackers


def test_a_subscription_that_the_master_refuses_is_refused_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qulo.protocol.session.AGENT_WEIGHT", 1)
    net, hosts, programs = tree(Limits(max_subscriptions=2))
    other = net.program("other", hosts[1])
    for program, topic in ((programs[1], "a"), (programs[1], "b"), (other, "c")):
        program.subscribe(topic)
        net.settle()
    (refused,) = other.of(events.Rejected)
    assert isinstance(refused, events.Rejected)
    assert isinstance(refused.error, Overloaded)
    assert not hosts[1].session(other).subscriptions


def test_each_message_for_a_group_goes_to_one_member_wherever_it_is() -> None:
    net, _, programs = tree()
    for program in programs:
        program.join("jobs", "g")
    net.settle()
    sent = [str(number) for number in range(80)]
    programs[3].publish("jobs", *sent)
    net.settle()
    assert sorted(text for program in programs for text in program.work()) == sorted(sent)
    assert all(program.work() for program in programs)


def test_a_group_on_a_local_topic_is_the_hosts_own() -> None:
    net, _, programs = tree()
    other = net.program("other", programs[2].target)
    for program in (*programs, other):
        program.join("local.jobs", "g")
    net.settle()
    programs[2].publish("local.jobs", *"123456")
    net.settle()
    assert [len(program.work()) for program in programs] == [0, 0, 3, 0]
    assert len(other.work()) == 3


def test_work_on_its_way_to_a_member_that_reconnects_is_not_lost() -> None:
    net, hosts, programs = tree()
    member = programs[2]
    member.join("jobs", "g")
    net.settle()
    hosts[1].way_up.wire.paused.add("down")
    programs[0].publish("jobs", *"123456")
    member.cut()
    net.advance(1)
    hosts[1].way_up.wire.paused.clear()
    net.settle()
    assert member.work() == list("123456")


def test_a_request_is_answered_across_the_tree() -> None:
    net, _, programs = tree()
    programs[2].serve("svc", lambda call: call.body + b"!")
    net.settle()
    rids = [program.ask("svc", program.name.encode()) for program in programs]
    net.settle()
    assert [program.answers(rid) for program, rid in zip(programs, rids, strict=True)] == [
        [("", f"p{number}!".encode())] for number in range(4)
    ]


def test_a_request_to_many_reaches_the_responders_of_all_agents() -> None:
    net, hosts, programs = tree()
    for program in programs:
        program.serve("svc", signed(program.name))
    net.settle()
    rid = programs[2].ask("svc", many=True)
    net.settle()
    assert sorted(body for _, body in programs[2].answers(rid)) == [b"p0", b"p1", b"p2", b"p3"]
    assert programs[2].of(Asked) == [Asked(rid, 4)]
    assert hosts[2].session(programs[2]).calls == 0


def test_no_responders_is_said_by_the_master() -> None:
    net, _, programs = tree()
    rid = programs[2].ask("svc")
    net.settle()
    assert [code for code, _ in programs[2].answers(rid)] == [NoResponders.code]


def test_a_responder_that_dies_under_an_agent_is_lost_to_its_asker() -> None:
    net, hosts, programs = tree()
    programs[2].serve("svc", lambda call: None)
    net.settle()
    rid = programs[3].ask("svc")
    net.settle()
    programs[2].cut()
    hosts[2].expire(programs[2])
    net.settle()
    assert [code for code, _ in programs[3].answers(rid)] == [ResponderLost.code]
    assert not hosts[0].hub.calls.find("svc")


def test_requests_that_nobody_answers_do_not_use_up_an_asker_below() -> None:
    net, hosts, programs = tree(Limits(max_pending=5))
    programs[0].serve("svc", lambda call: None)
    net.settle()
    for _ in range(3):
        for _ in range(4):
            programs[1].ask("svc", ttl=1000)
        net.advance(8)
    assert hosts[1].session(programs[1]).calls == 0
    programs[0].respond = lambda call: b"yes"
    rid = programs[1].ask("svc")
    net.settle()
    assert programs[1].answers(rid) == [("", b"yes")]


def test_a_local_request_stays_on_its_host() -> None:
    net, _, programs = tree()
    programs[2].serve("local.svc", lambda call: b"two")
    net.settle()
    here, there = programs[2].ask("local.svc"), programs[1].ask("local.svc")
    net.settle()
    assert programs[2].answers(here) == [("", b"two")]
    assert [code for code, _ in programs[1].answers(there)] == [NoResponders.code]


def test_the_sites_list_is_the_masters_and_the_local_one_the_agents() -> None:
    net, _, programs = tree()
    site, local = programs[2].ask(LIST), programs[2].ask(LOCAL_LIST)
    net.settle()
    answers = {rid: unpack_value(programs[2].answers(rid)[0][1])["hub"]["name"] for rid in (site, local)}
    assert answers == {site: "master", local: "two"}


def test_a_refusal_below_needs_no_master() -> None:
    net, _, programs = tree()
    programs[2].link.identity.name = "p2"
    programs[2].join("jobs", "Not A Name")
    rid = programs[2].ask("a..b")
    net.settle()
    assert [code for code, _ in programs[2].answers(rid)] == [BadTopic.code]
    (refused,) = programs[2].of(events.Rejected)
    assert isinstance(refused, events.Rejected)
    assert isinstance(refused.error, Denied)


def test_an_agent_has_the_limits_of_many_programs() -> None:
    net, hosts, programs = tree(Limits(max_subscriptions=2))
    other = net.program("other", hosts[1])
    for program, topic in ((programs[1], "a"), (programs[1], "b"), (other, "c")):
        program.subscribe(topic)
        net.settle()
    assert not other.of(events.Rejected)
    assert len(hosts[0].session(hosts[1].way_up).subscriptions) == 3


def test_the_death_of_an_agent_is_a_gap_on_what_came_through_it() -> None:
    net, hosts, programs = tree()
    through, elsewhere = programs[0].subscribe("a.>"), programs[0].subscribe("b.>")
    net.settle()
    programs[2].publish("a.x", "1")
    programs[0].publish("b.x", "2")
    net.settle()
    hosts[1].way_up.cut()
    hosts[0].expire(hosts[1].way_up)
    net.settle()
    assert programs[0].texts(through) == ["1"]
    assert [gap.pattern for gap in programs[0].gaps(through)] == ["a.x"]
    assert programs[0].gaps(elsewhere) == []
