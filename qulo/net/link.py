"""A link on real sockets: dials a hub with DEALER and SUB, and drives `protocol.link`.

libzmq never reconnects behind our back (RECONNECT_IVL=-1): on loss both sockets are closed and new ones opened,
after a jittered pause, at the next of the hub's addresses, each looked up anew. Then HELLO says what had come.
No ZMTP heartbeats: they abort the process after a stall (libzmq#3937); ours go over both sockets.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from qulo.errors import Denied, Disconnected, ProtocolError, QuloError, Refused
from qulo.net.curve import Key, fingerprint, is_key
from qulo.net.ids import make_instance
from qulo.net.resolve import resolve
from qulo.net.socket import FRAME_EXTRA, Socket, monitor_address, open_socket, receive_bytes, receive_parts
from qulo.protocol import events
from qulo.protocol import link as core
from qulo.protocol.events import Event
from qulo.protocol.link import Link
from qulo.protocol.tracker import Item, Tracker
from qulo.protocol.wire import session_key

log = logging.getLogger(__name__)

# Seconds for a connection, its handshake and WELCOME together.
GREETING = 5.0

# The pause between attempts doubles from the first to the last (seconds), each time jittered by half, so that a
# thousand links of a restarted hub do not come back in step and are yet all back in seconds.
FIRST_PAUSE, LAST_PAUSE = 0.05, 3.0

# After a denial an operator has to act first: soon at first, while somebody may be doing it, then slowly.
DENIED_PAUSE, DENIED_LAST_PAUSE = 1.0, 15.0

# Heartbeats without a sign of the hub, on either socket, after which the connection counts as lost.
SILENT_BEATS = 3

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class _Zap(IntEnum):
    """What a hub's ZAP handler answered."""

    RETRY = 300
    DENIED = 400


@dataclass(frozen=True, slots=True)
class Security:
    """CURVE keys for tcp: the hub's public one and our own pair. `next` is what the hub's will be, once it is told."""

    server: bytes
    key: Key
    next: bytes | None = None


@dataclass(slots=True)
class _Sockets:
    dealer: Socket
    sub: Socket | None = None
    monitors: tuple[Socket, ...] = ()


