"""With the master away, or losing what it sends: what an agent promises its programs nevertheless."""

from __future__ import annotations

import pytest

from qulo.errors import Disconnected
from qulo.protocol import events
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net


def site(limits: Limits | None = None) -> tuple[Net, Host, Host, Program, Program]:
    """A master with a program, an agent with a program."""
    net = Net(limits)
    master = net.host("master")
    agent = net.host("agent", master)
    return net, master, agent, net.program("up", master), net.program("down", agent)


def go_away(net: Net, master: Host) -> None:
    """The master's machine is gone for a while."""
    master.stop()
    net.settle()


def test_a_subscription_is_confirmed_without_the_master_and_gets_a_gap_when_it_is_back() -> None:
    net, master, _, up, down = site()
    go_away(net, master)
    tracker = down.subscribe("a")
    net.settle()
    assert tracker.state is State.LIVE
    down.publish("a", "here")
    net.settle()
    master.start()
    net.advance(3)
    up.publish("a", "there")
    net.settle()
    assert down.texts(tracker) == ["here", "there"]
    assert [gap.reason for gap in down.gaps(tracker)] == ["window"]


def test_a_subscription_that_waits_for_the_master_is_confirmed_when_it_goes() -> None:
    net, master, agent, _, down = site()
    agent.way_up.wire.paused.add("up")
    tracker = down.subscribe("a")
    net.settle()
    states = [tracker.state]
    go_away(net, master)
    assert [*states, tracker.state] == [State.ASKED, State.LIVE]


def test_requests_fail_with_disconnected_and_never_with_no_responders() -> None:
    net, master, agent, up, down = site()
    up.serve("svc", lambda call: None)
    net.settle()
    asked = down.ask("svc")
    net.settle()
    go_away(net, master)
    late = down.ask("svc")
    net.settle()
    assert [code for rid in (asked, late) for code, _ in down.answers(rid)] == [Disconnected.code] * 2
    assert agent.session(down).calls == 0


def test_local_topics_work_without_any_master() -> None:
    net, master, _, _, down = site()
    go_away(net, master)
    tracker = down.subscribe("local.>")
    down.serve("local.svc", lambda call: b"yes")
    down.join("local.jobs", "g")
    net.settle()
    down.publish("local.jobs", "1")
    rid = down.ask("local.svc")
    net.settle()
    assert (down.texts(tracker), down.work(), down.answers(rid)) == (["1"], ["1"], [("", b"yes")])


def test_what_is_published_meanwhile_waits_and_is_delivered_in_order() -> None:
    net, master, agent, up, down = site()
    tracker = up.subscribe("a")
    net.settle()
    agent.way_up.cut()
    down.publish("a", *"12345")
    net.now += 0.1
    for path in ("up", "down"):
        while getattr(down.wire, path):
            down.wire.deliver(path)
    assert agent.way_up.connection is None
    net.advance(3)
    assert up.texts(tracker) == list("12345")
    assert up.gaps(tracker) == []
    assert not master.said("dropped")


def test_overflow_of_the_upward_buffer_is_a_gap_above_and_no_trouble_below() -> None:
    net, master, agent, up, down = site(Limits(link_buffer=20_000, max_message=5000))
    mine = down.subscribe("a.>")
    theirs, other = up.subscribe("a.b"), up.subscribe("z")
    net.settle()
    agent.way_up.wire.paused.add("up")
    sent = [f"{number:04}" * 250 for number in range(60)]
    for text in sent:
        down.publish("a.b", text)
        net.settle()
    assert down.texts(mine) == sent
    agent.way_up.wire.paused.clear()
    net.advance(3)
    down.publish("a.b", "after")
    net.settle()
    got = up.texts(theirs)
    assert got[:-1] == sent[: len(got) - 1]
    assert got[-1] == "after"
    assert {(gap.pattern, gap.reason) for gap in up.gaps(theirs)} == {("a.b", "overflow")}
    assert up.gaps(other) == []
    assert down.gaps(mine) == []
    assert agent.said("messages for the master were dropped")
    assert master.hub.counters.messages == len(got)


def test_a_restarted_master_is_a_gap_for_subscriptions_below_and_for_what_was_under_way() -> None:
    net, master, agent, up, down = site()
    below, above = down.subscribe("a"), up.subscribe("a")
    net.settle()
    agent.way_up.wire.paused.add("up")
    down.publish("a", "unknown")
    net.settle()
    master.restart()
    net.advance(5)
    up.publish("a", "after")
    net.settle()
    assert down.texts(below) == ["unknown", "after"]
    assert {gap.reason for gap in down.gaps(below)} == {"restart"}
    assert up.texts(above) == ["after"]
    assert {gap.reason for gap in up.gaps(above)} == {"restart"}
    assert agent.said("had not been acknowledged")


