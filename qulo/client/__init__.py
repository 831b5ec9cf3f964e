"""The client: `connect()` gives a Bus, over which a program publishes, subscribes, requests and responds.

    async with qulo.connect() as bus:
        async with bus.subscribe("sensors.>") as sub:
            await bus.publish("sensors.kitchen", {"t": 21.5})
            async for msg in sub: ...

Everything lives in one event loop; the blocking front for other programs is `qulo.sync`. A Bus reconnects by
itself. What that cost is never silent: subscribers get a `Gap` in place, `flush` raises OutcomeUnknown.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qulo import config
from qulo.client import joined
from qulo.client.bus import CLOSE_TIMEOUT, Bus, Options
from qulo.client.message import Handler, Message, decode_body, encode_body
from qulo.client.registered import Registered, Responder, Subscription
from qulo.client.streams import Consumer, Delivery, Stored, StoredMessage
from qulo.errors import UsageError
from qulo.net import curve
from qulo.net.link import Security
from qulo.protocol.ports import Limits

__all__ = [
    "CLOSE_TIMEOUT",
    "CONNECT_TIMEOUT",
    "SUBSCRIPTION_BUFFER",
    "Bus",
    "Consumer",
    "Delivery",
    "Handler",
    "Message",
    "Registered",
    "Responder",
    "Stored",
    "StoredMessage",
    "Subscription",
    "connect",
    "decode_body",
    "encode_body",
]

# Bytes of bodies that wait in one subscription for a slow program; beyond it newer ones become a Gap in place.
SUBSCRIPTION_BUFFER = 64 * 1024 * 1024

# Seconds that `connect` waits for the first session.
CONNECT_TIMEOUT = 5.0


def _urls(url: str | None) -> tuple[str, ...]:
    urls = url.split(",") if url else config.client_urls(os.environ, os.geteuid())
    for each in urls:
        if not each.startswith(("tcp://", "ipc://")):
            raise UsageError(f"{each!r} is not an address: tcp://HOST:PORT or ipc:///PATH is expected")
    return tuple(urls)


def _security(server_key: str | Path | None, key: str | Path | None) -> Security | None:
    if server_key is None:
        return None
    if key is None:
        raise UsageError("server_key needs key: the path of this program's own secret key file")
    return Security(curve.load_public(server_key), curve.load_key(key))


def _default_name(program: str) -> str:
    """PROGRAM-PID.HOST in the characters that names may have."""
    stem = program.removesuffix(".py").strip("-.") or "python"
    text = f"{stem}-{os.getpid()}.{socket.gethostname().partition('.')[0]}".lower()
    return re.sub(r"[^a-z0-9._-]", "-", text)[:64]


def connect(  # noqa: PLR0913 - keywords, each with a default
    url: str | None = None,
    *,
    name: str | None = None,
    timeout: float | None = CONNECT_TIMEOUT,
    server_key: str | Path | None = None,
    key: str | Path | None = None,
    on_state: Callable[[str], Any] | None = None,
    subscription_buffer: int = SUBSCRIPTION_BUFFER,
) -> Bus:
    """A Bus, to be entered with `async with`.

    Without `url`: the addresses in QULO_URL, else this host's own agent, else the hub that this user has joined
    (`qulo join`). `url` may be several with commas between them. `timeout` seconds for the first connection, None
    to go on without waiting for it. `server_key` and `key` are files, for a hub with `curve: on`. `name` is shown
    by `qulolist`.
    """
    program = Path(sys.argv[0] or "python").name[:64]
    name = name or _default_name(program)
    urls, security, key_changed = _urls(url), _security(server_key, key), None
    if url is None and security is None and (hub := joined.load()) is not None:
        if not os.environ.get("QULO_URL"):
            urls += hub.addresses
        if set(hub.addresses) & set(urls):  # for another hub this key would be the wrong one
            security, key_changed = hub.security, joined.keep_key
    return Bus(Options(urls, name, program, timeout, security, on_state, subscription_buffer, Limits(), key_changed))
