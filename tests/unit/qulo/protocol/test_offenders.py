"""A flood of bad frames: its connection is ignored, until it is quiet or another one, and nobody else notices."""

from __future__ import annotations

import pytest

from qulo.protocol import wire
from qulo.protocol.hub import Hub
from qulo.protocol.offenders import BAD_FRAMES, BAD_WITHIN, QUIET, WATCHED, Offenders
from qulo.protocol.session import Life, Listener
from tests.unit.qulo.protocol.fake_net import Net
from tests.unit.qulo.protocol.test_hub import connected, hello, make_hub, say

ROUTE, USER = b"r", "me#1"


def flood(hub: Hub, listener: Listener, count: int, now: float = 1.0, data: bytes = b"\xc1") -> None:
    """Bad frames over one connection."""
    for _ in range(count):
        hub.frame_received(listener, ROUTE, USER, "here", data, now)


def test_a_connection_is_ignored_after_so_many_and_no_sooner() -> None:
    offenders = Offenders()
    assert [offenders.bad(ROUTE, USER, 1.0) for _ in range(BAD_FRAMES)] == [False] * BAD_FRAMES
    assert not offenders.ignored
    assert offenders.bad(ROUTE, USER, 1.0)
    assert offenders.is_ignored(ROUTE, USER, 1.0)


def test_bad_frames_that_come_slowly_ignore_nobody() -> None:
    offenders = Offenders()
    pause = 2 * BAD_WITHIN / BAD_FRAMES
    assert not any(offenders.bad(ROUTE, USER, number * pause) for number in range(5 * BAD_FRAMES))


def test_it_is_heard_again_when_it_has_been_quiet_and_not_while_it_goes_on() -> None:
    offenders = Offenders()
    for _ in range(BAD_FRAMES + 1):
        offenders.bad(ROUTE, USER, 1.0)
    now = 1.0
    for _ in range(5):
        now += QUIET - 1
        assert offenders.is_ignored(ROUTE, USER, now)
    assert not offenders.is_ignored(ROUTE, USER, now + QUIET + 1)
    assert not offenders.ignored


def test_another_connection_by_the_same_route_is_heard() -> None:
    offenders = Offenders()
    for _ in range(BAD_FRAMES + 1):
        offenders.bad(ROUTE, USER, 1.0)
    assert not offenders.is_ignored(ROUTE, "me#2", 1.0)


def test_the_tables_are_bounded_and_tidied() -> None:
    offenders = Offenders()
    for number in range(3 * WATCHED):
        offenders.bad(b"%d" % number, f"me#{number}", 1.0)
    assert len(offenders._counts) == WATCHED
    for number in range(WATCHED + 5):
        for _ in range(BAD_FRAMES + 1):
            offenders.bad(b"%d" % number, f"you#{number}", 2.0)
    assert len(offenders.ignored) == WATCHED
    offenders.tidy(2.0 + QUIET + 1)
    assert not offenders.ignored


def test_a_hub_drops_what_comes_from_there_undecoded_and_says_so_once_and_in_the_audit_log() -> None:
    hub, listener, session = connected()
    flood(hub, listener, 3000)
    # The HELLO counts as well: whoever says it over and over is no better.
    assert (hub.counters.bad_frames, hub.counters.ignored) == (BAD_FRAMES, 3000 - BAD_FRAMES)
    assert (session.life, session.connected) == (Life.SUSPECT, False)
    told = [note.text for note in hub.take_notes() if "is ignored" in note.text]
    assert told == [
        f"peer (me) from here is ignored: more than {BAD_FRAMES} bad frames within {BAD_WITHIN:g} s",
        "peer is suspect: it is ignored",
    ]
    (verdict,) = hub.authority.take_verdicts()
    assert (verdict.who, verdict.address, verdict.verb, verdict.allowed, verdict.why) == (
        *("me", "here", "send", False),
        "bad frames",
    )


