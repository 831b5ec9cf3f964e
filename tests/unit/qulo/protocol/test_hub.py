"""The hub's own rules: who may begin a session, what a life of one is, and what a frame may hold."""

from __future__ import annotations

import itertools

import pytest

from qulo.protocol import wire
from qulo.protocol.hub import HANDLERS, Hub
from qulo.protocol.link import Link
from qulo.protocol.ports import Limits
from qulo.protocol.session import LIFE, Life, Listener, Session
from tests.unit.qulo.protocol.fake_net import Net

INSTANCE = b"instance"
EVENTS = sorted({event for _, event in LIFE})


def make_hub() -> tuple[Hub, Listener]:
    """A hub with one listener for other hosts, and tokens that count."""
    numbers = itertools.count(1)
    hub = Hub("hub", 7, Limits(), lambda: next(numbers).to_bytes(16, "big"), "0")
    return hub, hub.add_listener(False, 5555)


def hello(**changes: object) -> wire.Record:
    """A HELLO with some fields changed."""
    fields: dict[str, object] = {
        "version": wire.VERSION,
        "instance": INSTANCE,
        "name": "peer",
        "kind": "client",
        "token": None,
        "epoch": 0,
        "received": 0,
        "info": {},
    }
    return [wire.HELLO, *(fields | changes).values()]


def say(
    hub: Hub, listener: Listener, *records: object, number: int = 0, user: str = "me#1", route: bytes = b"r"
) -> list[wire.Record]:
    """What the hub answers to one frame."""
    hub.frame_received(listener, route, user, "here", wire.encode(number, 0, list(records)), 1.0)  # type: ignore[arg-type]
    hub.flush()
    return [record for _, _, frame in hub.take_out() for record in wire.decode(frame)[2]]


def only(hub: Hub) -> Session:
    """The one session that the hub has."""
    (session,) = hub.sessions.values()
    return session


def connected() -> tuple[Hub, Listener, Session]:
    """A hub with one session."""
    hub, listener = make_hub()
    say(hub, listener, hello())
    return hub, listener, only(hub)


@pytest.mark.parametrize(("life", "event"), LIFE)
def test_each_row_of_the_table_of_life_leads_where_it_says(life: Life, event: str) -> None:
    _, _, session = connected()
    session.life = life
    assert session.step(event) is (LIFE[life, event] is not life)
    assert session.life is LIFE[life, event]


@pytest.mark.parametrize(("life", "event"), sorted(set(itertools.product(Life, EVENTS)) - set(LIFE), key=str))
def test_what_is_not_in_the_table_of_life_is_a_bug(life: Life, event: str) -> None:
    _, _, session = connected()
    session.life = life
    with pytest.raises(KeyError):
        session.step(event)


def test_every_verb_of_a_peer_has_a_handler_but_hello() -> None:
    up = {number for number, verb in wire.VERBS.items() if verb.direction == "up"}
    assert set(HANDLERS) == up - {wire.HELLO}


def test_hello_is_welcomed() -> None:
    hub, listener = make_hub()
    ((verb, version, epoch, token, resumed, received, publish, limits, info),) = say(hub, listener, hello())
    assert (verb, version, epoch, resumed, received, publish) == (wire.WELCOME, wire.VERSION, 7, False, 0, 5555)
    assert token == only(hub).token
    assert limits["heartbeat"] == 2000
    assert info == {"name": "hub", "version": "0", "principal": "me"}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"version": 99}, "version"),
        ({"instance": b"short"}, "protocol"),
        ({"kind": "king"}, "protocol"),
        ({"name": ""}, "denied"),
        ({"name": "A"}, "denied"),
        ({"name": "a\n"}, "denied"),
        ({"name": "a" * 65}, "denied"),
        ({"name": "*"}, "denied"),
    ],
)
def test_a_wrong_hello_is_refused_with_its_reason(wrong: dict[str, object], code: str) -> None:
    hub, listener = make_hub()
    ((verb, said, _),) = say(hub, listener, hello(**wrong))
    assert (verb, said) == (wire.REFUSED, code)
    assert not hub.sessions


@pytest.mark.parametrize("wrong", [{"token": b"guess", "epoch": 7}, {"token": None, "epoch": 7}, {"epoch": 6}])
def test_a_session_is_resumed_by_whoever_can_prove_it_only(wrong: dict[str, object]) -> None:
    hub, listener, session = connected()
    proof: dict[str, object] = {"token": session.token} | wrong
    ((verb, code, _),) = say(hub, listener, hello(**proof), user="me#2", route=b"other")
    assert (verb, code) == (wire.REFUSED, "denied")
    assert session.route == b"r"


