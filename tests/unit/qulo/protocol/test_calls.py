"""Requests: every one ends with one answer or one error, and the right one."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest

from qulo.errors import BadTopic, NoResponders, Overloaded, ResponderLost
from qulo.protocol import events, wire
from qulo.protocol.events import Asked
from qulo.protocol.hub import LONGEST
from qulo.protocol.permissions import PING
from qulo.protocol.ports import Limits
from qulo.protocol.report import LIST
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net
from tests.unit.qulo.protocol.test_hub import hello, make_hub, say


def world(responders: int, limits: Limits | None = None) -> tuple[Net, Host, Program, list[Program]]:
    """A hub, an asker, and responders on svc."""
    net = Net(limits)
    hub = net.host("hub")
    asker = net.program("q", hub)
    programs = [net.program(f"r{number}", hub) for number in range(responders)]
    for program in programs:
        program.serve("svc", signed(program.name))
    net.settle()
    return net, hub, asker, programs


def signed(name: str) -> Callable[[events.Call], bytes]:
    """Answers with this name before what was asked."""
    return lambda call: f"{name}:".encode() + call.body


def holding(held: list[events.Call]) -> Callable[[events.Call], None]:
    """Answers nothing, and keeps the question."""

    def hold(call: events.Call) -> None:
        held.append(call)

    return hold


def test_a_request_without_responders_fails_at_once() -> None:
    net, hub, asker, _ = world(0)
    rid = asker.ask("svc")
    net.settle()
    assert [code for code, _ in asker.answers(rid)] == [NoResponders.code]
    assert hub.session(asker).calls == 0


def test_responders_take_turns() -> None:
    net, _, asker, _ = world(3)
    rids = [asker.ask("svc", b"x") for _ in range(6)]
    net.settle()
    assert sorted(body for rid in rids for _, body in asker.answers(rid)) == sorted([b"r0:x", b"r1:x", b"r2:x"] * 2)


def test_a_request_to_many_tells_how_many_and_gets_an_answer_of_each() -> None:
    net, hub, asker, _ = world(3)
    rid = asker.ask("svc", b"x", many=True)
    net.settle()
    assert asker.of(Asked) == [Asked(rid, 3)]
    assert sorted(asker.answers(rid)) == [("", b"r0:x"), ("", b"r1:x"), ("", b"r2:x")]
    assert hub.session(asker).calls == 0


def test_a_responder_on_a_wildcard_sees_which_topic_was_asked() -> None:
    net, hub, asker, _ = world(0)
    program = net.program("r", hub)
    program.serve("svc.>", lambda call: call.topic.encode())
    net.settle()
    rid = asker.ask("svc.a.b")
    net.settle()
    assert asker.answers(rid) == [("", b"svc.a.b")]


def test_the_answers_of_requests_that_cross_find_their_askers() -> None:
    net, hub, asker, (responder,) = world(1)
    other = net.program("other", hub)
    held: list[events.Call] = []
    responder.respond = holding(held)
    mine, theirs = asker.ask("svc", b"mine"), other.ask("svc", b"theirs")
    net.settle()
    for call in reversed(held):
        responder.link.reply(call.rid, "", wire.RAW, call.body)
    responder.turn()
    net.settle()
    assert asker.answers(mine) == [("", b"mine")]
    assert other.answers(theirs) == [("", b"theirs")]


def test_an_answer_is_taken_once_and_from_the_responder_asked_only() -> None:
    net, hub, asker, (responder,) = world(1)
    thief = net.program("thief", hub)
    held: list[events.Call] = []
    responder.respond = holding(held)
    rid = asker.ask("svc")
    net.settle()
    for program in (thief, responder, responder):
        program.link.reply(held[0].rid, "", wire.RAW, program.name.encode())
        program.turn()
        net.settle()
    assert asker.answers(rid) == [("", b"r0")]
    assert hub.session(asker).calls == 0


def test_a_responder_that_is_lost_is_told() -> None:
    net, hub, asker, (responder,) = world(1)
    responder.respond = lambda call: None
    rid = asker.ask("svc")
    net.settle()
    responder.cut()
    hub.expire(responder)
    net.settle()
    assert [code for code, _ in asker.answers(rid)] == [ResponderLost.code]


def test_a_responder_that_closes_still_answers_what_it_was_asked() -> None:
    net, _, asker, (responder,) = world(1)
    held: list[events.Call] = []
    responder.respond = holding(held)
    rid = asker.ask("svc")
    net.settle()
    responder.close(held[0].sid)
    net.settle()
    later = asker.ask("svc")
    responder.link.reply(held[0].rid, "", wire.RAW, b"done")
    responder.turn()
    net.settle()
    assert asker.answers(rid) == [("", b"done")]
    assert [code for code, _ in asker.answers(later)] == [NoResponders.code]


def test_a_request_past_its_deadline_is_forgotten() -> None:
    net, hub, asker, (responder,) = world(1)
    responder.respond = lambda call: None
    asker.ask("svc", ttl=1000)
    net.settle()
    assert len(hub.hub.calls.pending) == 1
    net.advance(3)
    assert not hub.hub.calls.pending
    assert hub.session(asker).calls == 0


def test_requests_of_an_asker_that_is_gone_are_forgotten() -> None:
    net, hub, asker, (responder,) = world(1)
    responder.respond = lambda call: None
    asker.ask("svc")
    net.settle()
    asker.cut()
    hub.expire(asker)
    assert not hub.hub.calls.pending


def test_a_responder_without_room_is_overloaded_and_another_one_is_asked_first() -> None:
    limits = Limits(link_buffer=20_000, max_message=5000)
    net, _, asker, (first, second) = world(2, limits)
    first.wire.paused.add("down")
    rids = []
    for _ in range(40):
        rids.append(asker.ask("svc", b"x" * 2000))
        net.settle()
    answered = [rid for rid in rids if asker.answers(rid)]
    assert len(answered) >= 25
    assert {body[:2] for rid in answered for _, body in asker.answers(rid)} == {b"r1"}
    second.close(1)
    net.settle()
    last = [asker.ask("svc", b"x" * 2000) for _ in range(12)]
    net.settle()
    assert Overloaded.code in [code for rid in last for code, _ in asker.answers(rid)]


def test_a_bad_topic_is_answered() -> None:
    net, hub, asker, _ = world(0)
    rids = [asker.ask(topic) for topic in ("", "a..b", "a.*", "a b", "x" * 300)]
    net.settle()
    assert [code for rid in rids for code, _ in asker.answers(rid)] == [BadTopic.code] * 5
    assert hub.session(asker).calls == 0


def test_the_hub_answers_its_own_requests() -> None:
    net, _, asker, _ = world(0)
    good, bad = asker.ask(LIST), asker.ask(LIST)
    asker.link.request(LIST, 1000, False, wire.PACKED, b"\xc1")
    asker.turn()
    net.settle()
    ((code, body),) = asker.answers(good)
    assert code == ""
    assert wire.unpack_value(body)["hub"]["name"] == "hub"
    assert asker.answers(bad)[0][0] == ""
    assert [e.code for e in asker.events if isinstance(e, events.Answer)].count("protocol") == 1


def test_requests_made_without_a_hub_are_asked_when_there_is_one_unless_given_up() -> None:
    net, _, asker, _ = world(1)
    asker.cut()
    kept, dropped = asker.ask("svc", b"x"), asker.ask("svc", b"y")
    assert asker.link.give_up(dropped)
    net.advance(2)
    assert asker.answers(kept) == [("", b"r0:x")]
    assert asker.answers(dropped) == []
    assert not asker.link.give_up(kept)


def test_a_request_that_was_given_up_is_not_sent_again_after_a_reconnect() -> None:
    net, _, asker, (responder,) = world(1)
    called: list[bytes] = []
    responder.respond = lambda call: called.append(call.body)
    asker.wire.silent = True  # what is sent now arrives nowhere
    stale, fresh = asker.ask("svc", b"stale"), asker.ask("svc", b"fresh")
    net.settle()
    assert not asker.link.give_up(stale)
    asker.cut()
    net.advance(3)
    assert called == [b"fresh"]
    assert fresh != stale


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (wire.PACKED, wire.pack({"name": "other", "version": "1", "executor": "ok"})),
        (wire.RAW, b"other"),
        (wire.PACKED, b"\xc1"),
        (wire.PACKED, wire.pack(["other"])),
        (wire.PACKED, b"\x90" * 5000),
    ],
)
def test_a_host_answers_a_ping_in_its_own_name(kind: int, body: bytes) -> None:
    hub, listener = make_hub()
    say(hub, listener, hello(instance=b"theagent", kind="agent"), user="web1#1", route=b"a")
    say(hub, listener, [wire.RESPOND, 1, PING], number=1, user="web1#1", route=b"a")
    say(hub, listener, hello(), user="me#2", route=b"p")
    told = say(hub, listener, [wire.REQUEST, 5, PING, 1000, True, 0, b""], number=1, user="me#2", route=b"p")
    (call,) = [record for record in told if record[0] == wire.CALL]
    told = say(hub, listener, [wire.REPLY, call[1], "", kind, body], number=2, user="web1#1", route=b"a")
    (answer,) = [record for record in told if record[0] == wire.ANSWER]
    said = msgpack.unpackb(answer[4])
    assert said["name"] == "web1"
    assert said.get("executor") == ("ok" if b"executor" in body else None)


@pytest.mark.parametrize(("asked", "kept"), [(10**15, LONGEST), (-5, 0), (1000, 1000)])
def test_a_request_is_remembered_for_a_day_at_most(asked: int, kept: int) -> None:
    hub, listener = make_hub()
    say(hub, listener, hello(instance=b"answerer"), user="r#1", route=b"r")
    say(hub, listener, [wire.RESPOND, 1, "svc"], number=1, user="r#1", route=b"r")
    say(hub, listener, hello(), user="me#2", route=b"p")
    told = say(hub, listener, [wire.REQUEST, 5, "svc", asked, False, 0, b""], number=1, user="me#2", route=b"p")
    (call,) = [record for record in told if record[0] == wire.CALL]
    assert call[4] == kept
    (pending,) = hub.calls.pending.values()
    assert pending.deadline == 1.0 + kept / 1000


def test_what_an_agent_passes_on_of_a_host_below_it_is_in_both_names() -> None:
    hub, listener = make_hub()
    say(hub, listener, hello(instance=b"theagent", kind="agent"), user="web1#1", route=b"a")
    say(hub, listener, [wire.RESPOND, 1, PING], [wire.RESPOND, 9, PING], number=1, user="web1#1", route=b"a")
    say(hub, listener, hello(), user="me#2", route=b"p")
    told = say(hub, listener, [wire.REQUEST, 5, PING, 1000, True, 0, b""], number=1, user="me#2", route=b"p")
    calls = [record[1] for record in told if record[0] == wire.CALL]
    pong = wire.pack({"name": "web2"})
    replies = [[wire.REPLY, call, "", wire.PACKED, pong] for call in calls]
    told = say(hub, listener, *replies, number=2, user="web1#1", route=b"a")
    names = [msgpack.unpackb(record[4])["name"] for record in told if record[0] == wire.ANSWER]
    assert sorted(names) == ["web1", "web1/web2"]


def test_an_error_instead_of_a_pong_keeps_its_text() -> None:
    hub, listener = make_hub()
    say(hub, listener, hello(instance=b"theagent", kind="agent"), user="web1#1", route=b"a")
    say(hub, listener, [wire.RESPOND, 1, PING], number=1, user="web1#1", route=b"a")
    say(hub, listener, hello(), user="me#2", route=b"p")
    told = say(hub, listener, [wire.REQUEST, 5, PING, 1000, True, 0, b""], number=1, user="me#2", route=b"p")
    (call,) = [record[1] for record in told if record[0] == wire.CALL]
    told = say(hub, listener, [wire.REPLY, call, "failed", 0, b"why"], number=2, user="web1#1", route=b"a")
    assert [record[2:] for record in told if record[0] == wire.ANSWER] == [["failed", 0, b"why"]]
