"""What a hub tells of itself to `qulolist` and to its log: a plain dict of plain values. Pure, and never secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from qulo.protocol.hub import Hub
from qulo.protocol.session import Session
from qulo.protocol.topics import is_system

# Topics and peers in one report; the busiest topics first. The totals are always told.
MOST = 1000

LIST = "$qulo.list"  # answered by the site's authority
LOCAL_LIST = "$qulo.local.list"  # answered by the hub that the asker is connected to


def report(hub: Hub, now: float) -> dict[str, Any]:
    """The state of the hub: `hub`, `peers` (those that are down last) and `topics`. Times are seconds ago."""
    window = hub.router.window
    busiest = sorted(window.topics.values(), key=lambda t: (-hub.rates.get(t.name, 0.0), -t.last))
    peers = [*hub.sessions.values(), *_gone(hub)]
    return {
        "hub": {
            "name": hub.name,
            "version": hub.version,
            "authority": hub.upstream is None,
            "upstream": None if hub.upstream is None else hub.upstream.connected,
            "streams": None if hub.streams is None else len(hub.streams.table),
            "unstored": None if hub.streams is None else hub.streams.unstored,
            "spooled": None if hub.upstream is None else hub.upstream.spooled,
            "blocked": hub.intake.blocked,
            "executor": hub.executor or None,  # an agent's: "ok" or "lost"
            "peers": len(hub.sessions),
            "topics": len(window.topics),
            "window_bytes": window.size,
            "counters": asdict(hub.counters),
        },
        "peers": [_peer(session, now) for session in peers[:MOST]],
        "topics": [
            {
                "topic": topic.name,
                "messages": topic.messages,
                "rate": round(hub.rates.get(topic.name, 0.0), 1),
                "last": topic.last,
            }
            for topic in busiest[:MOST]
        ],
    }


def _gone(hub: Hub) -> Iterator[Session]:
    """Those that are down, the latest first; an agent once, and not if it is back: its name is one host's."""
    known = {(session.principal, session.name) for session in hub.sessions.values() if session.kind == "agent"}
    for session in reversed(hub.down):
        who = (session.principal, session.name)
        if session.kind != "agent" or who not in known:
            yield session
        if session.kind == "agent":
            known.add(who)


def seen_by(asker: Session, told: dict[str, Any]) -> dict[str, Any]:
    """The report as far as the asker may know it: topics that it may subscribe to. Administrators see all."""
    if asker.rights.actor.admin:
        return told
    topics = [row for row in told["topics"] if asker.rights.decide("subscribe", row["topic"]).allowed]
    return told | {"topics": topics}


def _peer(session: Session, now: float) -> dict[str, Any]:
    return {
        "name": session.name,
        "kind": session.kind,
        "state": session.life.value,
        "slow": session.slow,
        "principal": session.principal,
        "address": session.address,
        "version": session.info.get("version", ""),
        "program": session.info.get("program", ""),
        "seen": round(now - session.heard, 3),
        "since": round(now - session.since, 3),
        "rtt": session.rtt / 1000,  # ms
        "lag": session.lag,
        "queued": session.channel.bytes,
        "dropped": session.dropped,
        "bad": session.bad,
        "subscriptions": sum(bool(s.path) for s in session.subscriptions.values()) + len(session.members),
        "responders": sum(not is_system(r.pattern) for r in session.responders.values()),
    }
