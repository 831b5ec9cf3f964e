"""What must hold in every world, whatever happened. Reads the record of a world that has come to rest, changes nothing.

Pub/sub: what is delivered was published, matches, comes once and in order per publisher and topic; what is missing is
covered by a Gap. Groups: to one member at most. Requests: one end each. Streams: see `streams`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from qulo.errors import (
    DeadlineExceeded,
    Denied,
    Disconnected,
    HandlerError,
    NoResponders,
    NoStream,
    Overloaded,
    ResponderLost,
    StoreFull,
    UsageError,
)
from qulo.protocol import topics
from qulo.protocol.tracker import Gap
from tests.simulation import streams
from tests.simulation.leases import Broken
from tests.simulation.record import Message, Subscribed
from tests.simulation.workload import WORK
from tests.simulation.world import World

# How a request may end; "" is a good answer, and "gone" its program's own end.
ENDS = {
    *("", "gone", Disconnected.code, NoResponders.code, ResponderLost.code, HandlerError.code, Denied.code),
    *(DeadlineExceeded.code, Overloaded.code, NoStream.code, UsageError.code, StoreFull.code),
}


def check(world: World) -> None:
    """Raise Broken with what was broken."""
    published = {message.body: message for message in world.messages}
    for subscribed in world.subscribed:
        _order(world, published, subscribed)
        _complete(world, subscribed)
        if world.soft:
            _no_gap(subscribed)
    _work(world, published)
    _requests(world)
    if world.with_streams:
        streams.check(world)


def name(subscribed: Subscribed) -> str:
    """For messages."""
    return f"{subscribed.program.name}'s {subscribed.tracker.pattern}"


def _fail_if(condition: object, text: str) -> None:
    if condition:
        raise Broken(text)


def _no_gap(subscribed: Subscribed) -> None:
    """Without the master there are subscriptions; what they may have missed has no first number. No other gap."""
    for _, gap in subscribed.gaps:
        _fail_if(gap.reason != "window" or gap.first is not None, f"{name(subscribed)}: {gap} without a reason")


def _order(world: World, published: dict[str, Message], subscribed: Subscribed) -> None:
    """Nothing twice, nothing invented, nothing that does not match, in order per publisher and topic.

    Except behind Gap(restart) below an agent: a new agent does not know its predecessor's messages as its own when
    they come back from the master.
    """
    last: dict[tuple[str, str, bool], int] = {}
    seen: set[str] = set()
    pattern = subscribed.tracker.pattern
    for text in _texts_and_restarts(subscribed):
        if text is None:
            last.clear()
            seen.clear()
            continue
        message = published.get(text)
        if message is None:
            raise Broken(f"{name(subscribed)} got {text}, which nobody published")
        _fail_if(not topics.matches(pattern, message.topic), f"{name(subscribed)} got {text}, which does not match")
        if message.topic.startswith("local."):
            _fail_if(message.program.hub is not subscribed.program.hub, f"{text} left its host")
        if message.put:  # in the order in which they are stored, see `streams`
            _fail_if(text in seen, f"{name(subscribed)} got {text} twice")
            seen.add(text)
            continue
        key = message.program.name, message.topic, message.put
        late = last.get(key, -1) >= message.number
        if late and text not in seen and message.moment < world.agents_died.get(message.program.name, 0):
            continue  # passed on by an agent that died since, when its successor was already at work
        _fail_if(late, f"{name(subscribed)} got {text} twice or after a later one")
        last[key] = message.number
        seen.add(text)


def _texts_and_restarts(subscribed: Subscribed) -> Iterator[str | None]:
    """The messages in order, and None where an agent began anew."""
    for _, item in subscribed.items:
        if not isinstance(item, Gap):
            yield from (body.decode() for body in item[2])
        elif item.reason == "restart" and subscribed.program.hub.master is not None:
            yield None


def _complete(world: World, subscribed: Subscribed) -> None:
    """What was published while the subscription stood has come, or a gap was reported since."""
    if subscribed.closed or subscribed.ready is None or world.rested is None:
        return
    got = set(subscribed.texts)
    for message in world.messages:
        if message.moment <= subscribed.ready or not message.certain or message.body in got:
            continue
        if expected(subscribed, message):
            covered = any(
                moment >= message.moment and topics.overlap(gap.pattern, message.topic)
                for moment, gap in subscribed.gaps
            )
            _fail_if(not covered, f"{name(subscribed)} (since {subscribed.ready}) silently missed {message.body}")


def expected(subscribed: Subscribed, message: Message) -> bool:
    """Is the message one for this subscription?"""
    if not topics.matches(subscribed.tracker.pattern, message.topic):
        return False
    if not message.topic.startswith("local."):
        return True
    return message.program.hub is subscribed.program.hub and subscribed.program.local


def _work(world: World, published: dict[str, Message]) -> None:
    """Work goes to one member: never to two, and to one at least if no hub and no session died."""
    got = Counter(text for program in (*world.programs, *world.ended) for text in program.work)
    wrong = [text for text, times in got.items() if times > 1 or text not in published]
    _fail_if(wrong, f"work went to two members, or was invented: {wrong}")
    members = [program for program in world.programs if program.members]
    if world.soft and members and not any(program.members for program in world.ended):
        missing = [m.body for m in world.messages if m.topic == WORK and m.certain and m.body not in got]
        _fail_if(missing, f"nobody got the work {missing}")


def _requests(world: World) -> None:
    """One end each, and only one of those that a request can have."""
    for asked in world.asked:
        what = f"{asked.program.name}'s request {asked.rid}"
        _fail_if(world.rested is not None and asked.end is None, f"{what} never ended")
        _fail_if(asked.end is not None and asked.end not in ENDS, f"{what} ended with {asked.end}")
        _fail_if(not asked.many and len(asked.answers) > 1, f"{what} got {asked.answers}")
        most = asked.expected if asked.expected is not None else 1
        _fail_if(len(asked.answers) > most, f"{what} asked {most} and got {asked.answers}")