def test_a_gap_of_the_master_reaches_those_below_whom_it_concerns() -> None:
    net, master, agent, up, down = site(Limits(replay_window=3000))
    concerned, other = down.subscribe("a.b"), down.subscribe("z")
    net.settle()
    agent.way_up.wire.lose()
    for number in range(50):
        up.publish("a.b", f"{number:03}" * 30)
        net.settle()
    agent.way_up.wire.lose_pub = None
    net.advance(5)
    assert [gap.reason for gap in down.gaps(concerned)] == ["window"]
    assert down.gaps(other) == []
    assert down.texts(concerned)[-1] == "049" * 30
    assert master.hub.counters.gaps == 1


@pytest.mark.parametrize("pattern", ["a.b", "a.*", ">"])
def test_a_new_subscription_takes_nothing_from_an_older_one_that_waits_for_a_repair(pattern: str) -> None:
    net, _, agent, up, down = site()
    older = down.subscribe("a.>")
    net.settle()
    agent.way_up.wire.lose(1)
    up.publish("a.b", "1")
    net.settle()
    newer = down.subscribe(pattern)
    net.settle()
    agent.way_up.wire.paused.add("down")
    up.publish("a.b", "2")
    net.settle()
    agent.way_up.wire.paused.clear()
    net.advance(3)
    assert down.texts(older) == ["1", "2"]
    assert down.texts(newer)[-1] == "2"
    assert down.texts(newer).count("2") == 1


def test_an_older_subscription_that_ends_takes_nothing_with_it() -> None:
    net, _, agent, up, down = site()
    older, newer = down.subscribe("a.>"), down.subscribe("a.*")
    net.settle()
    agent.way_up.wire.paused.add("pub")
    up.publish("a.b", "1")
    net.settle()  # by ROUTER the newer one has it
    down.close(older.sid)
    net.settle()
    agent.way_up.wire.paused.clear()
    net.advance(3)
    up.publish("a.b", "2")
    net.advance(3)
    assert down.texts(newer) == ["1", "2"]
    assert len(agent.way_up.link.trackers) == 1


def test_a_session_below_that_expired_gets_a_gap_for_what_was_not_wanted_meanwhile() -> None:
    net, _, agent, up, down = site()
    tracker = down.subscribe("a")
    net.settle()
    down.cut()
    agent.expire(down)
    net.now += 0.1
    for host in net.hosts:
        host.flush()
    up.publish("a", "missed")
    for path in ("up", "down"):
        while getattr(up.wire, path):
            up.wire.deliver(path)
    net.advance(3)
    up.publish("a", "2")
    net.settle()
    assert down.texts(tracker) in (["2"], ["missed", "2"])
    assert [gap.reason for gap in down.gaps(tracker)] == ["window"]


def test_runs_from_above_wait_for_a_lagging_program_and_overflow_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qulo.protocol.intake.ABOVE_LIMIT", 20_000)
    net, _, agent, up, down = site(Limits(high_water=32))
    tracker = down.subscribe("a")
    net.settle()
    down.wire.paused.add("pub")
    sent = [f"{number:03}" * 300 for number in range(60)]
    for text in sent:
        up.publish("a", text)
        net.settle()
    assert agent.hub.intake.blocked
    down.wire.paused.clear()
    net.advance(3)
    got = down.texts(tracker)
    assert 0 < len(got) < 60
    assert got == sent[: len(got)]
    assert {gap.reason for gap in down.gaps(tracker)} == {"overflow"}
    up.publish("a", "after")
    net.settle()
    assert down.texts(tracker)[-1] == "after"


def test_answers_to_a_master_that_is_gone_go_nowhere() -> None:
    net, master, agent, up, down = site()
    down.serve("svc", lambda call: None)
    net.settle()
    up.ask("svc")
    net.settle()
    (old,) = down.of(events.Call)
    master.restart()
    net.advance(3)
    rid = up.ask("svc")
    net.settle()
    assert isinstance(old, events.Call)
    down.link.reply(old.rid, "", 0, b"to the old question")
    down.turn()
    net.settle()
    assert up.answers(rid) == []
    net.advance(3)
    assert agent.way_up.link.settled


def test_a_member_that_does_not_read_costs_an_agent_no_more_than_a_bound() -> None:
    limits = Limits(link_buffer=20_000, max_message=5000)
    net, _, agent, up, down = site(limits)
    down.join("jobs", "g")
    net.settle()
    down.wire.paused.add("down")
    down.heard = 1e9
    for number in range(200):
        up.publish("jobs", f"{number:04}" * 250)
        net.settle()
    assert agent.session(down).channel.bytes <= 5 * limits.link_buffer
    assert agent.said("the member down is full")


def test_a_new_session_with_the_same_master_publishes_nothing_below_again() -> None:
    net, master, agent, up, down = site()
    by_router = down.subscribe("*.b")
    net.settle()
    by_pub = down.subscribe("a.>")
    net.settle()
    agent.way_up.wire.lose()
    up.publish("a.b", "1")
    net.settle()
    assert down.texts(by_pub) == ["1"]
    down.close(by_router.sid)
    net.settle()
    agent.way_up.cut()
    master.expire(agent.way_up)
    net.advance(3)
    assert down.texts(by_pub) == ["1"]
