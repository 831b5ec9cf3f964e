"""The dialling side by itself: its phases, and what it makes of a hub that does not keep to the protocol."""

from __future__ import annotations

import itertools
import random

import pytest

from qulo.errors import BadTopic, ProtocolError
from qulo.protocol import events, wire
from qulo.protocol.link import PHASES, Identity, Link, Phase
from qulo.protocol.ports import Limits
from qulo.protocol.tracker import State

TOKEN = b"t" * 16
EVENTS = sorted({event for _, event in PHASES})


def welcome(epoch: int = 7, resumed: bool = False, received: int = 0, **limits: object) -> wire.Record:
    """A WELCOME."""
    return [wire.WELCOME, wire.VERSION, epoch, TOKEN, resumed, received, 0, limits, {"name": "hub"}]


def frame(*records: wire.Record, number: int = 0, ack: int = 0) -> bytes:
    """A frame of a hub."""
    return wire.encode(number, ack, list(records))


def own(*records: wire.Record) -> bytes:
    """A frame for this session on PUB."""
    return wire.encode_own(TOKEN, list(records))


def make_link() -> Link:
    """A link that is down."""
    return Link(Identity(b"", "peer"), Limits())


def up() -> Link:
    """A link with a session and a tied SUB."""
    link = make_link()
    link.hello(b"instance")
    link.frame_received(frame(welcome()))
    link.pub_received(own([wire.TIED]))
    link.take_events()
    return link


def sent(link: Link) -> list[wire.Record]:
    """The records that the link sends now."""
    return [record for data in link.take() for record in wire.decode(data)[2]]


@pytest.mark.parametrize(("phase", "event"), PHASES)
def test_each_row_of_the_table_leads_where_it_says(phase: Phase, event: str) -> None:
    link = make_link()
    link.phase = phase
    link._step(event)
    assert link.phase is PHASES[phase, event]


@pytest.mark.parametrize(("phase", "event"), sorted(set(itertools.product(Phase, EVENTS)) - set(PHASES), key=str))
def test_what_is_not_in_the_table_is_a_bug(phase: Phase, event: str) -> None:
    link = make_link()
    link.phase = phase
    with pytest.raises(KeyError):
        link._step(event)


def test_hello_names_what_the_hub_needs_to_go_on() -> None:
    link = up()
    link.frame_received(frame([wire.READY, 99, 0, 0], number=1))
    link.disconnected()
    (record,) = wire.decode(link.hello(b"another!"))[2]
    assert record == [wire.HELLO, wire.VERSION, b"instance", "peer", "client", TOKEN, 7, 1, {}]


def test_the_instance_is_a_fresh_one_until_a_hub_has_welcomed_it() -> None:
    link = make_link()
    link.hello(b"instance")
    link.disconnected()
    assert wire.decode(link.hello(b"another!"))[2][0][2] == b"another!"


def test_limits_of_the_hub_are_taken_over_where_they_are_numbers() -> None:
    link = make_link()
    link.hello(b"instance")
    link.frame_received(frame(welcome(max_message=10, high_water="x", link_buffer=-1, heartbeat=500)))
    assert (link.max_message, link.high_water, link.heartbeat) == (10, 1000, 0.5)
    assert link.channel.limit == Limits().link_buffer


def test_nothing_is_sent_without_a_session() -> None:
    link = make_link()
    link.publish("a", 0, b"x")
    assert link.take() == []
    link.hello(b"instance")
    assert link.take() == []
    link.frame_received(frame(welcome()))
    assert sent(link) == [[wire.PUBLISH, "a", 0, [b"x"]]]


def test_messages_on_one_topic_travel_as_one_run_and_order_is_kept() -> None:
    link = up()
    for topic, body in (("a", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"4")):
        link.publish(topic, 0, body)
    link.publish("a", 1, b"5")
    link.request("q", 1000, False, 0, b"6")
    link.publish("a", 1, b"7")
    assert [record[-1] for record in sent(link)] == [[b"1", b"2"], [b"3"], [b"4"], [b"5"], b"6", [b"7"]]


def test_a_full_batch_is_told() -> None:
    link = up()
    full = [link.publish("a", 0, b"x" * 1000) for _ in range(62)]
    assert full.index(True) > 50
    assert all(len(data) <= wire.SMALL for data in link.take())


def test_room_is_what_is_left_of_the_credit() -> None:
    link = up()
    before = link.room
    link.publish("a", 0, b"x" * 1000)
    assert before - 1100 < link.room < before - 1000
    link.take()
    link.frame_received(frame(ack=1))
    assert link.room == before
    assert link.settled


def test_a_subscription_is_asked_when_the_sub_is_tied() -> None:
    link = make_link()
    link.hello(b"instance")
    link.frame_received(frame(welcome()))
    tracker = link.subscribe("a.>")
    assert sent(link) == []
    link.pub_received(own([wire.TIED]))
    assert sent(link) == [[wire.SUBSCRIBE, tracker.sid, "a.>", None]]