def test_another_principal_gets_nothing_of_a_session_even_with_its_token() -> None:
    hub, listener, session = connected()
    say(hub, listener, [wire.SUBSCRIBE, 1, "a.*", None], number=1)
    (welcome,) = say(hub, listener, hello(token=session.token, epoch=7), user="else#2", route=b"other")
    assert welcome[4] is False
    assert only(hub).principal == "else"
    assert not only(hub).subscriptions
    assert only(hub).token != session.token


def test_a_proven_session_moves_to_the_new_connection() -> None:
    hub, listener, session = connected()
    (welcome,) = say(hub, listener, hello(token=session.token, epoch=7), user="me#2", route=b"other")
    assert welcome[4] is True
    assert (session.route, session.user) == (b"other", "me#2")
    ((verb, code, _),) = say(hub, listener, [wire.ECHO, 1])
    assert (verb, code) == (wire.REFUSED, "no-session"), "the old connection is nobody's"


def test_a_connection_that_took_over_a_routing_id_is_not_that_peer() -> None:
    hub, listener, session = connected()
    ((verb, code, _),) = say(hub, listener, [wire.SUBSCRIBE, 1, "a", None], number=1, user="thief#2")
    assert (verb, code) == (wire.REFUSED, "no-session")
    assert not session.subscriptions


@pytest.mark.parametrize("record", [[wire.SUBSCRIBE, 1, "a", None], [wire.BEAT, 0, 0, 0, 0], [wire.BYE]])
def test_whoever_has_no_session_is_told_to_say_hello(record: wire.Record) -> None:
    hub, listener = make_hub()
    ((verb, code, _),) = say(hub, listener, record)
    assert (verb, code) == (wire.REFUSED, "no-session")


@pytest.mark.parametrize(
    "records",
    [
        [None],
        [5],
        ["x"],
        [{}],
        [[]],
        [[wire.ECHO, 0], {}],
        [[wire.ECHO, 0], None],
        [[{}]],
        [[wire.ECHO, "x"]],
        [[wire.SUBSCRIBE, 1, "a", None]],  # not in a frame without a number
        [[wire.WELCOME]],
        [[wire.ECHO, 0], hello()],
    ],
)
def test_garbage_without_a_number_is_counted_and_answered(records: list[object]) -> None:
    hub, listener, session = connected()
    ((verb, code, _),) = say(hub, listener, *records)
    assert (verb, code) == (wire.REFUSED, "protocol")
    assert session.bad == hub.counters.bad_frames == 1


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        None,
        [wire.PUBLISH, "a", 0, []],
        [wire.PUBLISH, "a", 0, ["text"]],
        [wire.PUBLISH, "a", 9, [b"x"]],
        [wire.PUBLISH, "a..b", 0, [b"x"]],
        [wire.PUBLISH, "a.*", 0, [b"x"]],
        [wire.PUBLISH, ["a"], 0, [b"x"]],
        [wire.REPLY, 1, "x" * 65, 0, b""],
        [wire.REPLY, 1, "", 9, b""],
        [wire.REQUEST, 1, "a", 1000, False, -1, b""],
        [wire.LOST, "a..b", "x"],
        hello(),
    ],
)
def test_garbage_with_a_number_is_counted_and_answered(record: object) -> None:
    hub, listener, session = connected()
    out = say(hub, listener, [wire.UNSUBSCRIBE, 1], record, number=1)
    assert (wire.REFUSED, "protocol") in [tuple(answer[:2]) for answer in out]
    assert session.bad == 1
    assert not hub.router.seq


@pytest.mark.parametrize("newer", [{"a": "x"}, {b"a": 1}, {"a": None}])
def test_a_repair_names_numbers_by_topic(newer: dict[object, object]) -> None:
    hub, listener, session = connected()
    say(hub, listener, [wire.SUBSCRIBE, 1, "a.*", None], number=1)
    say(hub, listener, [wire.REPAIR, 1, 0, newer], number=2)
    assert session.bad == 1


def test_garbage_is_answered_while_it_is_rare() -> None:
    hub, listener, session = connected()
    answers = [say(hub, listener, None) for _ in range(20)]
    assert [len(answer) for answer in answers] == [1] * 10 + [0] * 10
    assert session.bad == 20