class LinkDriver:
    """Runs a `protocol.link.Link`. `start` it; what comes goes to `deliver(events, items)` once per turn.

    After calling anything on `link` that queues something, call `wake` (or `flush`, to send at once).
    """

    def __init__(
        self,
        link: Link,
        urls: Sequence[str],
        context: zmq.asyncio.Context,
        deliver: Callable[[list[Event], list[tuple[Tracker, Item]]], None],
        security: Security | None = None,
    ) -> None:
        self.link = link
        self.urls = tuple(urls)
        self.error: QuloError | None = None  # why the last attempt failed
        self.failures: dict[str, str] = {}  # by address, why its last attempt failed
        self.url = self.urls[0]
        self._dialled = self.url  # with its name looked up
        self._try_next = False  # the hub's next key, at this attempt?
        self.disconnected: Callable[[], None] = _nothing
        self.refused: Callable[[QuloError], None] = _ignore
        self.attempts = 0
        self._reason = ""  # of the last failed attempt
        self._context = context
        self._deliver = deliver
        self.security = security
        self.key_changed: Callable[[Security], None] = _keep_no_key
        self._sockets: _Sockets | None = None
        self._loop = asyncio.get_running_loop()
        self.scheduled = False  # will there be a flush this turn?
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._heard = self._heard_pub = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pushed = False  # was anything sent since the DEALER was last rechecked?

    def start(self) -> None:
        """Dial, and keep the connection up until `close`."""
        self._task = self._loop.create_task(self._run(), name=f"link {self.link.identity.name}")

    async def close(self) -> None:
        """Send what is left to send, say BYE and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._sockets is not None and self.link.phase is core.Phase.UP:
            self.flush()
            self._push(self.link.bye())
        self._drop()

    # -- connecting

    async def _run(self) -> None:
        pause, denied = FIRST_PAUSE, DENIED_PAUSE
        while True:
            self.url = self.urls[self.attempts % len(self.urls)]
            self.attempts += 1
            self.error = None
            try:
                was_up = await self._session()
            except Exception as error:  # whatever a hub makes happen here must not end the link
                log.exception("the connection to %s failed", self.url)
                self._fail(Disconnected(f"{self.url}: {type(error).__name__}"))
                self._drop()
                was_up = False
            self._try_next = not was_up and not self._try_next
            if was_up:
                pause, denied = FIRST_PAUSE, DENIED_PAUSE
            wait = pause
            if isinstance(self.error, Refused):
                self.refused(self.error)
                if self.attempts % len(self.urls) == 0:  # at every one of the hub's addresses
                    wait = denied
                    denied = min(denied * 2, DENIED_LAST_PAUSE)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(pause * 2, LAST_PAUSE)

    async def _session(self) -> bool:
        """One connection, from dialling to its loss; True if it ever was up."""
        self._lost.clear()
        try:
            self._dialled = await self._numeric()
            self._dial()
        except (OSError, zmq.ZMQError) as error:  # the latter where no socket can be made, as without files left
            self._fail(Disconnected(f"{self.url}: {error.strerror or error}"))
            self._drop()
            return False
        giving_up = self._loop.call_later(GREETING, self._greeting_late)
        try:
            await self._lost.wait()
        finally:
            giving_up.cancel()
        was_up = self.link.phase is core.Phase.UP
        self._log_loss(was_up)
        self._drop()
        return was_up

    async def _numeric(self) -> str:
        """The address to dial: `url` with its name looked up, each of several addresses in its turn. Raises OSError."""
        if not self.url.startswith("tcp://"):
            return self.url
        host, _, port = self.url.removeprefix("tcp://").rpartition(":")
        try:
            async with asyncio.timeout(GREETING):  # not wait_for, which can lose a cancellation
                found = await resolve(host.strip("[]"))
        except TimeoutError:
            raise OSError(f"the name {host} was not found within {GREETING:g} s") from None
        address = found[(self.attempts // len(self.urls)) % len(found)]
        return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"

    def _log_loss(self, was_up: bool) -> None:
        """A loss is always worth a warning; an agent's failed attempts are, when the reason is a new one."""
        reason = str(self.error or "the connection was closed")
        new = self.link.identity.kind == "agent" and reason != self._reason
        self._reason = "" if was_up else reason
        level = logging.WARNING if was_up or new else logging.DEBUG
        log.log(level, "%s %s: %s", "lost" if was_up else "no session with", self.url, reason)

    def _greeting_late(self) -> None:
        if self.link.phase is not core.Phase.UP:
            self._fail(Disconnected(f"{self.url} did not answer within {GREETING:g} s"))

    @property
    def _server_key(self) -> bytes:
        """The hub's key, and while it is being changed the old and the new one in turns."""
        if self.security is None:
            return b""
        later = self.security.next
        return later if later is not None and self._try_next else self.security.server

    def _know_key(self, key: bytes) -> None:
        """Believed over CURVE only: what comes over ipc:// may be from somebody else."""
        security = self.security if self._is_secure else None
        if security is None or not is_key(key.decode("ascii", "replace")):
            return
        later = None if key == security.server else key  # the present one: the hub has thought better of it
        if later != security.next:
            self._change_key(replace(security, next=later))

    @property
    def _is_secure(self) -> bool:
        """Does CURVE protect the connection? It does on tcp with keys; on ipc somebody else may be the hub."""
        return self.security is not None and self.url.startswith("tcp://")

    def _change_key(self, security: Security) -> None:
        self.security = security
        self.key_changed(security)

    def _dial(self) -> None:
        dealer = self._open(zmq.DEALER)
        self._sockets = _Sockets(dealer)
        self._monitor(dealer)
        dealer.connect(self._dialled)
        dealer.start(receive_bytes, self._frame, self.flush)
        self._heard = time.monotonic()
        self._push(self.link.hello(make_instance()))  # refused when the connection has failed already
        dealer.recheck()

    def _open(self, kind: int) -> Socket:
        options: dict[int, object] = {zmq.RECONNECT_IVL: -1}
        if self.url.startswith("tcp://"):
            options[zmq.IPV6] = int("[" in self._dialled)
            if self.security is not None:
                options[zmq.CURVE_SERVERKEY] = self._server_key
                options[zmq.CURVE_PUBLICKEY] = self.security.key.public
                options[zmq.CURVE_SECRETKEY] = self.security.key.secret
        return open_socket(self._context, kind, self.link.high_water, self.link.max_message + FRAME_EXTRA, options)

    def _monitor(self, sock: Socket) -> None:
        """Hear at once of a closed connection or a failed handshake."""
        sockets = self._sockets
        if sockets is None:
            return
        address = monitor_address()
        sock.monitor(address, _EVENTS)
        watcher = open_socket(self._context, zmq.PAIR, self.link.high_water, -1)
        watcher.connect(address)
        watcher.start(receive_parts, self._noticed, watcher.recheck)
        sockets.monitors += (watcher,)

    def _noticed(self, parts: list[bytes]) -> None:
        notice = parse_monitor_message(parts)
        event, value = notice["event"], notice["value"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value != _Zap.RETRY:
            self._fail(Denied(self._not_accepted()))
        elif event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
            self._fail(Disconnected(f"{self.url}: the handshake failed; do curve and the hub's key match?"))
        elif event == zmq.EVENT_CLOSED:
            self._fail(Disconnected(f"{self.url}: nobody listens there"))
        else:
            self._fail(Disconnected(f"{self.url}: the connection was closed"))

    def _not_accepted(self) -> str:
        """What an operator has to type, and where."""
        if self.security is None:
            return f"{self.url} does not let us in without a key"
        name = self.link.identity.name if self.link.identity.kind == "agent" else "NAME"
        accept = f"qulo keys accept {fingerprint(self.security.key.public)} --name {name}"
        return f"{self.url} does not accept our key (yet): on its host run `{accept}`"

    def _fail(self, error: QuloError) -> None:
        if self.error is None:
            self.error = error
            self.failures[self.url] = str(error)
        self._lost.set()

    def _drop(self) -> None:
        """Close both sockets; the link keeps what has to survive."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sockets, self._sockets = self._sockets, None
        was_up = self.link.phase is core.Phase.UP
        if sockets is not None:
            for sock in filter(None, (sockets.dealer, sockets.sub)):
                sock.disable_monitor()
                sock.close(None if was_up else 0)  # a HELLO that nobody took is not worth lingering for
            for watcher in sockets.monitors:
                watcher.close(0)
        self.link.disconnected()
        if was_up:
            self.disconnected()

    # -- while connected

    def _frame(self, data: bytes) -> None:
        self._heard = time.monotonic()
        try:
            self.link.frame_received(data)
        except ProtocolError as error:
            self._fail(error)

    def _pub_frame(self, data: bytes) -> None:
        self._heard_pub = time.monotonic()
        try:
            self.link.pub_received(data)
        except ProtocolError as error:
            self._fail(error)

    def wake(self) -> None:
        """Something was queued on the link: send it at the end of this turn."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self.scheduled = False
        self.flush()

    def flush(self) -> None:
        """Deliver what has come and send what is queued, now."""
        happened = self.link.take_events()
        items = self.link.take_items()
        if happened or items:
            scheduled, self.scheduled = self.scheduled, True  # what is queued now is sent below
            mine = [event for event in happened if type(event) in _OWN]
            for event in mine:
                self._happened(event)
            self._deliver(happened, items)
            self.scheduled = scheduled
        self.send()

    def send(self) -> None:
        """Send what is queued."""
        sockets = self._sockets
        if sockets is None:
            return
        frames = self.link.take()
        for number, frame in enumerate(frames):
            if not self._push(frame):
                left = sum(f[1] != 0 for f in frames[number:])  # [number, …]: 0 is not kept for resending
                self.link.channel.untake(left)
                self._loop.call_later(self.link.heartbeat / 10, self.wake)
                break
        if self._pushed:
            self._pushed = False
            sockets.dealer.recheck()

    def beat(self) -> None:
        """Send a heartbeat now, behind what is queued; the hub's answer acknowledges all before it."""
        if self.link.phase is core.Phase.UP:
            self.send()
            self._push(self.link.beat(time.monotonic_ns() // 1000))
            self.wake()

    def _push(self, frame: bytes) -> bool:
        if self._sockets is None:
            return False
        try:
            self._pushed = True
            self._sockets.dealer.push(frame)
        except zmq.ZMQError:
            return False  # full, or the connection is gone: the monitor or the heartbeat tells which
        return True

    def _happened(self, event: Event) -> None:
        if isinstance(event, events.Welcomed):
            try:
                self._welcomed(event)
            except zmq.ZMQError as error:
                self._fail(Disconnected(f"{self.url}: {error.strerror}"))
        elif isinstance(event, events.Dismissed):
            self._fail(event.error)
        elif isinstance(event, events.NewKey):
            self._know_key(event.key)
        elif isinstance(event, events.Pulsed):
            self.link.rtt = time.monotonic_ns() // 1000 - event.time
        elif isinstance(event, events.Prefix) and self._sockets is not None and self._sockets.sub is not None:
            self._sockets.sub.set(zmq.SUBSCRIBE if event.add else zmq.UNSUBSCRIBE, event.prefix)
            self._sockets.sub.recheck()

    def _welcomed(self, event: events.Welcomed) -> None:
        if self._sockets is None:
            return
        log.info("connected to %s at %s", self.link.hub.get("name", "a hub"), self.url)
        if self._is_secure and self._try_next and self.security is not None and self.security.next is not None:
            self._change_key(Security(self.security.next, self.security.key))
            self._try_next = False
        sub = self._open(zmq.SUB)
        self._sockets.sub = sub
        self._monitor(sub)
        sub.connect(_publish_url(self._dialled, event.publish))
        sub.start(receive_bytes, self._pub_frame, self.flush)
        sub.set(zmq.SUBSCRIBE, session_key(event.token))
        self._heard_pub = time.monotonic()
        self._beat(time.monotonic())

    def _beat(self, expected: float) -> None:
        """Once per heartbeat: is the hub there on both sockets? Tell it that we are."""
        now = time.monotonic()
        beat = self.link.heartbeat
        if now - expected > beat:
            self._heard = self._heard_pub = now  # we were stalled, not the hub: what it sent is still to be read
        silent = SILENT_BEATS * beat
        if now - self._heard > silent or now - self._heard_pub > silent:
            socket = "DEALER" if now - self._heard > silent else "SUB"
            self._fail(Disconnected(f"{self.url}: nothing came over {socket} for {silent:g} s"))
            return
        self.beat()
        self._timer = self._loop.call_later(beat, self._beat, now + beat)


_OWN = {events.Welcomed, events.Dismissed, events.Pulsed, events.Prefix, events.NewKey}


def _publish_url(url: str, port: int) -> str:
    """Where the hub's PUB is, seen from where we dialled."""
    return f"{url.rpartition(':')[0]}:{port}" if port else f"{url}.pub"


def _nothing() -> None:
    """Nobody asked to be told."""


def _keep_no_key(security: Security) -> None:
    """Whoever gave us the hub's key in a file gives us the next one, too."""


def _ignore(error: QuloError) -> None:
    """Nobody asked to be told."""
