"""A network between a program and its hub that can fail: cut, pause, or swallow everything in silence.

    async with Proxy(site.url("m"), site.addresses("m")["publish"]) as proxy:
        async with qulo.connect(proxy.url) as bus: ...

It listens on another loopback address with the hub's own ports, because a link finds the hub's PUB by its port on
the host that it dialled: so both of its connections go through here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Self

# Any address in 127.0.0.0/8 is this host's.
HOST = "127.0.0.2"

_PIECE = 65_536


class Proxy:
    """Forwards TCP. `cut` what is connected now, `pause` and `resume` everything, or `swallow` what comes."""

    def __init__(self, *endpoints: str) -> None:
        self.url = _here(endpoints[0])
        self.accepted = 0  # connections so far
        self._endpoints = endpoints
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._swallowed: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def __aenter__(self) -> Self:
        for endpoint in self._endpoints:
            port = int(endpoint.rpartition(":")[2])

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
                self._spawn(self._accept(reader, writer, port))

            self._servers.append(await asyncio.start_server(accept, HOST, port))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.cut()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Reset every connection; what is on its way is lost."""
        for writer in self._writers:
            writer.transport.abort()

    def pause(self) -> None:
        """Forward nothing until `resume`; new connections are accepted, and wait."""
        self._open.clear()

    def resume(self) -> None:
        """Forward again, what waited first."""
        self._open.set()

    def swallow(self) -> None:
        """From now on what comes over the connections of now goes nowhere, and nobody is told: half-open."""
        self._swallowed |= self._writers

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self.accepted += 1
        self._writers.add(writer)
        await self._open.wait()
        try:
            there, out = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()  # the hub is away
            return
        self._writers.add(out)
        if writer.transport.is_closing():
            out.transport.abort()  # cut meanwhile
        self._spawn(self._forward(reader, out))
        self._spawn(self._forward(there, writer))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(_PIECE):
                await self._open.wait()
                if sink not in self._swallowed:
                    sink.write(piece)
                    await sink.drain()
        if sink not in self._swallowed:
            sink.close()


def _here(endpoint: str) -> str:
    return f"tcp://{HOST}:{endpoint.rpartition(':')[2]}"
