"""The one class of socket, and the one place where sockets are made.

A Socket drains itself, up to a bound, whenever its descriptor becomes readable, and hands every frame to a plain
function. No receive is ever awaited, so none can be cancelled: cancelling `recv` loses messages (pyzmq#1925).
The descriptor is edge-triggered: a send can swallow the wake-up of a receive, hence `recheck` after each turn's
sends (https://libzmq.readthedocs.io, zmq_getsockopt ZMQ_FD).
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio

from qulo.errors import EndpointError
from qulo.protocol.wire import SMALL

# Frames taken in one go. Enough to spread the cost of a turn, few enough that other sockets get theirs in time.
DRAIN = 32

# A connection that does not finish its handshake in this time (ms) is dropped: it holds a descriptor.
HANDSHAKE = 5000

# Connections that may wait for accept; 1,000 agents at once took 2.25 s with 100 and 0.69 s with this.
BACKLOG = 4096

# What a closing socket may still send, in ms; the session's own acks decide what was delivered.
LINGER = 500

# A peer's frames hold one message of max_message and its head, or a batch.
FRAME_EXTRA = SMALL

# As plain ints: pyzmq's enums cost more than the system call when they are combined once per frame.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

Handler = Callable[[Any], None]

_monitors = itertools.count(1)


class Socket(zmq.asyncio.Socket):
    """A zmq.asyncio.Socket that pushes. Call `start` once, then only `push`, `recheck` and `close`."""

    if TYPE_CHECKING:  # pyzmq's own, which its type hints leave out
        _shadow_sock: zmq.Socket[bytes]
        _get_loop: Callable[[], Any]
        _call_later: Callable[[float, Callable[[], None]], Any]

    _raw: Any = None  # the plain socket under this one
    _handler: Handler | None = None
    _after: Callable[[], None] | None = None
    _receive: Callable[[Any], Any] | None = None

    def start(self, receive: Callable[[Any], Any], handler: Handler, after: Callable[[], None]) -> None:
        """Hand what `receive(plain socket)` returns to `handler`, and call `after` at the end of each turn.

        An exception in either is a bug; the loop's exception handler reports it, and the socket goes on.
        """
        self._receive, self._handler, self._after = receive, handler, after
        self._raw = self._shadow_sock
        self._state = zmq.POLLIN
        self._get_loop()
        self._call_later(0, self._handle_events)  # what came before the loop watched shows no more

    def _handle_events(self, fd: Any = 0, events: Any = 0) -> None:
        """Called by the event loop (through zmq.asyncio) when there may be something to read."""
        drained = False
        try:
            drained = self._drain()
        finally:
            if not drained and not self.closed:
                self._call_later(0, self._handle_events)

    def _drain(self) -> bool:
        """One turn; True when there is nothing left to read."""
        raw, receive, handler, after = self._raw, self._receive, self._handler, self._after
        if self.closed or receive is None or handler is None or after is None:
            return True
        try:
            frame = receive(raw)
        except zmq.Again:
            return True
        for _ in range(DRAIN - 1):
            handler(frame)
            if self.closed:
                return True
            if not raw.get(_EVENTS) & _POLLIN:  # half of what the exception of one receive too many costs
                after()
                return True
            frame = receive(raw)
        handler(frame)
        after()
        return False

    def push(self, *parts: bytes) -> None:
        """Send now or raise: zmq.Again when there is no room, zmq.ZMQError(EHOSTUNREACH) for a route that is gone."""
        raw = self._raw
        for part in parts[:-1]:
            raw.send(part, _SNDMORE)
        raw.send(parts[-1], _NOBLOCK)

    def recheck(self) -> None:
        """After sends: is there something to read that the descriptor no longer shows?"""
        if not self.closed and self._raw.get(_EVENTS) & _POLLIN:
            self._call_later(0, self._handle_events)

    def bind_or_explain(self, endpoint: str) -> str:
        """Bind; returns the endpoint with its real port. Raises EndpointError with the reason."""
        try:
            self.bind(endpoint)
        except zmq.ZMQError as error:
            self.close(0)
            if error.errno == errno.EADDRINUSE:
                raise EndpointError(f"{endpoint} is in use: is another hub running there?") from None
            raise EndpointError(f"cannot listen on {endpoint}: {error.strerror}") from None
        bound = self._shadow_sock.get(zmq.LAST_ENDPOINT)
        return str(bound, "utf-8").rstrip("\0") if isinstance(bound, bytes) else str(bound)

    def is_gone(self, error: zmq.ZMQError) -> bool:
        """Does this error of `push` mean that the peer is gone, rather than that it is full?"""
        return error.errno == errno.EHOSTUNREACH


def monitor_address() -> str:
    """Where a socket's monitor can be: an address that was never used, for libzmq frees one some time after."""
    return f"inproc://qulo.monitor.{next(_monitors)}"


def make_context() -> zmq.asyncio.Context:
    """A context for one event loop. Make it after the last fork: an inherited one does nothing, silently."""
    context = zmq.asyncio.Context()
    context.set(zmq.BLOCKY, 0)
    # The default of 1,023 sockets bounds what one process can hold, not what one hub serves.
    context.set(zmq.MAX_SOCKETS, min(16_384, context.get(zmq.SOCKET_LIMIT)))
    return context


def open_socket(
    context: zmq.asyncio.Context,
    kind: int,
    high_water: int,
    max_size: int,
    options: dict[int, Any] | None = None,
) -> Socket:
    """Make a socket with every bound set; `options` come on top."""
    sock = Socket(context, kind)
    sock.set(zmq.LINGER, LINGER)
    sock.set(zmq.SNDHWM, high_water)
    sock.set(zmq.RCVHWM, high_water)
    sock.set(zmq.MAXMSGSIZE, max_size)
    sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE)
    for option, value in (options or {}).items():
        sock.set(option, value)
    return sock


def receive_bytes(raw: zmq.Socket[bytes]) -> bytes:
    """For DEALER and SUB: one part."""
    return raw.recv(_NOBLOCK)


def receive_frame(raw: zmq.Socket[bytes]) -> zmq.Frame:
    """For XPUB: one part with the sender's metadata."""
    return raw.recv(_NOBLOCK, copy=False, track=False)


def receive_parts(raw: zmq.Socket[bytes]) -> list[bytes]:
    """For PAIR (monitor) and ZAP: all parts."""
    return raw.recv_multipart(_NOBLOCK)


def receive_routed(raw: zmq.Socket[bytes]) -> tuple[bytes, zmq.Frame, bool]:
    """For ROUTER: the route, the frame, and whether the message had exactly that one part.

    The parts of one message arrive together, so that reading on cannot block.
    """
    route = raw.recv(_NOBLOCK)
    frame = raw.recv(_NOBLOCK, copy=False, track=False)
    if not frame.more:
        return route, frame, True
    while raw.rcvmore:
        raw.recv(_NOBLOCK, copy=False)
    return route, frame, False
