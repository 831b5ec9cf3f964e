"""What a role's `serve` sees of its daemon: it says when it is ready, and reads what it is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qulo.config import Change, Settings


@dataclass(frozen=True, slots=True)
class Event:
    """Something the daemon is asked to do.

    reload  `settings` are valid and new, `changes` is what differs from what runs; take over the live ones
    dump    write the state to the log
    drain   take nothing new, finish what is under way, then return; "stop" follows when that takes too long
    stop    return now; the last event there is
    """

    kind: Literal["reload", "dump", "drain", "stop"]
    settings: Settings | None = None
    changes: tuple[Change, ...] = ()


class Control:
    """Iterate over it for events: `async for event in control`. It ends after "stop"."""

    def __init__(
        self, on_ready: Callable[[Mapping[str, str]], None], token: str | None = None, beside: Any = None
    ) -> None:
        self.token = token
        """What `--join` was given."""
        self.beside = beside
        """What the program's `beside` returned: it was made with the privileges that are gone by now."""
        self.settings: Settings | None = None
        """Set by the role when it learned, while it started, what the configuration will say from now on."""
        self._on_ready = on_ready
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._over = False

    def ready(self, addresses: Mapping[str, str]) -> None:
        """Everything is bound, at `addresses` (name to address, or what else `-s status` shall say).

        Call it again when they change. Whoever started the daemon is told now, so nothing that can fail may be left
        to do. Raises FileError when the state file cannot be written, QuloError when whoever started it is gone.
        """
        self._on_ready(addresses)

    def put(self, event: Event) -> None:
        """The runner's side."""
        self._events.put_nowait(event)

    def fail(self, error: Exception) -> None:
        """The role's own: something that it cannot go on without has failed. The iteration raises it."""
        self._events.put_nowait(error)

    def __aiter__(self) -> Control:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        self._over = event.kind == "stop"
        return event


Serve = Callable[[Settings, Control], Awaitable[None]]
"""A role: bind, `control.ready(...)`, then `async for event in control`; return when done."""
