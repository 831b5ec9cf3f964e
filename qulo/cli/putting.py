"""Putting, many lines at once: they share the hub's writes to its disk.

It must never say that something is stored before the hub has said so, and what it says is in the order of the messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from qulo.cli import admin, body, hub, source
from qulo.cli.options import note

if TYPE_CHECKING:
    from qulo.client import Bus, Stored

# Lines under way at once: the hub writes to the disk once for all of them.
_WINDOW = 256

# Seconds for the answer without --timeout.
_TIMEOUT = 30.0

# Bytes read at a time from a pipe.
_PIECE = 65536


def put(arguments: argparse.Namespace, headers: dict[str, str] | None) -> None:
    """Put what the command line says, and print where it is. Raises QuloError, OSError or KeyboardInterrupt."""
    asyncio.run((_put_lines if arguments.lines else _put_one)(arguments, headers))


async def _put_one(arguments: argparse.Namespace, headers: dict[str, str] | None) -> None:
    with source.opened(arguments) as file:
        (text,) = source.texts(arguments, file)
    value = _value(arguments, text)  # what is no JSON is said before there is a connection
    async with hub.connecting(arguments) as bus:
        _show(await _put(bus, arguments, value, headers), arguments)


async def _put_lines(arguments: argparse.Namespace, headers: dict[str, str] | None) -> None:
    with source.opened(arguments) as file:
        async with hub.connecting(arguments) as bus:
            under_way: deque[asyncio.Task[Stored]] = deque()
            try:
                async for texts in _lines(file.fileno()):
                    for text in texts:
                        under_way.append(asyncio.create_task(_put(bus, arguments, _value(arguments, text), headers)))
                        while len(under_way) > _WINDOW:
                            _show(await under_way.popleft(), arguments)
                    while under_way and under_way[0].done():
                        _show(await under_way.popleft(), arguments)
                while under_way:
                    _show(await under_way.popleft(), arguments)
            except BaseException as error:
                await _settle(under_way, arguments, isinstance(error, asyncio.CancelledError))
                raise


async def _settle(under_way: deque[asyncio.Task[Stored]], arguments: argparse.Namespace, interrupted: bool) -> None:
    """What was sent is said, or that it was refused too; nothing of it is left without an answer."""
    failed = 0
    for result in await asyncio.gather(*under_way, return_exceptions=True):
        if isinstance(result, BaseException):
            failed += 1
        else:
            _show(result, arguments)
    if failed:
        besides = "" if interrupted else "besides "
        note(f"{failed} that were under way {besides}are refused, or not known to be stored")
    if failed:
        besides = "" if interrupted else "besides "
        note(f"{failed} that were under way {besides}are refused, or not known to be stored")


def _value(arguments: argparse.Namespace, text: bytes) -> Any:
    return body.parse_json(text) if arguments.json else text


async def _put(bus: Bus, arguments: argparse.Namespace, value: Any, headers: dict[str, str] | None) -> Stored:
    return await bus.put(
        arguments.topic,
        value,
        headers,
        id=arguments.id,
        delay=arguments.delay,
        ttl=arguments.ttl,
        require=arguments.require,
        timeout=arguments.timeout or _TIMEOUT,
    )


async def _lines(fd: int) -> AsyncIterator[list[bytes]]:
    """The lines of a file or pipe, those together that are there together."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue(1)

    def read() -> None:
        # In a thread that nobody waits for: a terminal may stay silent for ever after Ctrl-C.
        piece: bytes | OSError = b"-"
        while piece and not isinstance(piece, OSError):
            try:
                piece = os.read(fd, _PIECE)
            except OSError as error:
                piece = error
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, CancelledError):  # the loop has ended meanwhile
                return

    threading.Thread(target=read, name="reads lines", daemon=True).start()
    rest = b""
    while piece := await pieces.get():
        if isinstance(piece, OSError):
            raise piece
        *whole, rest = (rest + piece).split(b"\n")
        yield [line.rstrip(b"\r") for line in whole]
    if rest:
        yield [rest.rstrip(b"\r")]


def _show(stored: Stored, arguments: argparse.Namespace) -> None:
    if arguments.json:
        admin.show_json(stored._asdict())
    elif stored.at == "agent":
        print(f"{arguments.topic} at agent: on this host's disk until the master is back")
    else:
        print(f"{stored.stream} {stored.seq}{' (duplicate)' if stored.duplicate else ''}")
    sys.stdout.flush()
