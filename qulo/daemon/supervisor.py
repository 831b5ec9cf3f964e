"""The running daemon: one task serves, one acts on signals, and the end is bounded in every case.

    TERM ── drain ──(drain_timeout, second TERM or INT)──▶ stop ──(grace)──▶ cancel ──(grace)──▶ exit 1

Each arrow is taken only when `serve` has not returned before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from qulo import config
from qulo.config import Settings
from qulo.daemon import exits, signals, state
from qulo.daemon.control import Control, Event, Serve
from qulo.daemon.logs import Logs
from qulo.daemon.notify import Notifier
from qulo.errors import ConfigError, FileError, QuloError

log = logging.getLogger(__name__)

# Long enough to close sockets and commit, short enough for an operator who said "now".
STOP_GRACE = 5.0


@dataclass(slots=True)
class Supervisor:
    """One run of one program. `is_ready` afterwards says whether it ever served."""

    serve: Serve
    settings: Settings
    """What runs: after a reload the new values, except those that need a restart."""
    load: Callable[[], Settings]
    logs: Logs
    notifier: Notifier
    told_ready: Callable[[], None]
    token: str | None = None
    beside: Any = None
    """For `Control`; this module knows nothing about it."""
    is_ready: bool = False
    pid_file: str = field(init=False)
    """The one that is locked, whatever a reload says."""
    _control: Control = field(init=False)
    _serving: asyncio.Future[None] = field(init=False)
    _draining: bool = False
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.pid_file = self.settings.pid_file
        self._control = Control(self._ready, self.token, self.beside)

    async def run(self) -> int:
        """Serve until told to end; the exit code. Raises what `serve` raised."""
        loop = asyncio.get_running_loop()
        with signals.listen() as inbox:
            self._serving = asyncio.ensure_future(self.serve(self.settings, self._control))
            obeying = asyncio.create_task(self._obey(inbox), name="signals")
            feeding = asyncio.create_task(self.notifier.feed_watchdog(), name="watchdog")
            try:
                await asyncio.wait({self._serving, obeying}, return_when=asyncio.FIRST_COMPLETED)
                if obeying.done():
                    obeying.result()  # it never returns, so this raises what broke it
                return self._ended()
            finally:
                obeying.cancel()
                feeding.cancel()
                # What is left behind (a task, an executor's thread) must not hold up the end for ever.
                loop.call_later(STOP_GRACE, self._abandon)

    def _ended(self) -> int:
        if self._serving.cancelled():
            log.error("had to be cancelled: it did not stop by itself")
            return exits.FAILED
        self._serving.result()
        if not self.is_ready:
            raise QuloError("stopped before it was ready" if self._draining or self._stopping else "did not serve")
        log.info("stopped")
        return exits.OK

    def _ready(self, addresses: Mapping[str, str]) -> None:
        if not self.is_ready and self._control.settings is not None:
            self.settings = self._control.settings
        state.write(self.pid_file, addresses)
        if not self.is_ready:
            self.told_ready()
            self.is_ready = True
        log.info("ready: %s", ", ".join(f"{name} {address}" for name, address in addresses.items()))
        self.notifier.ready("serving")

    async def _obey(self, inbox: signals.Inbox) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signals.RELOAD: self._reload,
            signals.REOPEN: self._reopen,
            signals.DUMP: lambda: self._control.put(Event("dump")),
            signals.DRAIN: self._drain,
            signals.STOP: lambda: self._stop("SIGINT"),
        }
        while True:
            actions[await inbox.get()]()

    def _reload(self) -> None:
        self.notifier.reloading()
        try:
            new = self.load()
            self.logs.apply(new)
        except (ConfigError, FileError) as error:
            log.error("reload refused, what runs stays as it is: %s", error)
        else:
            self._take_over(new)
        self.notifier.ready("serving")

    def _take_over(self, new: Settings) -> None:
        changes = tuple(config.diff(self.settings, new))
        log.info("reloaded %s: %s", new.path or "the defaults", "changes follow" if changes else "no changes")
        for change in changes:
            log.info("reloaded %s%s", change, ": NEEDS A RESTART" if change.needs_restart else "")
        # Kept as they run, so that the next reload names them again.
        kept: dict[str, Any] = {change.name: change.old for change in changes if change.needs_restart}
        self.settings = replace(new, **kept)
        self._control.put(Event("reload", new, changes))

    def _reopen(self) -> None:
        try:
            self.logs.apply(self.settings)
        except FileError as error:
            log.error("reopen failed, the log stays where it is: %s", error)
        else:
            log.info("log reopened")

    def _drain(self) -> None:
        if self._draining or self._stopping:
            self._stop("a second SIGTERM")
            return
        self._draining = True
        log.info("draining for at most %g s", self.settings.drain_timeout)
        self.notifier.stopping()
        self._control.put(Event("drain"))
        loop = asyncio.get_running_loop()
        loop.call_later(self.settings.drain_timeout, self._stop, "drain_timeout is over")

    def _stop(self, why: str) -> None:
        if self._stopping:
            self._serving.cancel()  # asked for more than once: no more grace
            return
        self._stopping = True
        log.info("stopping now: %s", why)
        self.notifier.stopping()
        self._control.put(Event("stop"))
        loop = asyncio.get_running_loop()
        loop.call_later(STOP_GRACE, self._serving.cancel)
        loop.call_later(2 * STOP_GRACE, self._abandon)

    def _abandon(self) -> None:
        """The last resort: something hangs that neither stops nor can be cancelled."""
        log.critical("does not end: exiting without it")
        state.remove(self.pid_file)
        logging.shutdown()
        os._exit(exits.FAILED)