def test_registrations_are_told_again_to_a_new_session_only() -> None:
    link = up()
    link.join("jobs", "g")
    sent(link)
    link.disconnected()
    link.respond("svc")
    for resumed, verbs in ((True, [wire.RESPOND]), (False, [wire.SUBSCRIBE, wire.RESPOND])):
        link.hello(b"instance")
        link.frame_received(frame(welcome(resumed=resumed, received=link.channel.number)))
        assert [record[0] for record in sent(link)] == verbs
        link.disconnected()


def test_what_is_closed_while_down_is_not_asked_again() -> None:
    link = up()
    tracker, sid = link.subscribe("a"), link.respond("svc")
    sent(link)
    link.disconnected()
    link.close(tracker.sid)
    link.close(sid)
    link.close(999)
    link.hello(b"instance")
    link.frame_received(frame(welcome(epoch=8)))
    link.pub_received(own([wire.TIED]))
    assert sent(link) == []
    assert tracker.state is State.CLOSED


def test_a_refusal_takes_the_subscription_away() -> None:
    link = up()
    tracker = link.subscribe("a")
    link.frame_received(frame([wire.DENIED, tracker.sid, "denied", "no"], number=1))
    (rejected,) = link.take_events()
    assert isinstance(rejected, events.Rejected)
    assert rejected.error.code == "denied"
    assert link.trackers == {}


def test_wrong_patterns_are_refused_before_anything_is_sent() -> None:
    link = up()
    for ask in (link.subscribe, link.respond, lambda pattern: link.join(pattern, "g")):
        with pytest.raises(BadTopic):
            ask("a..b")
    assert sent(link) == []
    assert link.trackers == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        frame(welcome()),  # nobody asked
        frame([wire.HELLO]),
        frame([wire.TIED]),
        frame([wire.GRANTED, 1, ["text"]]),
        frame([wire.PULSE, 0, 0, 0, [1]]),
        frame([wire.PULSE, 0, 0, 0, ["x", []]]),
        frame([wire.RUN, 0, b""]),
        frame([wire.RUN, 0, b"x\0" + wire.pack([7, [[1, 2, 3]]])]),
        frame([wire.RUN, 0, b"x\0" + wire.pack([8, [["a", 1, 0, b"", 0, [b"x"]]]])]),
        frame([wire.RUN, 1, b"x\0" + wire.pack([7, [["a", None, 0, b"", 0, 5]]])]),
        frame([wire.WORK, 1, "a", 0, ["text"]]),
        frame(number=5),
        frame(ack=99),
    ],
)
def test_a_hub_that_does_not_keep_to_the_protocol_is_told_by_one_error(data: bytes) -> None:
    link = up()
    tracker = link.subscribe("a")
    link.pub_received(own([wire.READY, tracker.sid, 0, 0]))
    with pytest.raises(ProtocolError):
        link.frame_received(data)


def test_another_version_is_refused() -> None:
    link = make_link()
    link.hello(b"instance")
    record = welcome()
    record[1] = 99
    with pytest.raises(ProtocolError, match="version 99"):
        link.frame_received(frame(record))


def odd_record(rng: random.Random) -> wire.Record:
    """A record that passes the table and means nothing."""
    verb = rng.choice([n for n, v in wire.VERBS.items() if v.direction == "down" and n != wire.WELCOME])
    values: dict[type, list[object]] = {
        int: [0, 1, 2, -1, 2**62],
        str: ["", "a", "a.b", "a..b"],
        bytes: [b"", b"x", b"x\0\x90", b".a\0" + wire.pack([7, [["a", 1, 0, b"", 0, [b"x"]]]])],
        dict: [{}, {"a": 1}],
        list: [[], [b"x"], [1, 2], [1], ["x", None], [[]]],
        bool: [True, False],
        type(None): [None],
    }
    return [verb, *(rng.choice(values[rng.choice(types)]) for _, types in wire.VERBS[verb].fields)]


@pytest.mark.parametrize("seed", range(20))
def test_no_record_of_a_hub_raises_anything_but_a_protocol_error(seed: int) -> None:
    rng = random.Random(seed)
    link = up()
    for pattern in ("a", "a.>", "*"):
        link.subscribe(pattern)
    link.respond("svc")
    for _ in range(400):
        record = odd_record(rng)
        try:
            if rng.random() < 0.5:
                link.frame_received(frame(record))
            else:
                link.pub_received(own(record))
        except ProtocolError:
            link.disconnected()
            link.hello(b"instance")
            link.frame_received(frame(welcome(resumed=True)))
            link.pub_received(own([wire.TIED]))


@pytest.mark.parametrize("sid", [0, 1])
@pytest.mark.parametrize("topic", ["", "a..b", "a.*", 5, None])
def test_a_run_without_a_topic_ends_the_connection_and_nothing_else(sid: int, topic: object) -> None:
    link = up()
    link.subscribe("a.>")
    inner = wire.encode_bundle(b".a\0", link.epoch, [[topic, 1, 0, b"", 0, [b"x"]]])
    with pytest.raises(ProtocolError):
        link.frame_received(frame([wire.RUN, sid, inner], number=1))


def test_a_gap_without_a_pattern_ends_the_connection_and_nothing_else() -> None:
    link = up()
    sid = link.subscribe("a.>").sid
    with pytest.raises(ProtocolError):
        link.frame_received(frame([wire.GAP, sid, "", 7, None, None, "restart"], number=1))
