"""A connection as the peers use it, and what counts the messages; each side adapts its library to it.

Nothing here or in a side may add work per message for one system that the other does not have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from benchmarks.cases import Style
from benchmarks.jobs import Endpoint


class Tally:
    """Counts what one subscriber is given; `last_ns` is when the count was complete."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.count = 0
        self.gaps = 0
        self.last_ns: int | None = None
        self.done = asyncio.Event()

    def add(self, _message: object) -> None:
        """Count one message."""
        self.count += 1
        if self.count == self.expected:
            self.finish()

    def finish(self) -> None:
        """Note that the count is complete; whoever counts without `add` calls it once, at `expected`."""
        self.last_ns = time.monotonic_ns()
        self.done.set()

    def add_gap(self, _gap: object) -> None:
        """Count one report of a loss."""
        self.gaps += 1


class Client(Protocol):
    """One connection, as the peers use it. `publish` and `request` are the library's own, unwrapped."""

    publish: Callable[[str, bytes], Awaitable[object]]
    flush: Callable[[], Awaitable[object]]
    body_of: Callable[[Any], bytes]

    async def pause(self) -> None:
        """Between bursts of publishes: whatever flow control is the caller's own duty."""

    async def request(self, topic: str, body: bytes, *, timeout: float) -> Any:
        """One request; `body_of` takes the body from the answer."""

    def counting(self, pattern: str, style: Style, tally: Tally) -> AbstractAsyncContextManager[object]:
        """Give every message on `pattern` to `tally`; entered once the server knows the subscription."""

    def echoing(self, topic: str) -> AbstractAsyncContextManager[object]:
        """Answer every request on `topic` with its own body; entered once the server knows."""


class StreamClient(Client, Protocol):
    """The same, where the server keeps streams."""

    async def make_stream(self, topic: str) -> None:
        """A stream that stores the topic."""

    async def put_all(self, topic: str, body: bytes, count: int, in_flight: int) -> None:
        """Put so many, each acknowledged, `in_flight` at a time, the fastest way the library has."""

    async def consume_all(self, topic: str, count: int, push: bool) -> None:
        """Take and acknowledge so many."""


class ClientModule(Protocol):
    """What `qulo_side` and `nats_side` offer."""

    def connect(self, endpoint: Endpoint) -> AbstractAsyncContextManager[StreamClient]:
        """A connected client."""
