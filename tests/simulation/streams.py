"""What must hold for streams in every world: nothing acknowledged is lost, nothing is stored twice, nothing is new.

Reads what the programs saw, and at the end what is on the master's disk and in the agents' dead letters. What is lost
is only known of a world that has come to rest, where every group has had the time to work everything off.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from qulo.errors import (
    DeadlineExceeded,
    Denied,
    Disconnected,
    NoStream,
    OutcomeUnknown,
    Overloaded,
    StoreFull,
)
from qulo.store.memory import MemoryStore
from tests.simulation.leases import Broken
from tests.simulation.record import Delivery, Put
from tests.simulation.workload import GROUPS, PASSING

if TYPE_CHECKING:
    from tests.simulation.world import World

# How a put may end; "" is stored, and "gone" its program's own end.
ENDS = {
    *("", "gone", Disconnected.code, OutcomeUnknown.code, DeadlineExceeded.code),
    *(NoStream.code, StoreFull.code, Denied.code, Overloaded.code),
}

# The errors that say "not stored", and mean it.
NOT_STORED = {NoStream.code, StoreFull.code, Denied.code, Overloaded.code}


def check(world: World) -> None:
    """Raise Broken with what was broken."""
    _puts(world)
    by_group: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    for delivery in world.deliveries:
        if delivery.stream != PASSING:
            by_group[delivery.stream, delivery.group].append(delivery)
    for (stream, group), deliveries in by_group.items():
        _deliveries(world, stream, group, deliveries)
    _one_place(world)
    _order(world)
    if world.rested is not None:
        for stream, group in GROUPS:
            _nothing_lost(world, stream, group, by_group[stream, group])


def _fail_if(condition: object, text: str) -> None:
    if condition:
        raise Broken(text)


def _puts(world: World) -> None:
    for put in world.puts:
        what = f"{put.program.name}'s put {put.body}"
        _fail_if(world.rested is not None and put.end is None, f"{what} never ended")
        _fail_if(put.end is not None and put.end not in ENDS, f"{what} ended with {put.end}")
        _fail_if(put.end == "" and put.late, f"{what} was answered {put.late} once more")
        _fail_if(put.end == "" and put.require and put.at != "master", f"{what} was to be at the master")


def _deliveries(world: World, stream: str, group: str, deliveries: list[Delivery]) -> None:
    """Nothing invented; once at most without the flag; not given again once it was said that it is done.

    A worker that was stopped may read what it was given long ago: no more is asked of the order in which it comes.
    """
    bodies: dict[int, str] = {}
    unflagged: set[int] = set()
    sent = {message.body for message in world.messages}
    for delivery in deliveries:
        what = f"{stream}/{group} {delivery.seq} ({delivery.body})"
        _fail_if(delivery.body not in sent, f"{what} was never sent")
        _fail_if(bodies.setdefault(delivery.seq, delivery.body) != delivery.body, f"{what} was {bodies[delivery.seq]}")
        if not delivery.redelivered:
            _fail_if(delivery.seq in unflagged, f"{what} came twice without saying so")
            unflagged.add(delivery.seq)
        mine = world.requeued_for.get((stream, delivery.seq), group)
        _fail_if(mine != group, f"{what} was given back for {mine}")
        _fail_if(delivery.tries < 1, f"{what} has {delivery.tries} tries")
        if delivery.settled in ("ack", "reject") and delivery.confirmed is not None:
            given = world.last_given[stream, group, delivery.seq]
            _fail_if(given > delivery.confirmed, f"{what} was given again at {given}, but done at {delivery.confirmed}")


def _one_place(world: World) -> None:
    """What was put once is stored once, however often it was sent, and where the answer said."""
    store = _store(world)
    seqs: dict[tuple[str, str], set[int]] = defaultdict(set)
    for stream, book in store._streams.items():
        for message in book.messages.values():
            seqs[stream, message.body.decode()].add(message.seq)
    for delivery in world.deliveries:
        seqs[delivery.stream, delivery.body].add(delivery.seq)
    for put in world.puts:
        if put.end == "" and put.seq:
            seqs[put.stream, put.body].add(put.seq)
    for (stream, body), numbers in seqs.items():
        if stream == PASSING:
            continue
        _fail_if(len(numbers) > 1 + world.requeued[body], f"{body} is in {stream} as {sorted(numbers)}")
    stored = {body for _, body in seqs}
    by_body: dict[str, list[Put]] = defaultdict(list)
    for put in world.puts:
        by_body[put.body].append(put)
    for body, puts in by_body.items():
        refused = all(put.end in NOT_STORED for put in puts)
        _fail_if(refused and body in stored, f"{body} was refused with {[put.end for put in puts]} and is stored")


def _store(world: World) -> MemoryStore:
    disk = world.hubs[0].disk
    assert disk is not None
    return disk.store


def _nothing_lost(world: World, stream: str, group: str, deliveries: list[Delivery]) -> None:
    """What was acknowledged has been acknowledged by the group in its turn, or is in dead letters."""
    finished = {delivery.body for delivery in deliveries if delivery.settled in ("ack", "reject")}
    delivered = {delivery.body for delivery in deliveries}
    dead: set[str] = set()
    for hub in world.hubs:
        if hub.disk is not None:
            dead |= {message.body.decode() for _, message in hub.disk.store._dead.values()}
    prefix = "orders." if stream == "ORDERS" else "log."
    for put in world.puts:
        if put.end != "" or put.ttl or not put.message.topic.startswith(prefix):
            continue
        _fail_if(
            put.body not in delivered | dead, f"{put.body} was stored at {put.at} and never came to {stream}/{group}"
        )
        _fail_if(put.body not in finished | dead, f"{put.body} was never done by {stream}/{group}")


def _order(world: World) -> None:
    """Each program's puts are stored in the order in which it made them, delays apart."""
    numbers: Counter[str] = Counter()
    for put in world.puts:
        numbers[put.body] += 1
    where: dict[tuple[str, str], int] = {}
    for put in world.puts:
        if put.end == "" and put.seq:
            where[put.stream, put.body] = put.seq
    for delivery in world.deliveries:
        where.setdefault((delivery.stream, delivery.body), delivery.seq)
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for put in world.puts:
        if numbers[put.body] > 1 or put.body in world.requeued:
            continue
        for stream in ("ORDERS", "LOG", "STATE"):
            seq = where.get((stream, put.body))
            if seq is not None:
                before, body = last.get((put.program.name, stream), (0, ""))
                _fail_if(before > seq, f"{put.body} is {seq} of {stream}, and {body}, put before it, {before}")
                last[put.program.name, stream] = (seq, put.body)
