"""What the administrators of a hub's host ask of it, on `$qulo.local.admin.>`; and enrolment.

Each is a request with a map and answers a map; `qulo token`, `qulo keys` and `qulo auth` make them. The core has
authorised the asker before anything here runs: root or the hub's own user over ipc://, and a token for enrolment.
Every change is a line of the audit log.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from typing import Any, Protocol

from qulo.config.kinds import is_loopback
from qulo.errors import Denied, UsageError
from qulo.net import token
from qulo.net.curve import Key, fingerprint, is_key
from qulo.net.keys import TOKEN, Keys
from qulo.protocol import topics
from qulo.protocol.authority import principal_of
from qulo.protocol.hub import Hub
from qulo.protocol.permissions import ADMIN, ENROL, VERBS
from qulo.protocol.ports import SystemHandler
from qulo.protocol.session import Session

# A token that is good for longer than this is a password.
MAX_EXPIRES = 30 * 86400.0
MAX_USES = 10_000

Argument = dict[str, Any]


class Owner(Protocol):
    """What the administration needs of the hub's service."""

    key: Key

    def revoked(self, name: str) -> None:
        """A key counts no more."""

    def rotate(self, step: str) -> None:
        """`begin`, `finish` or `abort` the change to another key of our own. Raises UsageError, FileError."""


