"""Keeping descriptors for those who are in: when too many are in use, new connections over TCP wait in the kernel.

libzmq ends the process when accept on an ipc socket finds no descriptor left, and unbinding would close all connections
that a listener has taken. So a listening TCP socket gets a packet filter that drops everything: nobody new gets in, who
is in stays, and a client's kernel goes on asking until the filter is gone. It must never raise where it is called from
the loop: what the kernel refuses is logged.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterable

import zmq
from zmq.utils.monitor import parse_monitor_message

from qulo.net.socket import Socket, monitor_address

log = logging.getLogger(__name__)

# Shares of the descriptors in use at which TCP waits, and at which it is taken again: far apart, so that one peer's
# coming and going does not open and shut.
SHUT, OPEN = 0.8, 0.6

# Connections that libzmq takes per second, about. A look has to come before they have filled what is above SHUT.
TAKEN = 20_000

# Least and most seconds between two cheap looks: with our units' 65,536 files it is the latter.
LEAST, MOST = 0.005, 0.1

# Seconds between two that count for sure; it is a walk over /proc/self/fd.
COUNT = 2.0

# Descriptors that are kept, and given free when all others are in use before that was noticed: for ipc, and for the
# log that says so.
SPARE = 32

# Seconds between two lines in the log about the same crowd, which can come and go.
TOLD = 60.0

# Linux, asm-generic/socket.h; Python has no names for them.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27

# The filter: one instruction, BPF_RET | BPF_K with 0, which keeps no byte of any packet.
_DROP = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_PROGRAM = struct.pack("HL", 1, ctypes.addressof(_DROP))

# Milliseconds in which libzmq says on which descriptor it listens; it does so before bind returns.
_SAID = 1000


class Finder:
    """On which descriptor does a socket listen? Make it before the bind; `found` after it, once."""

    def __init__(self, sock: Socket) -> None:
        address = monitor_address()
        self._sock = sock
        sock.monitor(address, zmq.EVENT_LISTENING)
        self._monitor: zmq.Socket[bytes] = zmq.Context.shadow(sock.context).socket(zmq.PAIR)
        self._monitor.connect(address)

    def found(self) -> int | None:
        """The descriptor; None if libzmq does not say."""
        try:
            if not self._monitor.poll(_SAID):
                return None
            return int(parse_monitor_message(self._monitor.recv_multipart())["value"])
        finally:
            self.close()

    def close(self) -> None:
        """Look no more."""
        if not self._sock.closed:
            self._sock.disable_monitor()
        self._monitor.close(0)


class Crowd:
    """Watches this process's descriptors. `listening` gives those of the TCP listeners as they are now."""

    def __init__(self, listening: Callable[[], Iterable[int]], clock: Callable[[], float]) -> None:
        self.shut = False
        self._listening, self._clock = listening, clock
        self._told = -TOLD
        self._counted = clock()
        self._spare: list[int] = []
        self._keep_spare()

    def look(self) -> float:
        """Are too many in use, or few enough again? Returns the seconds until the next look."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        pause = MOST if self.shut else min(MOST, max(LEAST, (1 - SHUT) * limit / TAKEN / 2))
        used, now = self._lowest_free(limit), self._clock()
        if now - self._counted >= (MOST if self.shut else COUNT):
            self._counted = now
            used = max(used, self._count(limit))
        elif self.shut:
            return pause  # to open again takes a count
        if not self.shut and used > SHUT * limit:
            self._shut(f"{used} of {limit} files are open")
        elif self.shut and used < OPEN * limit:
            self.shut = False
            self._keep_spare()
            self._filter(None)
            log.info("new connections over TCP are taken again: %d of %d files are open", used, limit)
        return pause

    def run_out(self) -> None:
        """Accept has failed for want of descriptors, which is said elsewhere: a look has not seen it in time."""
        if not self.shut:
            self._told = self._clock()
            self._shut("all files that may be are open")

    def listens_anew(self) -> None:
        """A listener was bound anew: what holds for the others holds for it."""
        if self.shut:
            self._filter(_PROGRAM)

    def close(self) -> None:
        """Watch no more."""
        self._give_spare()

    def _shut(self, why: str) -> None:
        self.shut = True
        self._give_spare()
        self._filter(_PROGRAM)
        now = self._clock()
        if now - self._told >= TOLD:
            self._told = now
            log.error(
                "%s: new connections over TCP wait until there are fewer, those that exist and this host's programs go "
                "on. Raise the limit (LimitNOFILE= in the unit, or ulimit -Hn), or see who has so many (qulolist)",
                why,
            )

    def _filter(self, program: bytes | None) -> None:
        for number in self._listening():
            try:
                with socket.socket(fileno=os.dup(number)) as listener:
                    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        continue  # it was closed, and the number is another's
                    if program is not None:
                        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
                    else:
                        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            except OSError as error:
                log.debug("a listener's filter was not changed: %s", error)

    @staticmethod
    def _lowest_free(limit: int) -> int:
        """All below it are in use: a crowd fills the holes first."""
        try:
            number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return limit if error.errno == errno.EMFILE else 0
        os.close(number)
        return number

    @staticmethod
    def _count(limit: int) -> int:
        try:
            return len(os.listdir("/proc/self/fd"))
        except OSError as error:  # the one that it needs may be none too many
            return limit if error.errno == errno.EMFILE else 0

    def _keep_spare(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _give_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())
