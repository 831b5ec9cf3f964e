"""An agent: hub, link and relay together, fed from both sides. A broken master costs a connection, never the agent.

What the link refuses (ProtocolError) ends the connection, as its driver does; nothing else may be raised, neither
there nor in the relay's turn nor in the hub's.
"""

from __future__ import annotations

from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.relay import Relay
from tests.fuzz import hub as hubs
from tests.fuzz import link as links
from tests.fuzz.chooser import Chooser

STEPS = 100


def check(data: bytes) -> None:
    """Play one story, made of the input."""
    chooser = Chooser(data)
    seen = hubs.world(chooser.byte())
    link = Link(Identity(b"", "hub", "agent"), hubs.LIMITS)
    relay = Relay(link)
    relay.attach(seen.hub)
    links._begin(link, links.EPOCH)
    local = seen.listeners[0]
    hello = [wire.HELLO, wire.VERSION, b"instance", "peer", "client", None, 0, 0, {}]
    begin = [[wire.SUBSCRIBE, 1, "a.>", None], [wire.RESPOND, 3, "a.b"], [wire.SUBSCRIBE, 4, "g", "group"]]
    for number, records in enumerate(([hello], begin)):
        seen.hub.frame_received(local, b"\0r1", "uid:1#1", "there", wire.encode(number, 0, records), seen.now)
    for _ in range(STEPS):
        if chooser.is_empty:
            break
        try:
            if chooser.below(2):
                links._step(chooser, link)
            else:
                hubs._step(chooser, seen)
        except ProtocolError:
            _reconnect(link, relay)
        relay.turn(link.take_events(), link.take_items(), seen.now)
        link.take()
        seen.flush()
        seen.in_step()
    relay.turn(link.take_events(), link.take_items(), seen.now)
    seen.end()


def _reconnect(link: Link, relay: Relay) -> None:
    was_up = link.phase is Phase.UP
    link.disconnected()
    if was_up:
        relay.went_away()
    try:
        links._begin(link, links.EPOCH)
    except ProtocolError:
        link.disconnected()
