"""Is a world at rest? Everybody is connected, all is confirmed, counts agree, nothing waits. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qulo.protocol.link import Link, Phase
from qulo.protocol.session import Session
from qulo.protocol.tracker import State
from tests.simulation.dialler import Dialler
from tests.simulation.hubs import HubNode
from tests.simulation.workload import PASSING

if TYPE_CHECKING:
    from tests.simulation.programs import Program
    from tests.simulation.world import World


def unrest(world: World) -> str:
    """Why the world is not at rest; "" if it is."""
    diallers = [hub.up for hub in world.hubs if hub.up is not None] + [p.dialler for p in world.programs]
    links = {dialler.link.identity.instance: dialler.link for dialler in diallers}
    return (
        next((f"{hub.name} is down" for hub in world.hubs if not hub.running), "")
        or next(filter(None, map(_restless_link, diallers)), "")
        or next(filter(None, (_restless_hub(hub, links) for hub in world.hubs)), "")
        or next(filter(None, map(_restless_program, world.programs)), "")
        or next((f"{asked.program.name} waits for an answer" for asked in world.asked if asked.end is None), "")
        or next((f"{put.program.name} waits for a put" for put in world.puts if put.end is None), "")
    )


def _restless_program(program: Program) -> str:
    for sid, consumer in program.consumers.items():
        if not consumer.ready:
            return f"{program.name}'s consumer {sid} is not confirmed"
    return ""


def _restless_link(dialler: Dialler) -> str:
    link = dialler.link
    who = link.identity.name
    if link.phase is not Phase.UP:
        return f"{who} is {link.phase}"
    if not link.settled:
        return f"{who} waits for acks"
    if dialler.connection is None or any(pipe.stalled for pipe in dialler.connection.pipes):
        return f"{who}'s connection is half open, and it does not know"
    for tracker in link.trackers.values():
        if tracker.state is not State.LIVE or tracker.held:
            return f"{who}'s {tracker.pattern} is {tracker.state}, and holds {len(tracker.held)}"
    for sid, registration in link._registered.items():
        if not registration.ready:
            return f"{who}'s {sid} is not confirmed"
    return ""


def _restless_hub(hub: HubNode, links: dict[bytes, Link]) -> str:
    core, who = hub.hub, hub.name
    if core.intake.blocked:
        return f"{who} holds publishers back"
    for session in core.sessions.values():
        if why := _restless_session(session, links):
            return f"{who} {why} {session.name}"
    if core.calls.pending:
        return f"{who} has calls pending"
    if core._losses._lost or (hub.relay is not None and hub.relay._lost):
        return f"{who} has losses to tell"
    return _restless_store(hub) if hub.disk is not None else ""


def _restless_session(session: Session, links: dict[bytes, Link]) -> str:
    if session.instance not in links:
        return "waits for the end of"
    if not session.connected:
        return "waits for a connection of"
    if session.parked or session.repairs:
        return "parks, or repairs, for"
    if not session.channel.idle:
        return "waits for acks of"
    if session.calls:
        return f"counts {session.calls} calls of"
    for sid, subscription in session.subscriptions.items():
        tracker = links[session.instance].trackers[sid]
        if tracker.count != subscription.interest.count or not subscription.path:
            return f"does not agree about {subscription.pattern} with"
    return ""


def _restless_store(hub: HubNode) -> str:
    spool = hub.relay.spool if hub.relay is not None else None
    if spool is not None and (spool.open or spool._queue or spool._flying or not spool.journal.idle):
        return f"{hub.name} has {spool.open} messages in its spool"
    streams = hub.hub.streams
    if streams is None:
        return ""
    for opened in streams.table.values():
        if opened.stream.name == PASSING:
            continue  # it may have a group and nobody in it
        if opened.delayed:
            return f"{hub.name}: {len(opened.delayed)} messages of {opened.stream.name} are delayed"
        for group in opened.groups.values():
            if group.held or group.done.floor < opened.last:
                where = f"floor {group.done.floor} of {opened.last}, {len(group.held)} held, cursor {group.cursor}"
                return f"{hub.name}: {opened.stream.name}/{group.name} is not through: {where}"
    return ""
