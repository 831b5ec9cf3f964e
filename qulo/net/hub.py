"""A hub on real sockets: binds ROUTER and PUB for each listener and drives `protocol.hub`.

PUB is opened as XPUB: the same on the wire, but the hub sees each subscription, and installs it for the sender
only if the core says so (XPUB_MANUAL). Nothing here decides anything about messages.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from qulo.config.kinds import is_loopback
from qulo.errors import ConfigError, EndpointError, FileError
from qulo.net import accepting, audit, crowd, memory, zap
from qulo.net.curve import Key
from qulo.net.socket import BACKLOG, FRAME_EXTRA, Socket, open_socket, receive_frame, receive_routed
from qulo.protocol import session as core_session
from qulo.protocol.authority import principal_of
from qulo.protocol.hub import Hub
from qulo.protocol.offenders import QUIET
from qulo.protocol.ports import Note

log = logging.getLogger(__name__)

# Subscription messages are a prefix (255 bytes of topic) and a byte: anything longer is not ours.
SUBSCRIPTION_SIZE = 1024

# The umask while an ipc socket is bound: nobody gets in between bind and chmod.
_NOBODY = 0o177

# How often a port is tried until somebody else must have it, and seconds between; milliseconds do as a rule.
REBINDS, REBIND_PAUSE = 400, 0.005

# Seconds between two looks at publishers that max_rate holds back: short, so that they go on evenly.
RELEASE = 0.05

# The core's clock is asked this often per heartbeat: silence is noticed with that precision.
TICKS = 4

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `publish` is for tcp only: on ipc the PUB is beside the ROUTER, at the path + `.pub`."""

    listen: str
    publish: str | None = None
    key: Key | None = None  # CURVE with this key; None is allowed on ipc and loopback only
    mode: int = 0o600  # of the ipc sockets
    group: str | None = None


@dataclass(slots=True, eq=False)
class _Pair:
    """The sockets of one listener."""

    listener: core_session.Listener
    router: Socket
    pub: Socket | None  # None while it is bound anew
    address: Address
    watches: list[accepting.AcceptWatch] = field(default_factory=list)  # of the ROUTER, then of the PUB
    numbers: dict[Socket, int] = field(default_factory=dict)  # of the descriptors on which they listen, on tcp


