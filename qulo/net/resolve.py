"""Names to addresses, without stopping anybody: neither the event loop nor libzmq's I/O thread waits for a resolver.

libzmq resolves the name given to `connect` in the one thread that moves all its sockets' data, and asyncio's own
resolver thread would keep a program from ending. Here a lookup that takes long only makes its link wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading

Address = tuple[socket.AddressFamily, str]


def is_numeric(host: str) -> bool:
    """Is it an address already?"""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return True
    return False


async def resolve(host: str) -> list[str]:
    """The addresses of `host`, those of IPv4 first. Raises OSError with what the resolver said."""
    if is_numeric(host):
        return [host]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str], error: OSError | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def look_up() -> None:
        found: list[Address] = []
        problem: OSError | None = None
        try:
            found = [(each[0], str(each[4][0])) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            problem = error if isinstance(error, OSError) else OSError(str(error))
        addresses = [address for _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET)]
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(tell, addresses, problem)

    # A daemon: a resolver that hangs must not keep the program from ending.
    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    return await answer
