"""Noticing that a listener cannot take connections any more, because too many files are open.

libzmq then tries again at once, for ever and silently, with a whole core. Only that one event of a socket's monitor
is asked for, so that connections which can be taken cost nothing; and after the first the monitor is closed for
PAUSE seconds, because there are as many of these events as the core can make. It must never raise.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
from collections.abc import Callable

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from qulo.net.socket import Socket, monitor_address, open_socket, receive_parts

log = logging.getLogger(__name__)

# Seconds between two lines in the log, and between closing a monitor and opening it again.
PAUSE = 60.0

# What accept fails with when something has run out; its other failures are a peer's that changed its mind.
_RUN_OUT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class AcceptWatch:
    """Watches one bound socket until `close`; `failed(errno)` is called at most once in PAUSE seconds."""

    def __init__(self, context: zmq.asyncio.Context, sock: Socket, failed: Callable[[int], None]) -> None:
        self._context, self._sock, self._failed = context, sock, failed
        self._monitor: Socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._open()

    def _open(self) -> None:
        self._again = None
        if self._sock.closed:
            return
        address = monitor_address()
        try:
            self._sock.monitor(address, zmq.EVENT_ACCEPT_FAILED)
            # No high-water mark: libzmq would wait, with a lock that closing the monitor needs.
            self._monitor = monitor = open_socket(self._context, zmq.PAIR, 0, -1)
            monitor.connect(address)
            monitor.start(receive_parts, self._noticed, _nothing)
        except zmq.ZMQError as error:  # no file is left for this either
            log.debug("a listener is not watched: %s", error)
            self._pause()

    def _noticed(self, parts: list[bytes]) -> None:
        notice = parse_monitor_message(parts)
        if self._monitor is None or notice["event"] != zmq.EVENT_ACCEPT_FAILED or notice["value"] not in _RUN_OUT:
            return
        self._pause()
        self._failed(notice["value"])

    def _pause(self) -> None:
        self._shut()
        self._again = asyncio.get_running_loop().call_later(PAUSE, self._open)

    def _shut(self) -> None:
        monitor, self._monitor = self._monitor, None
        if not self._sock.closed:
            self._sock.disable_monitor()
        if monitor is not None:
            monitor.close(0)

    def close(self) -> None:
        """Watch no more; before the socket is closed."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._shut()


def explain(number: int) -> str:
    """What an operator has to know when accept failed with this error."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    what = f"{limit} files are open, and no more may be" if number == errno.EMFILE else os.strerror(number)
    return (
        f"no connection can be taken: {what}. Until there is room again, new peers wait. Raise the "
        "limit (LimitNOFILE= in the unit, or ulimit -Hn) and restart, or see who has so many (qulolist)"
    )


def _nothing() -> None:
    """There is nothing to send."""
