"""The ZAP handler: who may connect, and what a connection's User-Id is.

One per context, at the address that libzmq asks (RFC 27, https://rfc.zeromq.org/spec/27/). Whatever it does not
understand is a denial, and nothing that comes in can stop it: a handler that dies leaves every later handshake
hanging. The User-Id is `principal#connection`, so that a hub can tell a peer's connections apart. The principal is
the name of the key; on ipc it is `uid:N`, which the kernel vouches for, and on plain loopback `plain:`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils import z85

from qulo.net.socket import Socket, open_socket, receive_parts
from qulo.protocol.reception import PLAIN, UID

log = logging.getLogger(__name__)

# The ZAP domain of a listener says what it takes: a key on CURVE, nothing on ipc (file mode) or plain loopback.
CURVE_DOMAIN: Final = "qulo.curve"
LOCAL_DOMAIN: Final = "qulo.local"
PLAIN_DOMAIN: Final = "qulo.plain"

_ADDRESS = "inproc://zeromq.zap.01"
_HIGH_WATER = 1000  # handshakes that may wait for an answer; peers repeat theirs
_PARTS = 8  # route, empty, version, request id, domain, address, routing id, mechanism; then credentials


class ZapHandler:
    """Answers libzmq's questions. `principal` says whose a key (Z85, and the address it comes from) is, or None."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self.principal: Callable[[bytes, str], str | None] = _nobody
        self.connections = 0  # the number of the last one
        self.denied: Callable[[str, str], None] = _log_denied
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
        try:
            principal = self.decide(parts[4:])
        except Exception:  # the one place where anything at all means no
            log.exception("the ZAP handler failed; the connection is denied")
            principal = None
        if principal is None:
            code, text, user = b"400", b"denied", b""
            self.denied(parts[5].decode("ascii", "replace"), parts[7].decode("ascii", "replace"))
        else:
            self.connections += 1
            code, text, user = b"200", b"OK", f"{principal}#{self.connections}".encode()
        try:
            self._socket.push(route, empty, version, request_id, code, text, user, b"")
        except zmq.ZMQError as error:
            log.warning("an answer to a handshake was not sent: %s", error)

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


def _nobody(key: bytes, address: str) -> None:
    """No key is accepted."""


def _log_denied(address: str, mechanism: str) -> None:
    log.warning("denied a connection from %s (%s): its key is not accepted here", address or "this host", mechanism)
