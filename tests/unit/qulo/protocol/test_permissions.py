"""Rules and what they decide; and what a hub does with the decision, for every verb that needs one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qulo.errors import Denied, QuloError
from qulo.protocol import events, wire
from qulo.protocol.hub import HANDLERS, REFUSALS
from qulo.protocol.permissions import DEFAULT, ENROL, PING, REMEMBERED, VERBS, Actor, Permissions, Rights, Rule
from qulo.protocol.tracker import State
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net

WEB = Actor("web1", False)
ROOT = Actor("hub/local", True, True)
ORDINARY = Actor("hub/local", True)
TOKEN = Actor("token/abc", False)


def allow(verbs: str, names: str, *topics: str) -> Rule:
    return Rule(True, tuple(verbs.split()), tuple(names.split()), topics)


def deny(verbs: str, names: str, *topics: str) -> Rule:
    return Rule(False, tuple(verbs.split()), tuple(names.split()), topics)


# -- rules


@pytest.mark.parametrize(
    ("rules", "actor", "verb", "pattern", "allowed"),
    [
        ([], WEB, "publish", "a", False),
        ([allow("publish", "web1", "a")], WEB, "publish", "a", True),
        ([allow("publish", "web1", "a")], WEB, "subscribe", "a", False),
        ([allow("publish", "web2", "a")], WEB, "publish", "a", False),
        ([allow("publish", "web?", "a")], WEB, "publish", "a", True),
        ([allow("publish", "*", "a.>")], WEB, "publish", "a.b.c", True),
        ([allow("publish", "*", "a.>")], WEB, "publish", "a", False),
        ([allow("subscribe", "*", "a.*")], WEB, "subscribe", "a.*", True),
        ([allow("subscribe", "*", "a.*")], WEB, "subscribe", "a.>", False),
        ([allow("subscribe", "*", "a.>")], WEB, "subscribe", "a.*.c", True),
        ([allow("subscribe", "*", "a.b")], WEB, "subscribe", "a.*", False),
        # Deny wins, wherever it stands, and a pattern that only touches it is denied.
        ([deny("subscribe", "web1", "a.x"), allow("subscribe", "*", ">")], WEB, "subscribe", "a.x", False),
        ([allow("subscribe", "*", ">"), deny("subscribe", "*", "a.x")], WEB, "subscribe", "a.*", False),
        ([allow("subscribe", "*", ">"), deny("subscribe", "*", "a.x")], WEB, "subscribe", "a.y", True),
        ([allow("subscribe", "*", ">"), deny("subscribe", "db*", "a.x")], WEB, "subscribe", "a.*", True),
        # Programs of a host are not its agent.
        ([allow("publish", "web1", ">")], Actor("web1/local", False), "publish", "a", False),
        ([allow("publish", "*/local", ">")], Actor("web1/local", False), "publish", "a", True),
        ([allow("publish", "*/local", ">")], WEB, "publish", "a", False),
        # The system's own, whatever the rules say.
        ([allow("publish", "*", ">", "$qulo.>")], WEB, "publish", "$qulo.live", False),
        ([allow("request", "*", ">", "$qulo.>")], WEB, "request", "$qulo.list", True),
        ([allow("request", "*", ">")], WEB, "request", "$qulo.list", False),
        ([allow("respond", "*", ">", "$qulo.>")], WEB, "respond", "$qulo.list", False),
        ([allow("respond", "*", ">", "$qulo.>")], WEB, "respond", PING, True),
        ([allow("respond", "*", ">")], WEB, "respond", PING, False),
        ([allow("request", "*", ">", "$qulo.>")], WEB, "request", "$qulo.local.admin.keys.list", False),
        ([allow("request", "*", ">", "$qulo.>")], ORDINARY, "request", "$qulo.local.admin.keys.list", False),
        ([], ROOT, "request", "$qulo.local.admin.keys.list", True),
        ([allow("request", "*", ">", "$qulo.>")], WEB, "request", ENROL, False),
        ([], TOKEN, "request", ENROL, True),
        ([allow("request", "*", ">", "$qulo.>")], TOKEN, "request", "$qulo.list", False),
        ([allow("publish subscribe", "token/*", ">")], TOKEN, "publish", "a", False),
        ([allow("subscribe", "*", ">")], WEB, "subscribe", "local.x", False),
        ([allow("subscribe", "*", ">")], ORDINARY, "subscribe", "local.x", True),
        ([allow("subscribe", "*", ">")], WEB, "subscribe", "*.x", True),
    ],
)
def test_what_the_rules_decide(rules: list[Rule], actor: Actor, verb: str, pattern: str, allowed: bool) -> None:
    decision = Permissions(rules).decide(actor, verb, pattern)
    assert decision.allowed is allowed
    assert allowed <= (decision.rule is not None)


def test_without_any_configuration_whoever_is_let_in_may_do_what_is_not_the_systems() -> None:
    permissions = Permissions(DEFAULT)
    for verb in VERBS:
        assert permissions.decide(WEB, verb, ">").allowed
        assert permissions.decide(ORDINARY, verb, "local.>").allowed
    assert permissions.decide(WEB, "respond", PING).allowed
    assert permissions.decide(WEB, "request", "$qulo.list").allowed


def test_an_agent_speaks_for_its_programs_on_all_but_the_systems_topics() -> None:
    rights = Rights(
        Permissions([allow("publish", "web1/local", "a"), allow("respond", "web1", PING)]),
        WEB,
        Actor("web1/local", False),
    )
    assert rights.decide("publish", "a").allowed
    assert rights.decide("respond", PING).allowed
    assert rights.speaker("a").name == "web1/local"
    assert rights.speaker(PING).name == "web1"


def test_what_a_session_remembers_is_bounded() -> None:
    rights = Rights(Permissions(DEFAULT), WEB)
    for number in range(REMEMBERED + 10):
        assert rights.decide("publish", f"t{number}").allowed
    assert len(rights._decided) <= REMEMBERED


# -- the table of verbs

GOLDEN = Path(__file__).with_name("verbs.golden.json")


def test_the_table_of_verbs_is_the_golden_one() -> None:
    """A verb that is added or changed is added or changed there too, with its permission: somebody has looked at it."""
    table = {
        f"{number} {verb.name}": {
            "direction": verb.direction,
            "fields": {name: "|".join(kind.__name__ for kind in kinds) for name, kinds in verb.fields},
            "permission": verb.permission,
        }
        for number, verb in wire.VERBS.items()
    }
    assert table == json.loads(GOLDEN.read_text())


def test_whatever_names_a_topic_on_its_way_up_needs_a_permission_and_has_a_refusal() -> None:
    naming = {
        number
        for number, verb in wire.VERBS.items()
        if verb.direction == "up" and any(name in ("topic", "pattern", "stream") for name, _ in verb.fields)
    }
    assert naming == wire.NEEDS.keys() == REFUSALS.keys()
    assert naming <= HANDLERS.keys()
    assert {permission for permission, _, _ in wire.NEEDS.values()} <= set(VERBS)


# -- at a hub


def world(*rules: Rule) -> tuple[Net, Host, Program, Program]:
    """A hub with these rules, and two programs from elsewhere: `web1` and `db1`."""
    net = Net()
    hub = net.host("hub")
    hub.hub.authority.permissions = Permissions(rules)
    return net, hub, net.program("web1", hub, local=False), net.program("db1", hub, local=False)


def errors(program: Program, kind: type) -> list[QuloError]:
    refusals = (event for event in program.events if isinstance(event, events.Rejected | events.Forbidden))
    return [event.error for event in refusals if isinstance(event, kind)]


def test_a_publish_that_is_not_allowed_reaches_nobody_and_its_sender_is_told() -> None:
    net, hub, web, db = world(allow("publish", "web1", "a"), allow("subscribe", "db1", ">"))
    tracker = db.subscribe(">")
    net.settle()
    for topic in ("a", "b", "a"):
        web.publish(topic, topic)
    db.publish("a", "not mine")
    net.settle()
    assert db.texts(tracker) == ["a", "a"]
    (error,) = errors(web, events.Forbidden)
    assert isinstance(error, Denied)
    assert str(error).startswith("web1 may not publish on b: `qulo auth explain web1 publish 'b'`")
    assert len(errors(db, events.Forbidden)) == 1
    verdicts = hub.hub.authority.take_verdicts()
    assert {(v.who, v.verb, v.on, v.allowed) for v in verdicts} == {
        ("web1", "publish", "b", False),
        ("db1", "publish", "a", False),
    }


def test_every_other_verb_is_refused_to_whoever_asks() -> None:
    net, _, web, db = world(allow("respond", "db1", "svc"))
    db.serve("svc", lambda call: b"yes")
    web.subscribe("a")
    web.join("a", "g")
    web.serve("svc", lambda call: b"stolen")
    rid = web.ask("svc")
    net.settle()
    assert [type(error) for error in errors(web, events.Rejected)] == [Denied] * 3
    assert [code for code, _ in web.answers(rid)] == [Denied.code]
    assert not errors(db, events.Rejected)


def test_a_replier_answers_the_one_who_asked_and_once() -> None:
    net, hub, web, db = world(*DEFAULT)
    calls: list[events.Call] = []

    def remember(call: events.Call) -> bytes:
        calls.append(call)
        return b"first"

    db.serve("svc", remember)
    net.settle()
    rid = web.ask("svc")
    net.settle()
    db.link.reply(calls[0].rid, "", wire.RAW, b"second")
    web.link.reply(calls[0].rid, "", wire.RAW, b"mine")
    net.settle()
    assert [body for _, body in web.answers(rid)] == [b"first"]
    assert not hub.hub.calls.pending


def test_new_rules_end_what_they_do_not_allow_and_leave_the_rest() -> None:
    net, hub, web, db = world(*DEFAULT)
    lost, kept, router = web.subscribe("a.b"), db.subscribe("a.b"), web.subscribe("a.*")
    web.join("a.c", "g")
    web.serve("svc", lambda call: b"yes")
    net.settle()
    db.publish("a.b", "1")
    net.settle()
    hub.hub.adopt_permissions(Permissions([allow("publish subscribe", "db1", ">")]), net.now)
    hub.flush()
    hub.rebind()
    net.settle()
    db.publish("a.b", "2")
    web.publish("a.b", "3")
    net.settle()
    net.advance(3)
    assert (web.texts(lost), web.texts(router), db.texts(kept)) == (["1"], ["1"], ["1", "2"])
    assert len(errors(web, events.Rejected)) == 4
    assert len(errors(web, events.Forbidden)) == 1


def test_only_who_may_answer_pings_may_be_an_agent() -> None:
    net = Net()
    master = net.host("master")
    master.hub.authority.permissions = Permissions([allow("respond", "web*", PING)])
    web, _ = net.host("web1", master), net.host("db1", master)
    net.settle()
    assert web.way_up.link.identity.name in {session.name for session in master.hub.sessions.values()}
    assert len(master.hub.sessions) == 1
    assert "db1 may not be an agent here" in " ".join(note.text for note in master.notes)
    master.hub.adopt_permissions(Permissions([]), net.now)
    assert not master.hub.sessions


def test_what_comes_through_an_agent_is_its_programs_doing() -> None:
    net = Net()
    master = net.host("master")
    master.hub.authority.permissions = Permissions(
        [
            allow("respond", "web1", PING),
            allow("publish subscribe", "web1/local", "a"),
            allow("publish subscribe", "web1", "b"),
            allow("subscribe", "*/local", ">"),
        ]
    )
    agent = net.host("web1", master)
    here, there = net.program("p", agent), net.program("q", master)
    above = there.subscribe(">")
    below, refused = here.subscribe("a"), here.subscribe("c.d")
    net.settle()
    here.publish("a", "1")
    here.publish("b", "2")
    net.settle()
    here.publish("b", "3")
    net.settle()
    assert there.texts(above) == ["1"]
    assert here.texts(below) == ["1"]
    assert (below.state, refused.state) == (State.LIVE, State.LIVE)
    # The master's refusal reaches the program with its next publish on the topic.
    assert [str(error)[:30] for error in errors(here, events.Forbidden)] == ["web1/local may not publish on "]


def test_a_revoked_key_is_ignored_on_every_connection_that_it_has() -> None:
    net, hub, web, db = world(*DEFAULT)
    web.subscribe("a")
    net.settle()
    seen = db.subscribe("a")
    net.settle()
    last = int(hub.session(db).user.rpartition("#")[2]) + 1  # of the newest connection
    hub.hub.revoke("web1", last, net.now)
    old = web.connection
    assert old is not None
    hub.receive(old, wire.encode(50, 0, [[wire.PUBLISH, "a", 0, [b"1"]]]))
    hub.receive(old, wire.encode(0, 0, [[wire.HELLO, wire.VERSION, b"instance", "x", "client", None, 0, 0, {}]]))
    net.settle()
    assert {session.name for session in hub.hub.sessions.values()} == {"db1"}
    hub.rebind()
    net.advance(3)
    db.publish("a", "2")
    net.advance(1)
    assert db.texts(seen) == ["2"]
    # What comes in again is a new connection, which the ZAP handler has let in: the name has another key now.
    assert {session.name for session in hub.hub.sessions.values()} == {"db1", "web1"}


def test_denials_are_written_down_but_cannot_fill_the_disk() -> None:
    net, hub, web, _ = world()
    for number in range(200):
        web.publish(f"t{number}", "x")
    net.settle()
    first = hub.hub.authority.take_verdicts()
    assert 0 < len(first) < 40
    net.advance(10)
    web.publish("one.more", "x")
    net.settle()
    (last,) = hub.hub.authority.take_verdicts()
    assert last.untold == 200 - len(first)
