"""Who a connection is, what it may do, and what was decided about it. Pure; one per hub.

A principal is what the ZAP handler says of a connection: the name of a key, `uid:N` on ipc://, `plain:` on plain
loopback, `token/ID`. It becomes an actor, whose name rules speak of.
"""

from __future__ import annotations

from qulo.errors import Denied
from qulo.protocol.permissions import PING, Actor, Decision, Permissions, Rights
from qulo.protocol.ports import Verdict
from qulo.protocol.session import Session
from qulo.protocol.telling import Telling

# Principals that are no key's: whoever has this user id on ipc://, and whoever comes over plain loopback. Names of
# keys have no colon.
UID = "uid:"
PLAIN = "plain:"

# Denials of one session that are written to the audit log; from then on one in so many seconds, with how many
# were left out: whoever is denied must not fill the disk.
AUDITED = 20
AUDIT_PAUSE = 5.0

# Refused agents that are told per minute: of one principal, and of all.
TOLD_EACH, TOLD_ALL = 10, 100


def principal_of(user: str) -> str:
    """Whose connection it is: `user` is `principal#connection`."""
    return user.rpartition("#")[0]


class Authority:
    """The permissions of a hub, the connections that count no more, and the decisions to be written down."""

    def __init__(self, hub: str) -> None:
        self.hub = hub
        """The hub's own name: of its programs, too."""
        self.permissions = Permissions()
        self.administrators: frozenset[str] = frozenset()  # principals, such as uid:0
        self._void: dict[str, int] = {}  # principal → its connections up to this number are revoked
        self._verdicts: list[Verdict] = []
        self._telling = Telling(TOLD_EACH, TOLD_ALL)

    # -- who is who

    def rights(self, user: str, kind: str) -> Rights:
        """What the sessions of this connection may do, as the permissions are now."""
        actor = self._actor(principal_of(user))
        speaks_for_others = kind == "agent" and "/" not in actor.name
        return Rights(self.permissions, actor, Actor(f"{actor.name}/local", False) if speaks_for_others else None)

    def _actor(self, principal: str) -> Actor:
        if principal.startswith(UID):
            return Actor(f"{self.hub}/local", True, principal in self.administrators)
        return Actor(f"{self.hub}/plain" if principal == PLAIN else principal, False)

    def admit(self, user: str, kind: str, address: str, now: float) -> Rights:
        """The rights of a connection that says HELLO. Raises Denied: revoked, or it may not be an agent."""
        if self.is_void(user):
            raise Denied("this key was revoked")
        rights = self.rights(user, kind)
        decision = rights.decide("respond", PING)
        if kind == "agent" and not decision.allowed:
            untold = self._telling.tell(principal_of(user), now)
            if untold is not None:
                why = str(decision.rule or "no rule allows it")
                self._verdicts.append(Verdict(rights.actor.name, address, "respond", PING, False, why, untold))
            raise Denied(
                f"{rights.actor.name} may not be an agent here: that needs the permission to respond on {PING}"
            )
        return rights

    def explain(self, name: str, verb: str, pattern: str) -> Decision:
        """What is decided for whoever has this name: a key's, with /local behind for programs."""
        return self.permissions.decide(Actor(name, name == f"{self.hub}/local"), verb, pattern)

    # -- connections that count no more

    def void(self, principal: str, connection: int) -> None:
        """What the principal's connections up to this number say counts no more; a later one is another key's."""
        self._void[principal] = connection

    def is_void(self, user: str) -> bool:
        """Is it one of those?"""
        principal, _, number = user.rpartition("#")
        return principal in self._void and int(number) <= self._void[principal]

    # -- the audit log

    def audit(self, session: Session, verb: str, on: str, allowed: bool, why: str, now: float) -> None:
        """Something was denied to, or done for, a session."""
        speaker = session.rights.speaker(on)
        if allowed:
            self._verdicts.append(Verdict(speaker.name, session.address, verb, on, True, why))
            return
        session.denied += 1
        if session.denied > AUDITED and now - session.denial_told < AUDIT_PAUSE:
            session.denials_untold += 1
            return
        untold, session.denials_untold, session.denial_told = session.denials_untold, 0, now
        self._verdicts.append(Verdict(speaker.name, session.address, verb, on, False, why, untold))

    def write(self, verdict: Verdict) -> None:
        """A decision that is no session's."""
        self._verdicts.append(verdict)

    def take_verdicts(self) -> list[Verdict]:
        """What to append to the audit log."""
        verdicts, self._verdicts = self._verdicts, []
        return verdicts