@pytest.mark.parametrize("number", [2, 2**63])
def test_a_hole_in_the_numbers_is_refused_and_a_repeat_dropped(number: int) -> None:
    hub, listener, session = connected()
    say(hub, listener, [wire.SUBSCRIBE, 1, "a.*", None], number=1)
    say(hub, listener, [wire.UNSUBSCRIBE, 1], number=1)
    bad = [session.bad]
    say(hub, listener, [wire.UNSUBSCRIBE, 1], number=number + 1)
    assert session.subscriptions
    assert [*bad, session.bad] == [0, 1]


def test_a_raw_sub_gets_no_prefix() -> None:
    hub, listener, session = connected()
    key = wire.session_key(session.token)
    assert not hub.subscription_received(listener, "me#2", b"\x01.", 1.0)
    assert not hub.subscription_received(listener, "me#2", b"\x01", 1.0)
    assert not hub.subscription_received(listener, "other#2", b"\x01" + key, 1.0), "not its principal"
    assert not hub.subscription_received(listener, "me#2", b"\x01" + key[:-1], 1.0)
    assert not hub.subscription_received(listener, "me#2", b"\x01$qulo.s.zz\0", 1.0)
    assert not hub.subscription_received(hub.add_listener(True, 0), "me#2", b"\x01" + key, 1.0)
    assert hub.subscription_received(listener, "me#2", b"\x01" + key, 1.0)
    assert not hub.subscription_received(listener, "me#2", b"\x01.", 1.0), "tied, and nothing granted"
    say(hub, listener, [wire.SUBSCRIBE, 1, "a.>", None], number=1)
    assert not hub.subscription_received(listener, "me#2", b"\x01.", 1.0)
    assert not hub.subscription_received(listener, "me#3", b"\x01.a.", 1.0)
    assert hub.subscription_received(listener, "me#2", b"\x01.a.", 1.0)


def test_what_the_socket_refused_goes_again() -> None:
    hub, listener, session = connected()
    hub.confirm(session, 1)
    hub.flush()
    ((_, route, frame),) = hub.take_out()
    hub.unsent(listener, route, 1, False)
    hub.tick(1.0)
    hub.flush()
    assert hub.take_out() == [(listener, route, frame)]


def test_a_peer_whose_connection_is_gone_is_suspect_and_expires() -> None:
    hub, listener, session = connected()
    hub.unsent(listener, b"r", 0, True)
    assert (session.life, session.connected) == (Life.SUSPECT, False)
    hub.tick(1.0 + Limits().session_timeout + 1)
    assert not hub.sessions
    assert [gone.name for gone in hub.down] == ["peer"]
    assert any("is down: expired" in note.text for note in hub.take_notes())


def test_silence_is_suspect_and_a_sign_of_life_is_not() -> None:
    hub, listener, session = connected()
    hub.tick(7.0)
    lives = [session.life]
    say(hub, listener, [wire.ECHO, 0])
    assert [*lives, session.life] == [Life.SUSPECT, Life.UP]


def test_rates_are_measured_from_two_samples() -> None:
    net = Net()
    hub = net.host("hub")
    p = net.program("p", hub)
    net.advance(6)
    p.publish("a", *("x" for _ in range(50)))
    net.advance(6)
    assert 5 < hub.hub.rates["a"] < 15


def test_a_link_and_a_hub_have_the_same_defaults() -> None:
    assert Link(identity=None, limits=Limits()).high_water == Limits().high_water  # type: ignore[arg-type]


def test_only_an_agent_can_tell_of_losses() -> None:
    hub, listener, session = connected()
    say(hub, listener, [wire.LOST, ">", "overflow"], number=1)
    assert session.bad == 1


def test_one_who_asks_and_does_not_read_gets_small_errors_in_the_end() -> None:
    _, _, session = connected()
    session.calls = 100
    for rid in range(100):
        session.answer(rid, "", 0, b"x" * 1024 * 1024)
    assert session.channel.bytes < 2 * session.channel.limit + 2 * 1024 * 1024


def test_garbage_is_answered_ten_times_and_then_now_and_then() -> None:
    hub, listener, _ = connected()
    answered = sum(bool(say(hub, listener, ["garbage"])) for _ in range(50))
    assert answered == 10
    hub.frame_received(listener, b"r", "me#1", "here", b"garbage", 99.0)
    assert hub.take_out()


def test_a_hub_that_was_stalled_hears_what_waits_before_it_calls_anybody_silent() -> None:
    hub, _listener, session = connected()
    timeout = hub.limits.session_timeout
    hub.tick(1.0)
    hub.tick(2.0)
    hub.tick(2.0 + 2 * timeout)  # frozen meanwhile; what the peer has sent is still in the socket
    assert session.life.value == "up"
    for step in range(100):
        hub.tick(3.0 + 2 * timeout + step / 2)
    assert session.life.value == "down"
