"""What the administering verbs share: asking the hub of this host, as root or as the hub's own user."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qulo.cli import hub
from qulo.errors import NoResponders, QuloError, UsageError

# docs/protocol.md; not imported from the protocol, which loads what a command line without a hub does not need.
_ADMIN = "$qulo.local.admin"

_NOTHING: Mapping[str, Any] = {}

# Seconds for the answer: a hub that is well takes milliseconds, and a disk that syncs a key some more.
_TIMEOUT = 10.0


def ask(arguments: argparse.Namespace, verb: str, argument: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """The answer of the hub on this host: of the master's where there is one, else of the agent or qulod."""
    with hub.connect(arguments, hubs=("master", "agent")) as bus:
        try:
            answer = bus.request(f"{_ADMIN}.{verb}", argument, timeout=arguments.timeout or _TIMEOUT)
        except NoResponders:
            raise QuloError(f"the hub at {bus.url} takes no keys: it has curve: off, or no listen") from None
    if not isinstance(answer, dict):
        raise QuloError("the hub's answer is not one: do the versions match?")
    return answer


def needs(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UsageError where an action was given too few or too many words."""
    for name in names:
        if getattr(arguments, name.lower()) is None:
            raise UsageError(f"qulo {arguments.noun} {arguments.action} needs {name}")


def show_json(value: Mapping[str, Any]) -> None:
    """One object on a line."""
    print(json.dumps(value))


def when(seconds: float) -> str:
    """A time as everywhere else: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
