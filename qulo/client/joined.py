"""What `qulo join` keeps for a user's programs: where their hub is, its public key, and a key of their own.

`connect` uses it when it is told no address, and keeps what the hub says of its next key.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from qulo import config
from qulo.errors import ConfigError, FileError
from qulo.net import curve, token
from qulo.net.join import enrol
from qulo.net.link import Security
from qulo.net.socket import make_context

log = logging.getLogger("qulo")

_FILE, _KEY = "client.json", "client.key"


@dataclass(frozen=True, slots=True)
class Joined:
    """A hub that this user has joined."""

    addresses: tuple[str, ...]
    security: Security


def load() -> Joined | None:
    """The hub that this user has joined, if any. Raises ConfigError when what was kept cannot be used."""
    place = _place()
    if place is None:
        return None
    file = place / _FILE
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        addresses, hub_key = tuple(map(str, kept["addresses"])), str(kept["key"]).encode()
        later = str(kept["next"]).encode() if kept.get("next") else None
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot be read ({error}); `qulo join` again", file=str(file)) from None
    return Joined(addresses, Security(hub_key, curve.load_key(place / _KEY), later))


def keep_key(security: Security) -> None:
    """The hub has told its next key, or is known by it now."""
    place = _place()
    if place is None:
        return
    try:
        kept = json.loads((place / _FILE).read_text(encoding="utf-8"))
        kept["key"] = security.server.decode()
        kept["next"] = None if security.next is None else security.next.decode()
        curve.keep(place / _FILE, json.dumps(kept) + "\n", 0o600)
    except (OSError, ValueError, FileError) as error:
        log.warning("the hub changes its key, and that cannot be kept: %s; `qulo join` again afterwards", error)


def join(text: str, name: str | None) -> tuple[str, tuple[str, ...]]:
    """Enrol this user's key with a token; its name, and the hub's addresses. Raises QuloError."""
    found = token.decode(text)
    place = _place()
    if place is None:
        raise ConfigError("this user has no home to keep a key in: set HOME or XDG_DATA_HOME")
    key = curve.load_or_make(place / _KEY)
    named = asyncio.run(_enrol(found, key, name or _default_name()))
    kept = {"addresses": list(found.addresses), "key": found.master.decode(), "name": named}
    curve.keep(place / _FILE, json.dumps(kept) + "\n", 0o600)
    return named, found.addresses


async def _enrol(found: token.Token, key: curve.Key, name: str) -> str:
    context = make_context()
    try:
        return await enrol(found, key.public, name, context)
    finally:
        context.term()


def _place() -> Path | None:
    try:
        return Path(config.data_dir(os.environ, os.geteuid()))
    except ConfigError:
        return None


def _default_name() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no account, and nothing in the environment
        user = str(os.geteuid())
    return re.sub(r"[^a-z0-9._-]", "-", f"{user}.{socket.gethostname().partition('.')[0]}".lower())[:64]
