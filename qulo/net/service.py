"""A hub as a program runs it: made from Settings, with its listeners, and for an agent with its way up.

    service = Service(settings); service.listen(); … ; await service.obey("drain", None); service.close()

Make it after the last fork, inside the running event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qulo.config import Settings
from qulo.config.places import JOINED, JOINED_KEY
from qulo.errors import ConfigError, FileError, QuloError, UsageError
from qulo.net import curve, join, token
from qulo.net.administration import Administration, explain
from qulo.net.hub import Address, HubServer, log_note
from qulo.net.ids import make_epoch, make_token
from qulo.net.keys import Keys
from qulo.net.link import LinkDriver, Security
from qulo.net.socket import make_context
from qulo.net.storing import StoreThread
from qulo.net.stream_requests import LOCAL_DEAD, DeadRequests, StoreRequests, StreamRequests
from qulo.protocol import spool, streams, wire
from qulo.protocol.authority import UID
from qulo.protocol.events import Event
from qulo.protocol.hub import Hub
from qulo.protocol.link import Identity, Link, Phase
from qulo.protocol.permissions import ADMIN, Permissions
from qulo.protocol.ports import Limits
from qulo.protocol.relay import Relay
from qulo.protocol.report import LIST, LOCAL_LIST, report, seen_by
from qulo.protocol.session import Session
from qulo.protocol.storage import Store
from qulo.protocol.tracker import Item, Tracker

log = logging.getLogger(__name__)

# Files that a hub must be allowed to open. A peer costs two, and libzmq ends the process when accept on an ipc
# socket finds none left (errno_assert in its ipc_listener.cpp): the limit must not be within a crowd's reach.
MIN_FILES = 1024


def limits_of(settings: Settings) -> Limits:
    """The core's limits out of the configuration."""
    return Limits(**{name: getattr(settings, name) for name in Limits.__dataclass_fields__})


# Seconds that a list of everything is good for whoever asks next.
LISTED = 0.1

# In data_dir: what the master's public key will be, told over a session that the present one protects.
NEXT_MASTER = "master.next.pub"