class Administration:
    """Answers for one hub."""

    def __init__(self, hub: Hub, keys: Keys, listen: str, owner: Owner) -> None:
        self._hub = hub
        self._keys = keys
        self._owner = owner
        self._host, _, self._port = listen.removeprefix("tcp://").rpartition(":")
        if self._host in ("0.0.0.0", "*", "[::]"):  # all interfaces: other hosts need this one's name
            self._host = socket.gethostname()
            # A daemon: a resolver that hangs must stop neither this hub nor its end. Until then the short name does.
            threading.Thread(target=self._look_up, name="full name", daemon=True).start()
        verbs: dict[str, SystemHandler] = {
            f"{ADMIN}.keys.ls": self._list,
            f"{ADMIN}.keys.show": self._show,
            f"{ADMIN}.keys.accept": self._accept,
            f"{ADMIN}.keys.reject": self._reject,
            f"{ADMIN}.keys.revoke": self._revoke,
            f"{ADMIN}.keys.delete": self._delete,
            f"{ADMIN}.keys.rotate": self._rotate,
            f"{ADMIN}.token.new": self._new_token,
            f"{ADMIN}.token.ls": self._list_tokens,
            f"{ADMIN}.token.rm": self._drop_token,
            ENROL: self._enrol,
        }
        hub.system |= verbs

    def _look_up(self) -> None:
        full = socket.getfqdn()
        if full.partition(".")[0] != "localhost":  # what /etc/hosts makes of some hosts' own names
            self._host = full

    # -- keys

    def _list(self, asker: Session, argument: Argument) -> Argument:
        return {"keys": self._keys.rows()}

    def _show(self, asker: Session, argument: Argument) -> Argument:
        return self._keys.show(_word(argument, "key"))

    def _accept(self, asker: Session, argument: Argument) -> Argument:
        name = _word(argument, "name")
        key = self._keys.accept(_word(argument, "key"), name)
        return self._did(asker, "keys.accept", name, f"key {fingerprint(key)}")

    def _reject(self, asker: Session, argument: Argument) -> Argument:
        key = self._keys.reject(_word(argument, "key"))
        return self._did(asker, "keys.reject", fingerprint(key), "")

    def _revoke(self, asker: Session, argument: Argument) -> Argument:
        name = self._keys.revoke(_word(argument, "key"))
        self._owner.revoked(name)
        return self._did(asker, "keys.revoke", name, "")

    def _delete(self, asker: Session, argument: Argument) -> Argument:
        name = self._keys.delete(_word(argument, "key"))
        if name is not None:
            self._owner.revoked(name)
        return self._did(asker, "keys.delete", name or _word(argument, "key"), "")

    def _rotate(self, asker: Session, argument: Argument) -> Argument:
        step = _word(argument, "step")
        hub, accepted = self._hub, set(self._keys.accepted.values())
        missing = sorted(accepted - hub.know_key())
        if step == "finish" and hub.next_key is not None and missing and not argument.get("force"):
            raise UsageError(
                f"not told yet: {', '.join(missing[:20])}{' …' if len(missing) > 20 else ''}; wait for them, or finish "
                "with --force: then they have to join again"
            )
        if step != "status":
            self._owner.rotate(step)
            self._did(asker, f"keys.rotate.{step}", fingerprint(self._owner.key.public), "")
            missing = sorted(accepted - hub.know_key()) if step == "begin" else []
        key = hub.next_key
        return {"next": None if key is None else fingerprint(key), "accepted": len(accepted), "missing": missing}

    # -- tokens

    def _new_token(self, asker: Session, argument: Argument) -> Argument:
        name = argument.get("name")
        expires, uses = argument["expires"], argument["uses"]
        if type(uses) is not int or type(expires) not in (int, float) or math.isnan(expires):
            raise UsageError("expires and uses are numbers")
        if not 1 <= expires <= MAX_EXPIRES:
            raise UsageError(f"a token can be good for 1 s to {MAX_EXPIRES / 86400:g} days")
        if not 1 <= uses <= MAX_USES:
            raise UsageError(f"a token can be good for 1 to {MAX_USES} keys")
        if name is not None and uses != 1:
            raise UsageError("a token with a name is good for one key: names belong to one key each")
        addresses = tuple(argument.get("addresses") or [f"tcp://{self._host}:{self._port}"])
        if len(addresses) > token.MAX_ADDRESSES:
            raise UsageError(f"a token holds {token.MAX_ADDRESSES} addresses at most")
        for each in addresses:
            if type(each) is not str or not token.is_address(each):
                raise UsageError(f"{str(each)[:64]!r} is no address for other hosts: `--address tcp://HOST:PORT`")
        key = self._keys.new_ticket(None if name is None else str(name), expires, uses)
        text = token.encode(token.Token(addresses, self._owner.key.public, key))
        ticket = self._keys.tickets[key.public]
        for_whom = f"for {name}" if name else "for any name"
        self._did(asker, "token.new", ticket.id, f"{for_whom}, {uses} uses, {expires:g} s")
        alone = any(map(is_loopback, addresses))
        told = {"token": text, "id": ticket.id, "addresses": list(addresses), "expires": ticket.expires}
        return told | {"alone": alone}

    def _list_tokens(self, asker: Session, argument: Argument) -> Argument:
        now = time.time()
        tickets = [ticket for ticket in self._keys.tickets.values() if ticket.expires > now]
        return {
            "tokens": [
                {"id": ticket.id, "name": ticket.name, "expires": ticket.expires, "uses": ticket.uses}
                for ticket in tickets
            ]
        }

    def _drop_token(self, asker: Session, argument: Argument) -> Argument:
        which = _word(argument, "id")
        self._keys.drop_ticket(which)
        return self._did(asker, "token.rm", which, "")

    def _enrol(self, asker: Session, argument: Argument) -> Argument:
        key = argument["key"]
        if type(key) is not str or not is_key(key):
            raise UsageError("a key is 40 characters of Z85")
        ticket, wanted = principal_of(asker.user).removeprefix(TOKEN), _word(argument, "name")
        try:
            name = self._keys.enrol(ticket, key.encode(), wanted)
        except Denied as error:
            self._hub.authority.audit(asker, "enrol", wanted[:64], False, str(error), time.monotonic())
            raise
        self._did(asker, "enrol", name, f"key {fingerprint(key.encode())}")
        return {"name": name}

    def _did(self, asker: Session, verb: str, on: str, why: str) -> Argument:
        self._hub.authority.audit(asker, verb, on, True, why, time.monotonic())
        return {"done": on}


def explain(hub: Hub, argument: Argument) -> Argument:
    """Which rule decides whether `name` may `verb` on `topic`?"""
    name, verb, topic = (_word(argument, word) for word in ("name", "verb", "topic"))
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}; there are {', '.join(VERBS)}")
    topics.check_pattern(topic)
    decision = hub.authority.explain(name, verb, topic)
    return {"allowed": decision.allowed, "rule": str(decision.rule or "no rule allows it")}


def _word(argument: Argument, name: str) -> str:
    value = argument[name]
    if type(value) is not str or not value:
        raise UsageError(f"{name} is a word")
    return value
