"""A world as a history: what `tests.history` judges, which also judges what real processes did.

Its rules about holders and about what is done need to know what the network did to each of them; here the whole world
counts as disturbed, and `leases` and `streams` look at that instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qulo.errors import Disconnected
from qulo.protocol.tracker import Gap
from tests.history.checker import check
from tests.history.events import FAIL, INVOKE, OK, UNKNOWN, Event
from tests.history.report import Final, Params, Violation
from tests.simulation.record import Message, Put, Subscribed
from tests.simulation.streams import NOT_STORED
from tests.simulation.workload import GROUPS, PASSING

if TYPE_CHECKING:
    from tests.simulation.world import World

# A lease that ends at once, and a time that never ends (seconds).
AT_ONCE, FOREVER = 1e-9, 1e9

Happened = tuple[int, int, Event]  # moment, and what comes first of what is of the same one


def judge(world: World) -> list[Violation]:
    """What is wrong with a world that has come to rest."""
    params = Params(lease=AT_ONCE, grace=FOREVER, gap_grace=FOREVER, puts_are_heard=True)
    return check(history(world), final(world), params)


def key_of(body: str) -> str:
    """What names a message: its body without padding."""
    return "|".join(body.split("|")[:3])


def history(world: World) -> Iterator[Event]:
    """All of it, in order."""
    happened: list[Happened] = [(0, 0, Event(0, "*", "disturb", INVOKE))]
    for put in world.puts:
        happened += _put(put)
    for message in world.messages:
        if not message.put and not message.topic.startswith(("local.", "passing.")):  # of hosts a history knows nothing
            happened += _publish(message)
    for subscribed in world.subscribed:
        happened += _subscribed(subscribed)
    happened += _deliveries(world)
    for moment, body in world.given_back:
        happened.append((moment, 3, Event(0, "admin", "requeue", OK, key_of(body))))
    for program in world.ended:
        happened.append((program.gone or 0, 9, Event(0, program.name, "death")))
    times = world.clock.times
    for moment, _, event in sorted(happened, key=lambda each: each[:2]):
        yield event._replace(t=times[moment])


def _put(put: Put) -> Iterator[Happened]:
    message = put.message
    if message.topic.startswith("passing."):
        return
    who = f"{message.program.name}/puts"  # they reach subscribers when they are stored, whatever is published meanwhile
    event = Event(0, who, "put", INVOKE, key_of(put.body), message.topic, message.number, put.id or "")
    yield put.moment, 0, event._replace(delay=put.delay, ttl=put.ttl)
    if put.end == "":
        said = event._replace(phase=OK, stream=put.stream, seq=put.seq, duplicate=put.duplicate, at=put.at)
        yield put.ended, 2, said
    elif put.end is not None:
        phase = FAIL if put.end in NOT_STORED or put.end == Disconnected.code else UNKNOWN
        yield put.ended, 2, event._replace(phase=phase)


def _publish(message: Message) -> Iterator[Happened]:
    event = Event(0, message.program.name, "publish", INVOKE, key_of(message.body), message.topic, message.number)
    yield message.moment, 0, event
    if message.certain and message.acked is not None:
        yield message.acked, 2, event._replace(phase=OK)


def _subscribed(subscribed: Subscribed) -> Iterator[Happened]:
    if subscribed.ready is None or subscribed.closed:
        return  # one that ends while its connection is broken may have missed anything
    who, pattern = f"{subscribed.program.name}/{subscribed.tracker.sid}", subscribed.tracker.pattern
    yield subscribed.ready, 1, Event(0, who, "subscribe", OK, topic=pattern)
    for moment, item in subscribed.items:
        if not isinstance(item, Gap) and item[0].startswith(("local.", "passing.")):
            continue
        if isinstance(item, Gap):
            yield moment, 4, Event(0, who, "gap", OK, topic=item.pattern, reason=item.reason)
        else:
            for body in item[2]:
                yield moment, 4, Event(0, who, "receive", OK, key_of(body.decode()), item[0])


def _deliveries(world: World) -> Iterator[Happened]:
    for delivery in world.deliveries:
        if delivery.stream == PASSING:
            continue
        topic = delivery.body.split("|")[1]
        event = Event(
            *(0, f"{delivery.program.name}/{delivery.sid}", "deliver", OK, key_of(delivery.body), topic),
            stream=delivery.stream,
            seq=delivery.seq,
            group=delivery.group,
        )
        yield delivery.moment, 5, event._replace(redelivered=delivery.redelivered)
        if delivery.settled:
            yield delivery.settled_at, 6, event._replace(op=delivery.settled, phase=INVOKE)
        if delivery.confirmed is not None and delivery.settled != "nak":
            yield delivery.confirmed, 7, event._replace(op=delivery.settled, phase=OK)


def final(world: World) -> Final:
    """What is on the disks at the end."""
    disk = world.hubs[0].disk
    assert disk is not None
    streams = {state.stream.name: state.stream.topics for state in disk.store.streams() if state.stream.name != PASSING}
    left: dict[tuple[str, str], frozenset[str]] = {}
    for stream, group in GROUPS:
        book = disk.store._streams[stream]
        spans = book.groups[group].spans
        left[stream, group] = frozenset(key_of(m.body.decode()) for m in book.messages.values() if m.seq not in spans)
    dead = {
        (letter.group, key_of(message.body.decode()))
        for hub in world.hubs
        if hub.disk is not None
        for letter, message in hub.disk.store._dead.values()
    }
    # What was given back to one group is as new for all of them, as histories go.
    gone = frozenset(key_of(body) for _, body in world.given_back)
    return Final(streams=streams, left=left, dead=frozenset(dead), gone=gone)
