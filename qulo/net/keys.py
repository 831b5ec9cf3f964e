"""The keys of a hub's peers: which are accepted, under which name; which wait, which are refused; and tokens.

    accepted_keys/NAME.pub     an accepted key; put there by hand and `-s reload`, or by `accept` and `enrol`
    data_dir/refused/NAME.pub  a key that was revoked, or rejected before it ever had a name (then its fingerprint)
    data_dir/tokens/ID.json    a token that can still be used; never its secret half

A key that knocks and is none of these waits for an operator, in memory and bounded: whoever can reach the port may
knock. Every change is on disk before it counts. Nothing here knows sockets.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from qulo.errors import ConfigError, Denied, FileError, QuloError, UsageError
from qulo.net import curve
from qulo.net.curve import Key, fingerprint
from qulo.protocol.telling import Telling

log = logging.getLogger(__name__)

# Keys that wait for an operator; the ones heard of longest ago make room.
PENDING = 1000

# Unknown keys that are told of per minute: of one address, and of all. Keys are free for whoever wants many.
KNOCKS_TOLD, ALL_KNOCKS_TOLD = 10, 100

# Tokens that can be used at one time: each is a key that opens the door.
TOKENS = 1000

# Seconds that a token's key still opens the door after its last use, to hear the answer and to say goodbye.
PARTING = 10.0

# Keys of tokens that are good no more, and are not to wait for an operator as if they were a host's.
SPENT = 1000

# A fingerprint may be shortened, to no less than this: what an operator compares by eye.
SHORTEST = 8

TOKEN = "token/"  # what the principals of tokens begin with # noqa: S105 - no secret

_FINGERPRINT = re.compile(r"[0-9a-f]{8,32}\Z")


@dataclass(slots=True)
class Pending:
    """A key that knocked."""

    key: bytes
    address: str
    first: float
    seen: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the hub keeps of a token."""

    id: str
    public: bytes
    name: str | None
    """The name that its key gets; None: the host's own choice."""
    expires: float
    """Seconds since 1970."""
    uses: int


