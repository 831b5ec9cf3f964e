"""The ZAP handler: who may connect, and what a connection's User-Id is.

One per context, at the address that libzmq asks (RFC 27, https://rfc.zeromq.org/spec/27/). Whatever it does not
understand is a denial, and nothing that comes in can stop it: a handler that dies leaves every later handshake
hanging. The User-Id is `principal#connection`, so that a hub can tell a peer's connections apart. The principal is
the name of the key; on ipc it is `uid:N`, which the kernel vouches for, and on plain loopback `plain:`.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils import z85

from qulo.net import audit
from qulo.net.curve import fingerprint
from qulo.net.socket import Socket, open_socket, receive_parts
from qulo.protocol.authority import PLAIN, UID
from qulo.protocol.bucket import Bucket
from qulo.protocol.ports import Verdict
from qulo.protocol.telling import Telling

log = logging.getLogger(__name__)

# The ZAP domain of a listener says what it takes: a key on CURVE, nothing on ipc (file mode) or plain loopback.
CURVE_DOMAIN: Final = "qulo.curve"
LOCAL_DOMAIN: Final = "qulo.local"
PLAIN_DOMAIN: Final = "qulo.plain"

_LOCAL: Final = LOCAL_DOMAIN.encode()
_ADDRESS = "inproc://zeromq.zap.01"
_HOST_BITS = 64  # of an IPv6 address
_HIGH_WATER = 1000  # handshakes that may wait for an answer; peers repeat theirs

# Seconds' worth of max_handshakes that one address may make at once: when a hub is back, so is a whole site behind
# one address, two connections for each link.
HANDSHAKE_BURST = 10.0

# Addresses whose handshakes are counted; the ones heard of longest ago make room.
ADDRESSES = 4096

# Denials that are written to the log per minute: of one address, and of all. Nobody needs a key to be denied, and
# must not fill the disk.
DENIALS_TOLD, ALL_DENIALS_TOLD = 10, 100

# What libzmq gives on as "try again later", without a word to the peer (RFC 27): its link takes it for a lost
# connection, and not for a denial that an operator has to do something about.
_LATER: Final = b"300"

_KEY = 32  # bytes of a public key
_PARTS = 8  # route, empty, version, request id, domain, address, routing id, mechanism; then credentials


class ZapHandler:
    """Answers libzmq's questions. `principal` says whose a key (Z85, and the address it comes from) is, or None."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self.principal: Callable[[bytes, str], str | None] = _nobody
        self.connections = 0  # the number of the last one
        self.max_handshakes = 0  # per second and address; 0: any number
        self.hurried = 0  # handshakes that were put off because an address made too many
        self._put_off: dict[str, float] = {}  # until when, by principal
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._telling = Telling(DENIALS_TOLD, ALL_DENIALS_TOLD)
        self._socket: Socket = open_socket(context, zmq.ROUTER, _HIGH_WATER, 65_536)
        self._socket.bind(_ADDRESS)
        self._socket.start(receive_parts, self._asked, self._socket.recheck)

    def close(self) -> None:
        """Answer no more; close it after every listener."""
        self._socket.close(0)

    def _asked(self, parts: list[bytes]) -> None:
        if len(parts) < _PARTS:
            return
        route, empty, version, request_id = parts[:4]
        code, text, user = self._answer(parts)
        try:
            self._socket.push(route, empty, version, request_id, code, text, user, b"")
        except zmq.ZMQError as error:
            self._tell("", f"an answer to a handshake was not sent: {error}")

    def _answer(self, parts: list[bytes]) -> tuple[bytes, bytes, bytes]:
        """Status, text and User-Id."""
        now = time.monotonic()
        address = parts[5].decode("ascii", "replace")
        if self.max_handshakes and parts[4] != _LOCAL and self._is_hurried(address, now):
            self.hurried += 1
            self._tell(address, f"{address} connects more than {self.max_handshakes} times per second: it has to wait")
            return _LATER, b"later", b""
        try:
            principal = self.decide(parts[4:])
        except Exception as error:  # noqa: BLE001 - the one place where anything at all means no
            self._tell(address, f"the ZAP handler failed ({type(error).__name__}: {error}); {address} is denied")
            return b"400", b"denied", b""
        if principal is None:
            mechanism = parts[7].decode("ascii", "replace")
            where = f"{address or 'this host'} ({mechanism})"
            why = "its key is not accepted here"
            verdict = Verdict(_stranger(parts[8:]), address, "connect", "", False, why)
            self._tell(address, f"denied a connection from {where}: {why}", verdict)
            return b"400", b"denied", b""
        if self._put_off and self._put_off.get(principal, now) > now:
            self.hurried += 1
            return _LATER, b"later", b""
        self.connections += 1
        return b"200", b"OK", f"{principal}#{self.connections}".encode()

    def put_off(self, principal: str, until: float) -> None:
        """Let nobody with this key in until then (monotonic)."""
        now = time.monotonic()
        self._put_off = {name: end for name, end in self._put_off.items() if end > now} | {principal: until}

    def _is_hurried(self, address: str, now: float) -> bool:
        """Has this address used up its handshakes? One more is counted if not."""
        source = _source(address)
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self.max_handshakes, HANDSHAKE_BURST, now)
            if len(self._buckets) > ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        bucket.rate = self.max_handshakes
        if not bucket.is_open(now):
            return True
        bucket.take(1)
        return False

    def _tell(self, address: str, text: str, verdict: Verdict | None = None) -> None:
        """To the log, and a verdict to the audit log, as far as the limits of both go."""
        untold = self._telling.tell(_source(address), time.monotonic())
        if untold is not None:
            if verdict is not None:
                audit.write(replace(verdict, untold=untold))
            log.warning("%s%s", text, f" ({untold} more lines of it were left out)" if untold else "")

    def tell_rest(self, now: float) -> None:
        """Say how many lines were left out whose minute is over. From time to time."""
        for address, count in self._telling.overdue(now):
            log.warning("%d more connections from %s were denied or put off", count, address or "other addresses")

    def decide(self, request: list[bytes]) -> str | None:
        """The principal for [domain, address, routing id, mechanism, credentials…], or None for a denial."""
        domain, address, _, mechanism, *credentials = request
        name = domain.decode("ascii")
        if mechanism == b"NULL" and not credentials:
            if name == LOCAL_DOMAIN:
                return UID + _uid(address.decode("ascii"))
            return PLAIN if name == PLAIN_DOMAIN else None
        if mechanism == b"CURVE" and name == CURVE_DOMAIN and len(credentials) == 1:
            return self.principal(z85.encode(credentials[0]), address.decode("ascii"))
        return None


def _uid(address: str) -> str:
    """The user id of a peer on ipc. libzmq gives `localhost:UID:GID:PID` (SO_PEERCRED, ip.cpp); else nobody's."""
    parts = address.split(":")
    return parts[1] if len(parts) == 4 and parts[1].isdigit() else "unknown"


def _stranger(credentials: list[bytes]) -> str:
    """Who was denied: the fingerprint of a key, if one was shown."""
    shown = len(credentials) == 1 and len(credentials[0]) == _KEY
    return f"key {fingerprint(z85.encode(credentials[0]))}" if shown else "nobody"


def _nobody(key: bytes, address: str) -> None:
    """No key is accepted."""


def _source(address: str) -> str:
    """Who is counted as one: an address, or with IPv6 the network of one host, which can be all of its addresses."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))