class Service:
    """The hub of one program, with everything around it."""

    def __init__(
        self,
        settings: Settings,
        version: str,
        make_store: Callable[[], Store] | None = None,
        failed: Callable[[QuloError], None] = log.critical,
    ) -> None:
        """`make_store` opens the store, in its own thread; `failed` is told when it can be used no more."""
        _allow_files()
        self.settings = settings
        self.version = version
        self.addresses: dict[str, str] = {}
        self.key: curve.Key  # where peers come in with keys
        self._context = make_context()
        hub = Hub(settings.name or settings.program, make_epoch(), limits_of(settings), make_token, version)
        hub.is_host = settings.program == "qulod"
        hub.authority.permissions = Permissions(settings.permissions)
        hub.authority.administrators = frozenset({f"{UID}0", f"{UID}{os.geteuid()}"})
        for topic in (LIST, LOCAL_LIST):
            hub.system[topic] = self._listed
        hub.system[f"{ADMIN}.auth.explain"] = lambda asker, argument: explain(hub, argument)
        self._server = HubServer(hub, self._context)
        self._server.zap.max_handshakes = settings.max_handshakes
        self._store = None if make_store is None else StoreThread(make_store, self._stored, failed)
        self._spooled: spool.Loaded | None = None  # what an agent's store had at the start
        self._server.after_turn = self._turn
        self._listed_at = 0.0
        self._list: dict[str, Any] = {}  # as it was then
        self._packed: dict[Session, bytes] = {}  # by who asked since
        self._driver: LinkDriver | None = None
        self._keys: Keys | None = None  # where peers come in with keys
        self._tasks: set[asyncio.Task[None]] = set()

    def _listed(self, asker: Session, argument: dict[str, Any]) -> bytes:
        """What the asker may know of the report, packed; for a moment the same: it is a walk over everything."""
        now = time.monotonic()
        if now - self._listed_at > LISTED:
            self._listed_at, self._list = now, self._report()
            self._packed.clear()
        packed = self._packed.get(asker)
        if packed is None:
            packed = self._packed[asker] = wire.pack(seen_by(asker, self._list))
        return packed

    def _report(self) -> dict[str, Any]:
        return report(self.hub, time.monotonic())

    @property
    def connected(self) -> bool:
        """Is there a session with the master? Always true for a hub that is one."""
        return self._driver is None or self._driver.link.phase is Phase.UP

    @property
    def hub(self) -> Hub:
        """The core."""
        return self._server.hub

    # -- the store

    async def keep(self) -> None:
        """Open the store and begin with what is in it; before `listen`. Raises FileError or StoreFailed."""
        store = self._store
        if store is None:
            return
        await store.start()
        if self.settings.program == "qagent":
            self._spooled = await store.do(spool.load)
            return
        now = time.monotonic()
        kept = self.hub.keep_streams()
        kept.offset_ms = int(time.time() * 1000) - int(now * 1000)
        loaded = await store.do(partial(streams.load, now_ms=kept.wall(now)))
        kept.adopt(loaded, await store.do(lambda store: store.marks()), now)
        store.serve(kept)
        StreamRequests(self.hub, kept)
        StoreRequests(self.hub, store)

    def _turn(self) -> None:
        if self._store is not None:
            self._store.turn()
        if self._driver is not None:
            self._driver.send()

    def _stored(self) -> None:
        self.hub.go_on(time.monotonic())
        self._server.flush()

    # -- listeners

    def listen(self) -> None:
        """Bind what the settings name. Raises EndpointError, FileError or ConfigError."""
        settings = self.settings
        self._bind(
            "local",
            "local_publish",
            Address(settings.local, None, None, settings.local_mode, settings.local_group),
        )
        if settings.listen is None:
            return
        key = self._hub_key()
        if key is not None:
            accepted = None if settings.accepted_keys is None else Path(settings.accepted_keys)
            self._keys = Keys(accepted, Path(settings.data_dir), time.time, self.hub.name)
            self._load_keys(strict=True)  # whoever starts it is there to mend it
            self._server.zap.principal = self._keys.principal
        self._bind("listen", "publish", Address(settings.listen, settings.publish, key))
        if key is not None and self._keys is not None:
            self.key = key
            Administration(self.hub, self._keys, self.addresses["listen"], self)
            # A change of keys that a restart has interrupted goes on.
            later = curve.load_key(self._next_key).public if self._next_key.exists() else None
            self.hub.announce_key(key.public, later)

    def _bind(self, listen: str, publish: str, address: Address) -> None:
        self.addresses[listen], self.addresses[publish] = self._server.listen(address)

    def _hub_key(self) -> curve.Key | None:
        """The hub's own key, made at the first start; None with curve: off.

        Hubs that are a site's authority have it in master.key; an agent uses one key up and down.
        """
        if not self.settings.curve:
            return None
        return self._load_key(self._key_name)

    @property
    def _key_name(self) -> str:
        return "agent" if self.settings.program == "qagent" else "master"

    @property
    def _next_key(self) -> Path:
        return self._key_path(f"{self._key_name}.next")

    def _key_path(self, name: str) -> Path:
        return Path(self.settings.data_dir) / f"{name}.key"

    def _load_key(self, name: str) -> curve.Key:
        path = self._key_path(name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make {path.parent}: {error.strerror}") from None
        return curve.load_or_make(path)

    def _load_keys(self, strict: bool = False) -> None:
        """Read the keys anew; who is not accepted any more is gone. Raises ConfigError, then nothing has changed."""
        keys = self._keys
        if keys is None:
            return
        before = {name: key for key, name in keys.accepted.items()}
        keys.load(strict)
        log.info("%d keys are accepted", len(keys.accepted))
        for name, key in before.items():
            if keys.accepted.get(key) != name or key in keys.refused:
                self.revoked(name)

    def revoked(self, name: str) -> None:
        """Ignored from now on; and PUB is bound anew, which everybody else repairs."""
        self.hub.revoke(name, self._server.zap.connections, time.monotonic())
        log.warning("the key of %s counts no more", name)
        self._server.wake()
        self._work(self._server.rebind(local=False))

    def rotate(self, step: str) -> None:
        """Change to another key of our own; see `administration.Owner`."""
        path = self._key_path(self._key_name)
        if step == "begin":
            if self.hub.next_key is not None:
                raise UsageError("a change of keys is under way already: finish or abort it")
            self.hub.announce_key(self.key.public, curve.make_key(self._next_key).public)
        elif self.hub.next_key is None:
            raise UsageError("no change of keys is under way: `qulo keys rotate` begins one")
        elif step == "finish":
            curve.replace_key(path, self._next_key)
            self.key = curve.load_key(path)
            self.hub.announce_key(self.key.public)
            self._work(self._server.rekey(self.key))
        elif step == "abort":
            curve.public_path(self._next_key).unlink(missing_ok=True)
            self._next_key.unlink(missing_ok=True)
            self.hub.announce_key(self.key.public)
        else:
            raise UsageError(f"there is no step {step!r}; there are begin, finish and abort")
        self._server.wake()

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a listener could not be bound again: %s; restart this daemon", error)

    # -- the way up

    async def join(self, text: str) -> Settings:
        """Enrol this agent's key with a token, and keep what it says of the master; `dial` comes next.

        Returns the settings as the next start will find them.
        Raises UsageError for what is no token, Denied, EndpointError without a hub, FileError.
        """
        found = token.decode(text)
        settings = self.settings
        key = self._load_key("agent")
        name = await join.enrol(found, key.public, self.hub.name, self._context)
        data = Path(settings.data_dir)
        curve.keep_public(data / JOINED_KEY, found.master)
        (data / NEXT_MASTER).unlink(missing_ok=True)
        curve.keep(data / JOINED, json.dumps({"master": list(found.addresses), "name": name}) + "\n", 0o600)
        log.info("joined as %s: the master is at %s", name, ", ".join(found.addresses))
        # What is written in the configuration goes on counting; only what nobody said is the token's to say.
        unsaid = {option for option, source in settings.sources.items() if source in ("default", str(data / JOINED))}
        self.settings = replace(
            settings,
            master=found.addresses if "master" in unsaid else settings.master,
            name=name if "name" in unsaid else settings.name,
        )
        self.hub.authority.hub = self.settings.name or name
        return self.settings

    def dial(self) -> None:
        """Connect to the master, and relay between it and the local programs. Raises ConfigError for keys."""
        settings = self.settings
        security = None
        if settings.curve and settings.master_key is not None:
            if not Path(settings.master_key).exists():
                raise ConfigError(
                    f"this host has not joined a master: there is no {settings.master_key}. On the master run "
                    "`qulo token new`, here `qagent --join TOKEN`"
                )
            following = Path(settings.data_dir) / NEXT_MASTER
            later = curve.load_public(following) if following.exists() else None
            security = Security(curve.load_public(settings.master_key), self._load_key("agent"), later)
        hub = self.hub
        link = Link(Identity(b"", hub.name, "agent", {"version": self.version}), hub.limits)
        relay = Relay(link, self._make_spool(link))
        relay.attach(hub)

        def deliver(happened: list[Event], items: list[tuple[Tracker, Item]]) -> None:
            for note in relay.turn(happened, items, time.monotonic()):
                log_note(note)
            self._server.wake()

        driver = LinkDriver(link, settings.master, self._context, deliver, security)

        def went_away() -> None:
            relay.went_away()
            self._server.wake()

        driver.disconnected = went_away
        driver.key_changed = self._keep_master_key
        self._driver = driver
        driver.start()

    def _make_spool(self, link: Link) -> spool.Spool | None:
        if self._store is None or self._spooled is None:
            return None
        made = spool.Spool(link, log_note)
        made.adopt(self._spooled)
        self._store.serve(made)
        self.hub.intake.journal = made.journal
        DeadRequests(self.hub, made, LOCAL_DEAD)
        StoreRequests(self.hub, self._store)
        return made

    def _keep_master_key(self, security: Security) -> None:
        """The master has told its next key, or is known by it now."""
        following = Path(self.settings.data_dir) / NEXT_MASTER
        if security.next is not None:
            curve.keep_public(following, security.next)
            log.info("the master's key will be %s", curve.fingerprint(security.next))
        elif self.settings.master_key is not None:
            curve.keep_public(Path(self.settings.master_key), security.server)
            following.unlink(missing_ok=True)
            log.info("the master's key is %s now", curve.fingerprint(security.server))

    # -- what the operator asks for

    async def obey(self, kind: str, settings: Settings | None) -> bool:
        """Carry out an event of the daemon's control; False when the program shall end."""
        if kind == "reload" and settings is not None:
            await self._reload(settings)
        elif kind == "dump":
            log.info("state: %s", json.dumps(self._report(), separators=(",", ":")))
        elif kind == "drain":
            await self._drain(time.monotonic() + self.settings.drain_timeout)
            return False
        elif kind == "stop":
            return False
        return True

    async def _drain(self, deadline: float) -> None:
        """Below first: what programs are still sending is to go up as well."""
        if not await self._server.drain(deadline - time.monotonic()):
            log.warning("stopping although not every peer has acknowledged everything")
        driver = self._driver
        if driver is None:
            return
        driver.beat()  # its answer acknowledges what nobody else would ask about
        while not driver.link.settled and time.monotonic() < deadline:
            driver.flush()
            await asyncio.sleep(0.01)

    async def _reload(self, settings: Settings) -> None:
        """Take over what can change while running; the runner has said what cannot."""
        try:
            self._load_keys()
        except QuloError as error:
            log.error("the accepted keys stay as they were: %s", error)
        else:
            self.settings = settings
        self.hub.adopt(limits_of(settings))
        self._server.zap.max_handshakes = settings.max_handshakes
        changed = settings.permissions != self.hub.authority.permissions.rules
        self.hub.adopt_permissions(Permissions(settings.permissions), time.monotonic())
        self._server.wake()
        if changed:
            self._work(self._server.rebind(local=True))

    async def close(self) -> None:
        """Close everything; every socket is closed before the context ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._driver is not None:
            await self._driver.close()
            if unsent := self._driver.link.channel.count_messages():
                log.error("stopped with %d messages that the master has not acknowledged: they may be lost", unsent)
        self._server.flush()
        if self._store is not None:
            await self._store.close()
        self._server.close()
        self._context.term()


def _allow_files() -> None:
    """Raise the soft limit of open files to the hard one; raises QuloError where that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MIN_FILES:
        raise QuloError(
            f"only {hard} files may be open, and a hub needs {MIN_FILES} or more: two for each peer; raise the limit "
            "(ulimit -Hn, or LimitNOFILE= in the unit)"
        )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
