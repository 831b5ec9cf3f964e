"""Who may do what: rules, and the one function that decides. Pure.

A rule allows or denies verbs on topics for names. What decides, in this order:

    1. the built-in rules below: the system's own topics, which no configuration can open
    2. any rule that denies, wherever it stands: deny wins
    3. any rule that allows the whole of what is asked
    4. else: no. No rules at all mean that nobody may do anything

Names are principals: `web1` is the agent with that key, `web1/local` the programs of its host, `NAME/local` those on
this hub's own ipc:// socket, `NAME/plain` whoever comes over plain loopback, `token/ID` the holder of an enrolment
token. `*` and `?` in a rule's names are wildcards; a principal never has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from qulo.protocol import topics

VERBS: Final = ("publish", "subscribe", "request", "respond", "stream", "fleet")

PING: Final = "$qulo.ping"  # who may answer it is a host: only that may be an agent
ENROL: Final = "$qulo.local.enrol"  # what a token is for, and all it is for
ADMIN: Final = "$qulo.local.admin"  # for those who administer the hub's host

# Decisions that one session remembers; topics are few, and a peer must not grow the table.
REMEMBERED: Final = 4096


class Actor(NamedTuple):
    """Who asks."""

    name: str
    local: bool
    """On the hub's own ipc:// socket."""
    admin: bool = False
    """There, and root or the hub's own user."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a configuration."""

    allow: bool
    verbs: tuple[str, ...]
    names: tuple[str, ...]
    topics: tuple[str, ...]
    place: str = field(default="default", compare=False)
    """Where it is written: `FILE:LINE`, `default` or `built in`."""
    reason: str = field(default="", compare=False)
    """Why it is built in."""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.reason} ({self.place})"
        kind = "allow" if self.allow else "deny"
        return f"{kind} {', '.join(self.verbs)} to {', '.join(self.names)} on {', '.join(self.topics)} ({self.place})"

    def speaks_of(self, name: str, verb: str) -> bool:
        """Is it about this verb of this principal?"""
        return verb in self.verbs and any(fnmatchcase(name, pattern) for pattern in self.names)


class Decision(NamedTuple):
    """The answer, and the rule it rests on; None: no rule allows it."""

    allowed: bool
    rule: Rule | None


def _built_in(allow: bool, reason: str) -> Rule:
    return Rule(allow, VERBS, ("*",), (">",), "built in", reason)


_TOKEN_MAY = _built_in(True, "a token may enrol one key")
_TOKEN_NO_MORE = _built_in(False, "a token may enrol, and do nothing else")
_ENROL_BY_TOKEN = _built_in(False, "only a token can enrol: `qulo token new` on the hub's host makes one")
_ADMIN_MAY = _built_in(True, "root and the hub's own user administer it, on its host")
_ADMIN_ONLY = _built_in(False, "only root and the hub's own user administer it, on its host over ipc://")
_LOCAL_ONLY = _built_in(False, "local topics are for programs that use this host's own ipc:// socket")
_NOT_THE_SYSTEMS = _built_in(False, "the system's own topics are the hub's to publish on")
_RESPOND_SYSTEM = _built_in(False, "the system answers its own requests")

# What holds when nothing is configured: whoever has been let in may do everything that is not the system's own.
DEFAULT: Final = (
    Rule(True, ("publish", "stream", "fleet"), ("*",), (">",)),
    Rule(True, ("subscribe", "request"), ("*",), (">", "$qulo.>")),
    Rule(True, ("respond",), ("*",), (">", PING)),
)


class Permissions:
    """An immutable set of rules."""

    def __init__(self, rules: Iterable[Rule] = DEFAULT) -> None:
        self.rules = tuple(rules)

    def decide(self, actor: Actor, verb: str, pattern: str) -> Decision:
        """May `actor` do `verb` on all of `pattern` (a topic or a pattern, both valid)?"""
        built_in = _decide_built_in(actor, verb, pattern)
        if built_in is not None:
            return built_in
        allowing: Rule | None = None
        for rule in self.rules:
            if not rule.speaks_of(actor.name, verb):
                continue
            if not rule.allow:
                if any(topics.overlap(topic, pattern) for topic in rule.topics):
                    return Decision(False, rule)
            elif allowing is None and any(topics.covers(topic, pattern) for topic in rule.topics):
                allowing = rule
        return Decision(allowing is not None, allowing)


def _decide_built_in(actor: Actor, verb: str, pattern: str) -> Decision | None:
    """What no configuration can change; None: that is for the rules to say."""
    if actor.name.startswith("token/"):
        may = verb == "request" and pattern == ENROL
        return Decision(may, _TOKEN_MAY if may else _TOKEN_NO_MORE)
    if topics.is_local(pattern) and not actor.local:
        return Decision(False, _LOCAL_ONLY)
    if not topics.is_system(pattern):
        return None
    if verb == "publish":
        return Decision(False, _NOT_THE_SYSTEMS)
    if verb == "respond" and pattern != PING:
        return Decision(False, _RESPOND_SYSTEM)
    if not actor.admin and topics.overlap(f"{ADMIN}.>", pattern):
        return Decision(False, _ADMIN_ONLY)
    if topics.covers(f"{ADMIN}.>", pattern):
        return Decision(True, _ADMIN_MAY)
    if topics.overlap(ENROL, pattern):
        return Decision(False, _ENROL_BY_TOKEN)
    return None


class Rights:
    """One session's permissions, with what was decided before. Made anew when the permissions change.

    An agent speaks for itself on the system's topics, and for the programs of its host on all others.
    """

    def __init__(self, permissions: Permissions, actor: Actor, programs: Actor | None = None) -> None:
        self.actor = actor
        self.programs = programs or actor
        self._permissions = permissions
        self._decided: dict[tuple[str, str], Decision] = {}

    def speaker(self, pattern: str) -> Actor:
        """Who it is that acts on this topic or pattern."""
        return self.actor if topics.is_system(pattern) else self.programs

    def decide(self, verb: str, pattern: str) -> Decision:
        """May the session do `verb` on all of `pattern` (valid)?"""
        known = self._decided.get((verb, pattern))
        if known is None:
            if len(self._decided) >= REMEMBERED:
                self._decided.clear()
            known = self._permissions.decide(self.speaker(pattern), verb, pattern)
            self._decided[verb, pattern] = known
        return known
