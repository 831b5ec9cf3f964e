"""Hubs on real sockets inside the test's own loop: a master, agents under it, and buses on any of them.

    async with Site(tmp_path) as site:
        await site.start("m"); await site.start("a", under="m")
        async with site.bus("a") as bus: ...

Every hub is a `net.service.Service` made from a real configuration file. Ports are the kernel's choice and kept
over a restart. Leaving the site closes everything; a context that cannot end makes the test fail.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import qulo
from qulo import config
from qulo.net.service import Service
from qulo.protocol.storage import Store
from qulo.store import open_store

# Fast enough that a test of silence takes a second, slow enough for a busy machine.
HEARTBEAT = "300ms"


async def until(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until `condition()` is true, and return it; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout:g} s: {condition}")
        await asyncio.sleep(0.005)
    return result


class Site:
    """Some hubs of one test."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: a unix socket's path is limited to 108 bytes.
        self.path = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
        self.services: dict[str, Service] = {}
        self._addresses: dict[str, dict[str, str]] = {}
        self._under: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self.open_store: Callable[[config.Settings], Store] = open_store
        self.failures: dict[str, list[qulo.QuloError]] = {}
        """By hub, what its store failed with."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for name in reversed(list(self.services)):
            await self.stop(name)
        shutil.rmtree(self.path)

    async def start(self, name: str, under: str | None = None, **keys: str) -> Service:
        """Start hub `name`: a master, or an agent `under` another hub; `keys` are configuration keys."""
        service = await self._listen(name, under, keys)
        if self._under[name]:
            service.dial()
            await until(lambda: service.connected)
        return service

    async def start_agent(self, name: str, under: str, token: str | None, **keys: str) -> Service:
        """Start an agent that joins with a token, or without one is not waited for."""
        service = await self._listen(name, under, keys)
        if token is not None:
            await service.join(token)
        service.dial()
        if token is not None:
            await until(lambda: service.connected)
        return service

    async def _listen(self, name: str, under: str | None, keys: dict[str, str]) -> Service:
        self._under[name] = under or self._under.get(name, "")
        program = "qagent" if self._under[name] else "qmaster"
        ports = self._addresses.get(name, {"listen": "tcp://127.0.0.1:0", "publish": "tcp://127.0.0.1:0"})
        settings: dict[str, str] = {
            "local": f"ipc://{self.path}/{name}.sock",
            "data_dir": f"{self.path}/{name}",
            "pid_file": f"{self.path}/{name}.pid",
            "log_file": f"{self.path}/{name}.log",
            "listen": ports["listen"],
            "publish": ports["publish"],
            "heartbeat": HEARTBEAT,
            "curve": "off",
            **keys,
        }
        if program == "qagent":
            settings |= {"name": name, "master": self._addresses[self._under[name]]["listen"]}
        file = self.path / f"{name}.yaml"
        file.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
        loaded = config.load(program, str(file), environ={}, uid=0)
        failures = self.failures.setdefault(name, [])
        service = Service(loaded, qulo.__version__, partial(self.open_store, loaded), failures.append)
        self.services[name] = service
        await service.keep()
        service.listen()
        self._addresses[name] = dict(service.addresses)
        return service

    async def stop(self, name: str) -> None:
        """Close a hub; `start` it again under the same name, and it has the same addresses."""
        await self.services.pop(name).close()

    def url(self, name: str, local: bool = False) -> str:
        """Where programs connect to hub `name`: its ipc socket for an agent, or with `local`; else its TCP port."""
        return self._addresses[name]["local" if local or self._under[name] else "listen"]

    def bus(self, hub: str, local: bool = False, **options: Any) -> qulo.Bus:
        """A program on hub `hub`."""
        return qulo.connect(self.url(hub, local), **options)
