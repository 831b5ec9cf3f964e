"""What a supervisor is told over NOTIFY_SOCKET, by sd_notify(3)'s protocol; without one, nothing.

It must never stop the daemon: a supervisor that does not listen is logged, not raised.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """The supervisor, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        own = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "") if own else ""
        # Half of the limit, as sd_watchdog_enabled(3) recommends.
        self._interval = int(microseconds) / 2_000_000 if microseconds.isdigit() else 0.0

    def ready(self, status: str) -> None:
        """The daemon serves, or serves on after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. Type=notify-reload wants to know when."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    async def feed_watchdog(self) -> None:
        """Feed the watchdog from the loop, so that a loop that hangs is noticed. Runs until cancelled."""
        while self._interval:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._interval)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as supervisor:
                supervisor.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("the supervisor at NOTIFY_SOCKET does not listen: %s", error.strerror)
