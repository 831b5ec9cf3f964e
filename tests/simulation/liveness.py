"""What must come to be when nothing breaks any more, within a bounded time: rest, and then everything works.

`check` publishes, hence it is the last thing to do to a world.
"""

from __future__ import annotations

from tests.simulation import safety
from tests.simulation.leases import Broken
from tests.simulation.rest import unrest
from tests.simulation.workload import TOPICS
from tests.simulation.world import PATIENCE, World

# Seconds in which a message reaches everybody when all is well: a heartbeat, and what it may take to repair.
REACHES = 5.0


def check(world: World) -> None:
    """Raise Broken with what never came to be."""
    if world.rested is None:
        raise Broken(f"no rest within {PATIENCE:g} s: {unrest(world)}")
    before = {id(each): len(each.gaps) for each in world.subscribed}
    first = len(world.messages)
    for program in world.programs:
        for topic in TOPICS[:3]:
            program.publish(topic, world.workload._message(program, topic))
    world.clock.run(world.now + REACHES)
    for subscribed in world.subscribed:
        if subscribed.closed:
            continue
        got = set(subscribed.texts)
        for message in world.messages[first:]:
            if safety.expected(subscribed, message) and message.body not in got:
                raise Broken(f"{safety.name(subscribed)} did not get {message.body} after all was well")
        if len(subscribed.gaps) != before[id(subscribed)]:
            raise Broken(f"{safety.name(subscribed)}: a gap after all was well")