def test_an_ignored_connection_gets_no_answer_and_its_session_resumes_by_another() -> None:
    hub, listener, session = connected()
    say(hub, listener, [wire.SUBSCRIBE, 1, "a.*", None], number=1)
    flood(hub, listener, BAD_FRAMES + 1)
    hub.take_out()
    assert say(hub, listener, hello(token=session.token, epoch=7)) == []
    proof = hello(token=session.token, epoch=7, received=session.channel.number)
    welcome, *_ = say(hub, listener, proof, user="me#2", route=b"other")
    assert (welcome[0], welcome[4]) == (wire.WELCOME, True)
    assert hub.sessions[session.key] is session
    assert session.life is Life.UP


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(wire.encode(1, 0, [[wire.SUBSCRIBE, 1, "a", None]]), id="no HELLO"),
        pytest.param(wire.encode(0, 0, [[wire.BEAT, 0, 0, 0, 0]]), id="heartbeats"),
        pytest.param(wire.encode(0, 0, [hello(version=99)]), id="a HELLO that is refused"),
        pytest.param(wire.encode(0, 0, [hello()]), id="HELLO over and over"),
    ],
)
def test_whoever_has_no_session_can_keep_the_hub_busy_no_better(data: bytes) -> None:
    hub, listener = make_hub()
    flood(hub, listener, 3000, data=data)
    assert hub.counters.ignored >= 3000 - BAD_FRAMES - 1
    assert len(hub.take_out()) <= BAD_FRAMES + 20
    assert len([note for note in hub.take_notes() if note.level != "info"]) < 30


def test_messages_of_several_parts_count_too() -> None:
    hub, listener, session = connected()
    for _ in range(1000):
        hub.parts_received(listener, ROUTE, USER, "here", 1.0)
    assert (hub.counters.bad_frames, hub.counters.ignored) == (BAD_FRAMES, 1000 - BAD_FRAMES)
    assert session.bad == BAD_FRAMES


def test_the_log_does_not_fill_when_somebody_comes_back_to_be_ignored_again_and_again() -> None:
    hub, listener = make_hub()
    for number in range(100):
        for _ in range(BAD_FRAMES + 1):
            hub.frame_received(listener, b"%d" % number, f"me#{number}", "here", b"\xc1", 1.0)
    assert len(hub.take_notes()) == len(hub.authority.take_verdicts()) == 10


def test_a_link_whose_connection_is_ignored_comes_back_by_itself_and_misses_nothing() -> None:
    net = Net()
    hub = net.host("hub")
    p, s = net.program("p", hub), net.program("s", hub)
    tracker = s.subscribe("a")
    net.settle()
    for _ in range(BAD_FRAMES + 1):
        hub.receive(s.wire, b"\xc1")
    p.publish("a", *map(str, range(20)))
    net.settle()
    assert hub.session(s).life is Life.SUSPECT
    net.advance(10 * net.limits.heartbeat)
    assert s.texts(tracker) == [str(number) for number in range(20)]
    assert hub.session(s).life is Life.UP


# -- SUBs that no session has


def subscriptions(hub: Hub, listener: Listener, count: int, message: bytes = b"\x01none", user: str = "spy#9") -> None:
    for _ in range(count):
        hub.subscription_received(listener, user, message, 1.0)


@pytest.mark.parametrize("message", [b"\x01none", b"\x00none", b"", b"talk", b"\x01$qulo.s.00\0"])
def test_a_sub_that_is_no_sessions_is_ignored_after_so_many_messages(message: bytes) -> None:
    hub, listener, _ = connected()
    subscriptions(hub, listener, BAD_FRAMES, message)
    assert not listener.strangers.ignored
    subscriptions(hub, listener, 100, message)
    assert hub.counters.bad_frames == BAD_FRAMES + 1
    assert listener.strangers.ignored.keys() == {b"spy#9"}
    assert [note.text for note in hub.take_notes() if note.level == "error"] == [
        f"a SUB of spy is ignored: more than {BAD_FRAMES} subscriptions that nobody granted within {BAD_WITHIN:g} s"
    ]


def test_a_sessions_sub_may_ask_for_what_it_was_granted_and_take_it_back_as_often_as_it_likes() -> None:
    hub, listener, session = connected()
    assert hub.subscription_received(listener, "me#2", b"\x01" + wire.session_key(session.token), 1.0)
    say(hub, listener, [wire.SUBSCRIBE, 1, "a", None], number=1)
    for _ in range(BAD_FRAMES):
        assert hub.subscription_received(listener, "me#2", b"\x01.a\0", 1.0)
        assert not hub.subscription_received(listener, "me#2", b"\x00.a\0", 1.0)
    assert hub.counters.bad_frames == 0


def test_what_libzmq_says_of_a_sub_that_is_gone_is_nobodys_fault() -> None:
    hub, listener, _ = connected()
    subscriptions(hub, listener, 2 * BAD_FRAMES, b"\x00none", user="")
    assert hub.counters.bad_frames == 0
