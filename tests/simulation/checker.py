"""What must hold in every world, whatever happened: the promises of publish, groups and requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from qulo.errors import Disconnected, NoResponders, ResponderLost
from qulo.protocol import topics
from qulo.protocol.link import Phase
from qulo.protocol.tracker import Gap, State
from tests.simulation.world import WORK, Message, Subscribed, World

# How a request may end when something was broken; "" is a good answer.
ENDS = {"", Disconnected.code, NoResponders.code, ResponderLost.code}


def check(world: World) -> None:
    """Raise AssertionError with what was broken."""
    published = {message.body: message for message in world.messages}
    for subscription in world.subscribed.values():
        check_order(published, subscription)
        check_complete(world, subscription)
        for _, gap in subscription.gaps:
            # Without the master there are subscriptions; what they may have missed has no first number.
            away = gap.reason == "window" and gap.first is None
            assert world.hard or away, f"{name(subscription)}: {gap} without a reason"
    check_work(world, published)
    check_requests(world)


def name(subscription: Subscribed) -> str:
    """For messages."""
    return f"{subscription.program.name}'s {subscription.tracker.pattern}"


def check_order(published: dict[str, Message], subscription: Subscribed) -> None:
    """Nothing twice, nothing invented, nothing that does not match, in order per publisher and topic.

    Except behind Gap(restart) below an agent: a new agent does not know its predecessor's messages as its own when
    they come back from the master.
    """
    last: dict[tuple[str, str], int] = {}
    seen: set[str] = set()
    for text in texts_and_restarts(subscription):
        if text is None:
            last.clear()
            seen.clear()
            continue
        message = published.get(text)
        assert message is not None, f"{name(subscription)} got {text}, which nobody published"
        assert topics.matches(subscription.tracker.pattern, message.topic), f"{name(subscription)} got {text}"
        if message.topic.startswith("local."):
            home = next(a for a in subscription.program.world.actors if a.name == message.program)
            assert home.target is subscription.program.target, f"{text} left its host"
        key = message.program, message.topic
        late = last.get(key, -1) >= message.number
        if late and text not in seen and message.step < subscription.program.world.agents_died.get(message.program, 0):
            continue  # passed on by an agent that died since, when its successor was already at work
        assert not late, f"{name(subscription)} got {text} twice or after a later one"
        last[key] = message.number
        seen.add(text)


def texts_and_restarts(subscription: Subscribed) -> Iterator[str | None]:
    """The messages in order, and None where an agent began anew."""
    for _, item in subscription.items:
        if not isinstance(item, Gap):
            yield from (body.decode() for body in item[2])
        elif item.reason == "restart" and subscription.program.target.master is not None:
            yield None


def check_complete(world: World, subscription: Subscribed) -> None:
    """What was published while the subscription stood has come, or a gap was reported since."""
    if subscription.closed or subscription.ready is None:
        return
    got = set(subscription.texts)
    for message in world.messages:
        if message.step <= subscription.ready or not message.certain or message.body in got:
            continue
        if expected(subscription, message):
            covered = any(
                step >= message.step and topics.overlap(gap.pattern, message.topic) for step, gap in subscription.gaps
            )
            assert covered, f"{name(subscription)} (since {subscription.ready}) silently missed {message}"


def expected(subscription: Subscribed, message: Message) -> bool:
    """Is the message one for this subscription?"""
    if not topics.matches(subscription.tracker.pattern, message.topic):
        return False
    if not message.topic.startswith("local."):
        return True
    home = next(a for a in subscription.program.world.actors if a.name == message.program)
    return home.target is subscription.program.target and subscription.program.local


def check_work(world: World, published: dict[str, Message]) -> None:
    """Work goes to one member: never to two, and to one at least if no hub and no session died."""
    got = Counter(text for actor in world.members for text in actor.work())
    assert not [text for text, times in got.items() if times > 1 or text not in published]
    if not world.hard:
        missing = [m for m in world.messages if m.topic == WORK and m.body not in got]
        assert not missing, f"nobody got the work {missing}"


def check_requests(world: World) -> None:
    """One answer at most, and only one of those that a request can have."""
    for actor, rid in world.asked:
        answers = actor.answers(rid)
        assert len(answers) <= 1, f"{actor.name} got {answers} for one request"
        assert all(code in ENDS for code, _ in answers), f"{actor.name} got {answers}"


def check_rest(world: World) -> None:
    """After the faults: every session is up, every subscription live, nothing waits anywhere."""
    for dialler in world.net.diallers:
        assert dialler.link.phase is Phase.UP, f"{dialler.link.identity.name} is {dialler.link.phase}"
        assert dialler.link.settled, f"{dialler.link.identity.name} waits for acks"
        for tracker in dialler.link.trackers.values():
            assert tracker.state is State.LIVE, f"{dialler.link.identity.name} {tracker.pattern}: {tracker.state}"
            assert not tracker.held
    for host in world.net.hosts:
        assert not host.hub.blocked, f"{host.name} holds publishers back"
        for session in host.hub.sessions.values():
            assert not session.parked, f"{host.name} parks {session.name}"
            assert not session.repairs
            assert session.channel.idle or not session.connected, f"{host.name} waits for {session.name}"
            assert 0 <= session.calls <= len(world.asked)
        assert not host.hub.calls.pending, f"{host.name} has calls pending"


def check_afterwards(world: World) -> None:
    """And everything works: a message from everybody on each topic reaches all, without a gap."""
    before = {key: len(s.gaps) for key, s in world.subscribed.items()}
    first = len(world.messages)
    world.now += 1
    for _ in range(30):
        world.publish()
        world.net.settle()
    world.net.advance(5)
    for key, subscription in world.subscribed.items():
        if not subscription.closed:
            got = set(subscription.texts)
            for message in world.messages[first:]:
                if expected(subscription, message):
                    assert message.body in got, f"{name(subscription)} did not get {message} after all was well"
            assert len(subscription.gaps) == before[key], f"{name(subscription)}: a gap after all was well"
