"""The socket that pushes: everything comes, in order, and nothing that happens in a handler stops it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq
import zmq.asyncio

from qulo.errors import EndpointError
from qulo.net.socket import (
    DRAIN,
    Socket,
    make_context,
    open_socket,
    receive_bytes,
    receive_routed,
)
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import until

HIGH_WATER = 1000
SIZE = 65_536


@contextlib.asynccontextmanager
async def pair(kind: int = zmq.PAIR, other: int = zmq.PAIR) -> AsyncIterator[tuple[Socket, Socket]]:
    """Two sockets, the second connected to the first over TCP. A context that cannot end hangs, and so fails."""
    context = make_context()
    here = open_socket(context, kind, HIGH_WATER, SIZE)
    there = open_socket(context, other, HIGH_WATER, SIZE)
    there.connect(here.bind_or_explain("tcp://127.0.0.1:0"))
    try:
        yield here, there
    finally:
        here.close(0)
        there.close(0)
        context.term()


async def reached(got: list[bytes], count: int) -> None:
    """Wait until so many frames have come."""
    await until(lambda: len(got) >= count)


def nothing() -> None:
    """After a turn there is nothing to do."""


def fill(sock: Socket) -> None:
    """Send until there is no room: the loop does not run meanwhile, so nobody reads."""
    for _ in range(200_000):
        sock.push(b"x" * 60_000)


def push(sock: Socket, *parts: bytes) -> None:
    """Send as the drivers do."""
    sock.push(*parts)
    sock.recheck()


def test_frames_come_in_order_and_each_turn_ends_with_after() -> None:
    async def story() -> None:
        got: list[bytes] = []
        turns: list[int] = []
        async with pair() as (here, there):
            here.start(receive_bytes, got.append, lambda: turns.append(len(got)))
            there.start(receive_bytes, got.append, nothing)
            for number in range(500):
                push(there, b"%d" % number)
            await until(lambda: len(got) == 500)
            assert got == [b"%d" % number for number in range(500)]
            assert turns[-1] == 500
            assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= DRAIN

    _run(story())


def test_what_came_before_start_is_handed_over_too() -> None:
    async def story() -> None:
        got: list[bytes] = []
        async with pair() as (here, there):
            there.start(receive_bytes, got.append, nothing)
            push(there, b"early")
            await until(lambda: here._shadow_sock.poll(0))
            here.start(receive_bytes, got.append, nothing)
            await until(lambda: got == [b"early"])

    _run(story())


class _Rally:
    """A ball that goes to and fro, while a timer sends over the same sockets."""

    def __init__(self, here: Socket, there: Socket, rounds: int) -> None:
        self.here, self.there, self.rounds = here, there, rounds
        self.balls = self.beats = self.sent = 0
        self._loop = asyncio.get_running_loop()
        here.start(receive_bytes, self._here, here.recheck)
        there.start(receive_bytes, self._there, there.recheck)

    def _here(self, frame: bytes) -> None:
        self.balls += 1
        if self.balls < self.rounds:
            self.here.push(b"ball")

    def _there(self, frame: bytes) -> None:
        self.beats += frame == b"beat"
        if frame == b"ball":
            self.there.push(b"ball")

    def beat(self) -> None:
        """A send from outside a turn, after a busy moment: it swallows the wake-up of the ball that came meanwhile.

        (libzmq looks for news at a send only when a millisecond has passed.) Nothing answers it, so that nothing
        else would wake this side up again.
        """
        if self.balls < self.rounds:
            busy = time.perf_counter() + 0.002
            while time.perf_counter() < busy:
                pass
            push(self.here, b"beat")
            self.sent += 1
            self._loop.call_later(0.002, self.beat)


def test_no_wake_up_is_lost_when_sends_come_in_between() -> None:
    async def story() -> None:
        async with pair() as (here, there):
            rally = _Rally(here, there, 10_000)
            push(there, b"ball")
            await until(lambda: rally.balls)  # before that `here` has nobody to send to
            rally.beat()
            await until(lambda: rally.balls == rally.rounds and rally.beats == rally.sent, 20)
            assert rally.sent > 100

    _run(story())


def test_an_exception_in_a_handler_is_reported_and_does_not_stop_it() -> None:
    async def story() -> None:
        got: list[bytes] = []
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what["exception"]))

        def handle(frame: bytes) -> None:
            if frame == b"bad":
                raise ValueError("on purpose")
            got.append(frame)

        async with pair() as (here, there):
            here.start(receive_bytes, handle, nothing)
            there.start(receive_bytes, got.append, nothing)
            for number in range(100):
                push(there, b"bad" if number % 10 == 0 else b"good")
            await until(lambda: len(got) == 90)
            assert [type(error) for error in reported] == [ValueError] * 10

    _run(story())


def test_an_exception_after_a_turn_does_not_stop_it_either() -> None:
    async def story() -> None:
        got: list[bytes] = []
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what["exception"]))

        def fail() -> None:
            raise ValueError("on purpose")

        async with pair() as (here, there):
            here.start(receive_bytes, got.append, fail)
            there.start(receive_bytes, got.append, nothing)
            for number in range(3):
                push(there, b"%d" % number)
                await reached(got, number + 1)
            assert reported

    _run(story())


def test_a_handler_may_close_its_own_socket() -> None:
    async def story() -> None:
        got: list[bytes] = []
        async with pair() as (here, there):

            def handle(frame: bytes) -> None:
                got.append(frame)
                here.close(0)

            here.start(receive_bytes, handle, here.recheck)
            there.start(receive_bytes, got.append, nothing)
            push(there, b"1")
            push(there, b"2")
            await until(lambda: here.closed)
            assert got == [b"1"]

    _run(story())


def test_a_router_takes_messages_of_one_part_only() -> None:
    async def story() -> None:
        got: list[tuple[bytes, zmq.Frame, bool]] = []
        async with pair(zmq.ROUTER, zmq.DEALER) as (router, dealer):
            router.start(receive_routed, got.append, nothing)
            dealer.start(receive_bytes, got.append, nothing)
            for parts in ((b"good",), (b"a", b"b"), (b"",), (b"",) * 50, (b"", b"good"), (b"good",)):
                push(dealer, *parts)
            await until(lambda: len(got) == 6)
            assert [frame.bytes if alone else None for _, frame, alone in got] == [
                b"good",
                None,
                b"",
                None,
                None,
                b"good",
            ]
            assert len({route for route, _, _ in got}) == 1

    _run(story())


def test_push_says_whether_a_peer_is_gone_or_full() -> None:
    async def story() -> None:
        async with pair(zmq.ROUTER, zmq.DEALER) as (router, dealer):
            router.set(zmq.ROUTER_MANDATORY, 1)
            router.start(receive_routed, lambda _: None, nothing)
            with pytest.raises(zmq.ZMQError) as nobody:
                router.push(b"nobody", b"x")
            assert router.is_gone(nobody.value)
            dealer.start(receive_bytes, lambda _: None, nothing)
            with pytest.raises(zmq.Again) as full:
                fill(dealer)
            assert not dealer.is_gone(full.value)
            assert full.value.errno == errno.EAGAIN

    _run(story())


def test_an_address_that_is_taken_is_named_with_the_likely_reason() -> None:
    async def story() -> None:
        async with pair() as (here, _):
            endpoint = here._shadow_sock.get(zmq.LAST_ENDPOINT).decode().rstrip("\0")  # type: ignore[union-attr]
            context = make_context()
            other = open_socket(context, zmq.ROUTER, HIGH_WATER, SIZE)
            with pytest.raises(EndpointError, match=f"{endpoint} is in use: is another hub running there"):
                other.bind_or_explain(endpoint)
            assert other.closed
            context.term()

    _run(story())


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:0", "tcp://nonsense", "ipc:///none/such/socket", "udp://x"])
def test_an_address_that_cannot_be_bound_is_named_with_the_reason(endpoint: str) -> None:
    async def story() -> None:
        context = make_context()
        sock = open_socket(context, zmq.ROUTER, HIGH_WATER, SIZE)
        with pytest.raises(EndpointError, match=f"cannot listen on {endpoint}: "):
            sock.bind_or_explain(endpoint)
        assert sock.closed
        context.term()

    _run(story())