class Keys:
    """The keys of one hub. `principal` is what the ZAP handler asks; the rest is administration."""

    def __init__(self, accepted: Path | None, data: Path, clock: Callable[[], float], hub: str = "") -> None:
        """`hub` is the hub's own name: nobody else's programs may act as its own."""
        self.accepted: dict[bytes, str] = {}
        self.refused: dict[bytes, str] = {}
        self.pending: OrderedDict[bytes, Pending] = OrderedDict()
        self.tickets: dict[bytes, Ticket] = {}
        self._spent: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # by a token's key: id, end of its parting
        self._accepted_dir, self._refused_dir, self._tokens_dir = accepted, data / "refused", data / "tokens"
        self._clock = clock
        self._hub = hub
        self._telling = Telling(KNOCKS_TOLD, ALL_KNOCKS_TOLD)

    def load(self, strict: bool = False) -> None:
        """Read everything anew. Raises ConfigError, and nothing has changed then.

        One bad file among the accepted ones lets nobody in, and keeps nobody else out: it is named in the log; an error
        if `strict`. A bad one among the refused is always an error, for it may be what keeps somebody out.
        """
        accepted, bad = curve.read_accepted(self._accepted_dir) if self._accepted_dir is not None else ({}, [])
        for key in [key for key, name in accepted.items() if name == self._hub]:
            message = f"{self._hub} is what this hub itself is called: give the key another name"
            bad.append(ConfigError(message, file=str(self._accepted_path(self._hub))))
            del accepted[key]
        for error in bad:
            if strict:
                raise error
            log.error("a key file is left out, the others hold: %s", error)
        refused = curve.load_accepted(self._refused_dir)
        tickets = {ticket.public: ticket for ticket in map(_read_ticket, sorted(self._tokens_dir.glob("*.json")))}
        self.accepted, self.refused, self.tickets = accepted, refused, tickets
        for key in [key for key in self.pending if key in accepted or key in refused]:
            del self.pending[key]
        for key in accepted.keys() & refused.keys():  # put there by hand, or a revocation was cut off: refused wins
            text = "%s.pub stays outside: this key is refused. `qulo keys accept %s --name NAME` lets it in again"
            log.warning(text, accepted[key], fingerprint(key))

    # -- who comes in

    def principal(self, key: bytes, address: str) -> str | None:
        """Whose key it is; None: nobody's, the connection is denied. An unknown one waits from now on."""
        name = self.accepted.get(key)
        if name is not None and key not in self.refused:
            return name
        if key in self.tickets:
            return self._token(self.tickets[key])
        if key in self._spent:
            ticket_id, end = self._spent[key]
            return TOKEN + ticket_id if end > self._clock() else None
        if key not in self.refused:
            self._knocked(key, address)
        return None

    def _token(self, ticket: Ticket) -> str | None:
        if ticket.expires > self._clock():
            return TOKEN + ticket.id
        log.warning("token %s was used after it had expired", ticket.id)
        with contextlib.suppress(FileError):  # its time is over, whether its file goes or not
            self._drop(ticket)
        return None

    def _knocked(self, key: bytes, address: str) -> None:
        now = self._clock()
        known = self.pending.get(key)
        if known is not None:
            known.address, known.seen, known.tries = address, now, known.tries + 1
            self.pending.move_to_end(key)
            return
        if len(self.pending) >= PENDING:
            self.pending.popitem(last=False)
        self.pending[key] = Pending(key, address, now, now)
        untold = self._telling.tell(address, now)
        if untold is not None:
            log.warning(
                "an unknown key asks to be let in: %s, from %s; `qulo keys accept %s --name NAME` lets it in%s",
                fingerprint(key),
                address,
                fingerprint(key),
                f" ({untold} others were not told: `qulo keys ls`)" if untold else "",
            )

    # -- enrolment

    def new_ticket(self, name: str | None, expires: float, uses: int) -> Key:
        """Remember a token that is good for `expires` seconds and so many keys; its one-time key."""
        for ticket in [ticket for ticket in self.tickets.values() if ticket.expires <= self._clock()]:
            self._drop(ticket)
        if len(self.tickets) >= TOKENS:
            raise UsageError(f"there are {TOKENS} tokens already: `qulo token ls`, `qulo token rm ID`")
        if name is not None:
            self._check_free(name, b"")
        public, secret = zmq.curve_keypair()
        ticket = Ticket(fingerprint(public)[:16], public, name, self._clock() + expires, uses)
        self._write_ticket(ticket)
        self.tickets[public] = ticket
        return Key(public, secret)

    def enrol(self, ticket_id: str, key: bytes, wanted: str) -> str:
        """Accept `key` for the holder of a token; the name that it has now. Raises Denied or UsageError.

        Asking again for the same key is answered the same: the first answer may have been lost.
        """
        if key in self.accepted and key not in self.refused:
            return self.accepted[key]
        ticket = next((each for each in self.tickets.values() if each.id == ticket_id), None)
        if ticket is None or ticket.expires <= self._clock():
            raise Denied("this token has been used, or has expired: make another one (`qulo token new` on the master)")
        if key in self.refused:
            raise Denied(f"this key was refused: on the master, `qulo keys delete {fingerprint(key)}` forgets that")
        name = ticket.name or wanted
        self._check_free(name, key)
        self._use(ticket)  # first: who is cut off here needs another token, but no token is good for one key more
        try:
            self._accept(key, name)
        except QuloError:
            self._give_back(ticket)
            raise
        return name

    def _use(self, ticket: Ticket) -> None:
        if ticket.uses == 1:
            self._drop(ticket, PARTING)
            return
        left = replace(ticket, uses=ticket.uses - 1)
        self._write_ticket(left)
        self.tickets[ticket.public] = left

    def _give_back(self, ticket: Ticket) -> None:
        """Nobody was let in by it; if the disk does not take it, it is good until the next start."""
        self.tickets[ticket.public] = ticket
        self._spent.pop(ticket.public, None)
        with contextlib.suppress(FileError):
            self._write_ticket(ticket)

    def drop_ticket(self, ticket_id: str) -> None:
        """Make a token worthless."""
        ticket = next((each for each in self.tickets.values() if each.id == ticket_id), None)
        if ticket is None:
            raise UsageError(f"there is no token {ticket_id[:64]!r}: `qulo token ls` lists them")
        self._drop(ticket)

    # -- what an operator does

    def accept(self, which: str, name: str) -> bytes:
        """Let a key in that waits, or was refused; returns it."""
        key = self._find(which, [*self.pending, *self.refused])
        self._check_free(name, key)
        self._accept(key, name)
        if key in self.refused:  # until this is done it stays refused
            self._forget_refused(key)
        return key

    def reject(self, which: str) -> bytes:
        """Refuse a key that waits, for good; returns it."""
        key = self._find(which, list(self.pending))
        self._refuse(key, fingerprint(key))
        self.pending.pop(key, None)
        return key

    def revoke(self, which: str) -> str:
        """An accepted key counts no more; returns the name that it had."""
        key = self._find(which, [key for key in self.accepted if key not in self.refused])
        name = self.accepted[key]
        self._refuse(key, name)
        try:
            self._remove(self._accepted_path(name))
        except FileError as error:
            log.error("%s is revoked all the same: refused wins", error)
        del self.accepted[key]
        return name

    def delete(self, which: str) -> str | None:
        """Forget a key altogether: it may knock again. Returns the name that it had, if it was accepted."""
        key = self._find(which, [*self.accepted, *self.refused, *self.pending])
        self.pending.pop(key, None)
        if key in self.refused:
            self._forget_refused(key)
        name = self.accepted.get(key)
        if name is not None:
            self._remove(self._accepted_path(name))
            del self.accepted[key]
        return name

    def show(self, which: str) -> dict[str, Any]:
        """Everything about one key."""
        key = self._find(which, [*self.accepted, *self.refused, *self.pending])
        return next(row for row in self.rows() if row["key"] == key.decode())

    def rows(self) -> list[dict[str, Any]]:
        """Every key: state, name, fingerprint; of those that wait also address, and seconds since 1970."""
        rows: list[dict[str, Any]] = []
        for key, waiting in self.pending.items():
            told = {"address": waiting.address, "first": waiting.first, "seen": waiting.seen, "tries": waiting.tries}
            rows.append(_row("pending", key, "") | told)
        rows += [_row("accepted", key, name) for key, name in self.accepted.items() if key not in self.refused]
        rows += [_row("refused", key, "" if name == fingerprint(key) else name) for key, name in self.refused.items()]
        return rows

    # -- files

    def _find(self, which: str, among: list[bytes]) -> bytes:
        """By name, or by the beginning of the fingerprint."""
        names = {**self.refused, **self.accepted}
        found = [key for key in among if names.get(key) == which]
        if not found and _FINGERPRINT.match(which):
            found = [key for key in among if fingerprint(key).startswith(which)]
        if len(set(found)) == 1:
            return found[0]
        if found:
            raise UsageError(f"{which} is more than one key: give (more of) its fingerprint, see `qulo keys ls`")
        short = f" (a fingerprint may be shortened to {SHORTEST} characters)"
        raise UsageError(f"no such key can be found: {which[:64]!r}{short}; `qulo keys ls` lists them")

    def _check_free(self, name: str, key: bytes) -> None:
        if not curve.PRINCIPAL.match(name):
            raise UsageError(f"{name[:64]!r} is not a name: 1 to 64 of a-z 0-9 . _ -")
        if _FINGERPRINT.match(name) or name[0] in ".-":
            raise UsageError(f"{name} cannot be a name: it looks like a fingerprint, an option, or a hidden file")
        if name == self._hub:
            raise Denied(f"{name} is what this hub itself is called: its own programs are {name}/local")
        owner = next((k for k, taken in self.accepted.items() if taken == name and k not in self.refused), None)
        if owner is not None and owner != key:
            log.error("a second key (%s) asks for the name %s: refused", fingerprint(key) if key else "a token's", name)
            raise Denied(f"the name {name} is taken by another key: on the master, `qulo keys revoke {name}` frees it")

    def _accept(self, key: bytes, name: str) -> None:
        path, before = self._accepted_path(name), self.accepted.get(key, name)
        if before != name:  # left over beside its refusal; two files with one key would be an error
            self._remove(self._accepted_path(before))
            del self.accepted[key]
        curve.keep_public(path, key)
        for other in [other for other, taken in self.accepted.items() if taken == name]:
            del self.accepted[other]  # the same of another key, whose file that was
        self.accepted[key] = name
        self.pending.pop(key, None)

    def _refuse(self, key: bytes, name: str) -> None:
        path = self._refused_dir / f"{name}.pub"
        older = next((other for other, taken in self.refused.items() if taken == name), key)
        if older != key:  # of an older owner of the name: it stays refused, under its fingerprint
            self._rename(path, self._refused_dir / f"{fingerprint(older)}.pub")
            self.refused[older] = fingerprint(older)
        curve.keep_public(path, key)
        self.refused[key] = name

    def _forget_refused(self, key: bytes) -> None:
        self._remove(self._refused_dir / f"{self.refused[key]}.pub")
        del self.refused[key]

    def _accepted_path(self, name: str) -> Path:
        if self._accepted_dir is None:
            raise ConfigError("accepted_keys is not set: there is nowhere to keep accepted keys")
        return self._accepted_dir / f"{name}.pub"

    def _write_ticket(self, ticket: Ticket) -> None:
        fields = {"public": ticket.public.decode(), "name": ticket.name, "expires": ticket.expires, "uses": ticket.uses}
        curve.keep(self._tokens_dir / f"{ticket.id}.json", json.dumps(fields) + "\n", 0o600)

    def _drop(self, ticket: Ticket, parting: float = 0.0) -> None:
        self._remove(self._tokens_dir / f"{ticket.id}.json")
        self.tickets.pop(ticket.public, None)
        self._spent[ticket.public] = (ticket.id, self._clock() + parting)
        if len(self._spent) > SPENT:
            self._spent.popitem(last=False)

    @staticmethod
    def _rename(path: Path, new: Path) -> None:
        try:
            path.replace(new)
            curve.sync_directory(new.parent)
        except OSError as error:
            raise FileError(f"cannot rename {path}: {error.strerror}") from None

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                curve.sync_directory(path.parent)
        except OSError as error:
            raise FileError(f"cannot remove {path}: {error.strerror}") from None


def _row(state: str, key: bytes, name: str) -> dict[str, Any]:
    return {"state": state, "name": name, "fingerprint": fingerprint(key), "key": key.decode()}


def _read_ticket(path: Path) -> Ticket:
    try:
        fields = json.loads(path.read_text())
        public, name = fields["public"].encode(), fields["name"]
        if not curve.is_key(fields["public"]):
            raise ValueError("its key is none")
        return Ticket(path.stem, public, name, float(fields["expires"]), int(fields["uses"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"not a token's file ({error}); remove it", file=str(path)) from None