class HubServer:
    """Runs a `protocol.hub.Hub` on listeners. listen() for each address, then it works until close()."""

    def __init__(self, hub: Hub, context: zmq.asyncio.Context) -> None:
        self.hub = hub
        self.addresses: list[tuple[str, str]] = []  # ROUTER and PUB of each listener, with real ports
        self.zap = zap.ZapHandler(context)
        self.after_turn: Callable[[], None] = _nothing  # the turn of store and relay
        self._context = context
        self._pairs: list[_Pair] = []
        self._scheduled = False
        self._closed = False
        self._releasing = False
        self._accept_told = -accepting.PAUSE
        self._memory = memory.Keeper()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(hub.limits.heartbeat / TICKS, self._tick)
        self._crowd = crowd.Crowd(self._listening, time.monotonic)
        self._looking: asyncio.TimerHandle | None = None  # where there is a listener on tcp

    def _listening(self) -> list[int]:
        return [number for pair in self._pairs for number in pair.numbers.values()]

    def _look(self) -> None:
        self._looking = self._loop.call_later(self._crowd.look(), self._look)

    def listen(self, address: Address) -> tuple[str, str]:
        """Bind a listener and serve it; returns the endpoints of ROUTER and PUB. Raises EndpointError."""
        local = address.listen.startswith("ipc://")
        options = _security(address, local)
        router = self._open_router(options)
        pub = self._open_pub(options)
        finders = {} if local else {sock: crowd.Finder(sock) for sock in (router, pub)}
        try:
            bound = self._bind(router, pub, address, local)
            found = {sock: finder.found() for sock, finder in finders.items()}
        except BaseException:
            for finder in finders.values():
                finder.close()
            router.close(0)
            pub.close(0)
            raise
        port = 0 if local else int(bound[1].rpartition(":")[2])
        pair = _Pair(self.hub.add_listener(local, port), router, pub, address)
        pair.numbers = {sock: number for sock, number in found.items() if number is not None}
        self._pairs.append(pair)
        if not local and self._looking is None:
            self._look()
        self.addresses.append(bound)
        self._start_router(pair, router)
        self._start_pub(pair, pub)
        return bound

    def _start_router(self, pair: _Pair, router: Socket) -> None:
        pair.router = router
        self._watch(pair, router)
        router.start(receive_routed, lambda got: self._received(pair, *got), self.flush)

    async def rekey(self, key: Key) -> None:
        """Go on with another CURVE key, on the same ports: links that know it come back, and lose nothing."""
        for pair, (endpoint, _) in zip(self._pairs, self.addresses, strict=True):
            if pair.address.key is None:
                continue
            pair.address = replace(pair.address, key=key)
            while pair.watches:
                pair.watches.pop().close()
            pair.numbers.pop(pair.router, None)
            pair.router.unbind(endpoint)
            pair.router.close(0)
            self.hub.listener_lost(pair.listener)
            router = await self._bind_again(pair, self._open_router(_security(pair.address, False)), endpoint)
            self._start_router(pair, router)
        await self.rebind(local=False)

    def _open_router(self, options: dict[int, Any]) -> Socket:
        limits = self.hub.limits
        mandatory = {zmq.ROUTER_MANDATORY: 1, zmq.BACKLOG: BACKLOG}
        size = limits.max_message + FRAME_EXTRA
        return open_socket(self._context, zmq.ROUTER, limits.high_water, size, options | mandatory)

    def _open_pub(self, options: dict[int, Any]) -> Socket:
        manual = {zmq.XPUB_MANUAL: 1, zmq.BACKLOG: BACKLOG}
        return open_socket(self._context, zmq.XPUB, self.hub.limits.high_water, SUBSCRIPTION_SIZE, options | manual)

    def _start_pub(self, pair: _Pair, pub: Socket) -> None:
        pair.pub = pub
        self._watch(pair, pub)
        pub.start(receive_frame, lambda frame: self._subscribed(pair, pub, frame), self.flush)

    def _watch(self, pair: _Pair, sock: Socket) -> None:
        if not pair.listener.local:  # on ipc libzmq ends the process instead: see service.MIN_FILES
            pair.watches.append(accepting.AcceptWatch(self._context, sock, self._cannot_accept))

    def _cannot_accept(self, number: int) -> None:
        if number == errno.EMFILE:
            self._crowd.run_out()
        now = time.monotonic()
        if now - self._accept_told >= accepting.PAUSE:
            self._accept_told = now
            log.error("%s", accepting.explain(number))

    async def rebind(self, *, local: bool) -> None:
        """Close every PUB (on ipc with `local` only) and bind it anew on its port: libzmq cannot drop a single peer.

        Every link notices, connects again and repairs; nobody who may still come loses anything.
        """
        for pair, (_, endpoint) in zip(self._pairs, self.addresses, strict=True):
            listener = pair.listener
            if pair.pub is None or (listener.local and not local):
                continue  # being done already, or nobody there is meant
            while len(pair.watches) > 1:
                pair.watches.pop().close()
            pair.numbers.pop(pair.pub, None)
            pair.pub.unbind(endpoint)
            pair.pub.close(0)
            pair.pub = None
            self.hub.pub_lost(listener)
            pub = await self._bind_again(pair, self._open_pub(_security(pair.address, listener.local)), endpoint)
            if listener.local:
                _open_to_group(Path(endpoint.removeprefix("ipc://")), pair.address)
            self._start_pub(pair, pub)

    async def _bind_again(self, pair: _Pair, sock: Socket, endpoint: str) -> Socket:
        """Bind where another one was just closed, which libzmq does in its own thread; for as long as it takes.

        Somebody else can be quicker (a port above 1023 is anybody's): then it is said, and tried until it is free.
        """
        finder = None if pair.listener.local else crowd.Finder(sock)
        try:
            for attempt in itertools.count(1):
                if _try_bind(sock, endpoint):
                    if attempt > REBINDS:
                        log.warning("%s is bound again", endpoint)
                    break
                if attempt == REBINDS:
                    log.error("%s was taken by another process: nobody is served there until it is free", endpoint)
                await asyncio.sleep(REBIND_PAUSE)
            number = None if finder is None else finder.found()
        except BaseException:
            if finder is not None:
                finder.close()
            sock.close(0)
            raise
        if number is not None:
            pair.numbers[sock] = number
            self._crowd.listens_anew()
        return sock

    def _bind(self, router: Socket, pub: Socket, address: Address, local: bool) -> tuple[str, str]:
        if not local:
            if address.publish is None:
                raise ConfigError(f"listen {address.listen} needs a publish address beside it")
            return router.bind_or_explain(address.listen), pub.bind_or_explain(address.publish)
        path = Path(address.listen.removeprefix("ipc://"))
        beside = Path(f"{path}.pub")
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make {path.parent}: {error.strerror}") from None
        before = os.umask(_NOBODY)
        try:
            bound = router.bind_or_explain(f"ipc://{path}"), pub.bind_or_explain(f"ipc://{beside}")
        finally:
            os.umask(before)
        for socket_path in (path, beside):
            _open_to_group(socket_path, address)
        return bound

    def _received(self, pair: _Pair, route: bytes, frame: zmq.Frame, alone: bool) -> None:
        try:
            user = str(frame.get("User-Id"))
        except zmq.ZMQError:  # nobody our ZAP handler has let in
            self.hub.counters.bad_frames += 1
            return
        address = ""
        if route not in pair.listener.routes:
            address = _address_of(pair.listener, frame)
        if alone:
            self.hub.frame_received(pair.listener, route, user, address, frame.bytes, time.monotonic())
        else:
            self.hub.parts_received(pair.listener, route, user, address, time.monotonic())
        ignored = pair.listener.offenders.ignored
        if ignored and route in ignored and not ignored[route].cut:
            ignored[route].cut = True
            self._cut(pair, user, frame)

    def _cut(self, pair: _Pair, user: str, frame: zmq.Frame) -> None:
        """Close the connection that a frame came by, and keep whoever it is out for a while."""
        if pair.address.key is not None:  # else it is all programs of a user, or of this host
            self.zap.put_off(principal_of(user), time.monotonic() + QUIET)
        try:
            # libzmq has no call for this, but says which file it is; a copy of it reaches the same connection.
            with socket.socket(fileno=os.dup(frame.get(zmq.MessageOption.SRCFD))) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        except (OSError, zmq.ZMQError) as error:  # it is closed already
            log.debug("nothing to cut: %s", error)

    def _subscribed(self, pair: _Pair, pub: Socket, frame: zmq.Frame) -> None:
        data = frame.bytes
        try:
            user = str(frame.get("User-Id"))
        except zmq.ZMQError:
            user = ""  # the unsubscription that libzmq makes when a peer goes
        if self.hub.subscription_received(pair.listener, user, data, time.monotonic()):
            # Applies to the pipe of the message received last, so it must come before the next receive, and
            # before the READY that the core has queued: what was published earlier may come twice, never less.
            pub.set(zmq.SUBSCRIBE, data[1:])
        elif data[:1] == b"\x00":
            pub.set(zmq.UNSUBSCRIBE, data[1:])
        ignored = pair.listener.strangers.ignored
        if ignored and (known := ignored.get(user.encode())) is not None and not known.cut:
            known.cut = True
            self._cut(pair, user, frame)

    def wake(self) -> None:
        """Something was decided outside a turn: flush soon."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send all that this turn decided."""
        if self._closed:
            return
        self.after_turn()
        if self.hub.flush():
            self.wake()
        if self.hub.intake.holding and not self._releasing:
            self._releasing = True
            self._loop.call_later(RELEASE, self._release)
        frames = self.hub.take_pub()
        if frames:
            self._publish(frames)
        out = self.hub.take_out()
        if out:
            self._send(out)
        for note in self.hub.take_notes():
            log_note(note)
        for verdict in self.hub.authority.take_verdicts():
            audit.write(verdict)

    def _release(self) -> None:
        self._releasing = False
        if not self._closed:
            self.hub.intake.release(time.monotonic())
            self.flush()

    def _publish(self, frames: list[tuple[core_session.Listener, bytes]]) -> None:
        pubs = [pair.pub for pair in self._pairs]
        for listener, frame in frames:
            pub = pubs[listener.number]
            if pub is not None:  # who would have got it repairs
                pub.push(frame)
        for pub in {pubs[listener.number] for listener, _ in frames}:
            if pub is not None:
                pub.recheck()

    def _send(self, out: list[tuple[core_session.Listener, bytes, bytes]]) -> None:
        refused: dict[tuple[int, bytes], tuple[int, bool]] = {}
        for listener, route, frame in out:
            if refused and (listener.number, route) in refused:
                self._refuse(refused, listener.number, route, frame)
                continue
            router = self._pairs[listener.number].router
            try:
                router.push(route, frame)
            except zmq.ZMQError as error:
                refused[listener.number, route] = (0, router.is_gone(error))
                self._refuse(refused, listener.number, route, frame)
        for (number, route), (count, gone) in refused.items():
            self.hub.unsent(self._pairs[number].listener, route, count, gone)
        for number in {listener.number for listener, _, _ in out}:
            self._pairs[number].router.recheck()

    @staticmethod
    def _refuse(refused: dict[tuple[int, bytes], tuple[int, bool]], number: int, route: bytes, frame: bytes) -> None:
        """Count a frame that has to wait; [number, …]: its second byte is 0 if it is not kept for resending."""
        count, gone = refused[number, route]
        refused[number, route] = (count + (frame[1] != 0), gone)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self.hub.limits.heartbeat / TICKS, self._tick)
        self.hub.tick(time.monotonic())
        self.zap.tell_rest(time.monotonic())
        self._memory.look(len(self.hub.sessions))
        self.flush()

    async def drain(self, timeout: float) -> bool:
        """Take no more publishes, and wait until every peer has what it was sent; False if that took too long.

        Peers tell with each heartbeat how far they have come on PUB: that is how long it takes after traffic.
        """
        deadline = time.monotonic() + timeout
        while not self.hub.drain():
            if time.monotonic() >= deadline:
                return False
            self.flush()
            await asyncio.sleep(0.01)
        return True

    def close(self) -> None:
        """Stop serving. The context can be terminated afterwards."""
        self._closed = True
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        self._crowd.close()
        for pair, (listen, publish) in zip(self._pairs, self.addresses, strict=True):
            for watch in pair.watches:
                watch.close()
            pair.router.close()
            if pair.pub is not None:
                pair.pub.close()
            for endpoint in (listen, publish):
                if endpoint.startswith("ipc://"):
                    Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        self.zap.close()


def _address_of(listener: core_session.Listener, frame: zmq.Frame) -> str:
    try:
        address = str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        address = "unknown"
    if not listener.local:
        return address
    _, user, _, process = address.split(":") if address.count(":") == 3 else ("", "unknown", "", "unknown")
    return f"ipc, user {user}, process {process}"


def _try_bind(sock: Socket, endpoint: str) -> bool:
    """Bind; False when the address is still in use."""
    before = os.umask(_NOBODY)
    try:
        sock.bind(endpoint)
    except zmq.ZMQError:
        return False
    finally:
        os.umask(before)
    return True


def log_note(note: Note) -> None:
    """Write what the core noticed to the log."""
    log.log(LEVELS[note.level], "%s", note.text)


def _nothing() -> None:
    """There is no relay."""


def _security(address: Address, local: bool) -> dict[int, Any]:
    """The socket options that say who may connect. Raises ConfigError for plain text beyond this host."""
    options: dict[int, Any] = {zmq.ZAP_ENFORCE_DOMAIN: 1, zmq.IPV6: int("[" in address.listen)}
    if local:
        return options | {zmq.ZAP_DOMAIN: zap.LOCAL_DOMAIN.encode()}
    if address.key is not None:
        return options | {
            zmq.ZAP_DOMAIN: zap.CURVE_DOMAIN.encode(),
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_SECRETKEY: address.key.secret,
            zmq.CURVE_PUBLICKEY: address.key.public,
        }
    for endpoint in filter(None, (address.listen, address.publish)):
        if not is_loopback(endpoint):
            raise ConfigError(f"{endpoint} can be reached from other hosts: set curve: on, or listen on 127.0.0.1")
    return options | {zmq.ZAP_DOMAIN: zap.PLAIN_DOMAIN.encode()}


def _open_to_group(path: Path, address: Address) -> None:
    try:
        if address.group is not None:
            shutil.chown(path, group=address.group)
        path.chmod(address.mode)
    except (OSError, LookupError) as error:
        raise EndpointError(f"cannot give {path} to group {address.group}: {error}") from None
