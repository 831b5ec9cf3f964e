"""The connection that every verb needs, made of the global options."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qulo import plain

if TYPE_CHECKING:
    from qulo import client
    from qulo.sync import Bus

# Seconds for the first session without --timeout: a hub on this host takes milliseconds, a far one less than
# a second, and nobody wants to look at a silent terminal for longer.
CONNECT_TIMEOUT = 2.0


class _Line(logging.Formatter):
    """A warning, with nothing in it that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return f"qulo: {plain.shown(record.getMessage())}"


def connect(arguments: argparse.Namespace, hubs: Sequence[str] = ()) -> Bus:
    """A connected Bus, to be used in a `with`. Raises EndpointError, Denied, ConfigError or UsageError.

    Without an address: what `qulo.connect` finds, or the first of these `hubs` (master, agent) on this host.
    """
    from qulo import sync  # noqa: PLC0415 - ZeroMQ is loaded by what talks to a hub only

    return sync.connect(_url(arguments, hubs), **_given(arguments))


def connecting(arguments: argparse.Namespace) -> client.Bus:
    """The same for a verb with an event loop, to be entered with `async with`."""
    from qulo import client  # noqa: PLC0415 - as above

    return client.connect(_url(arguments), **_given(arguments))


def _url(arguments: argparse.Namespace, hubs: Sequence[str] = ()) -> str | None:
    from qulo import config  # noqa: PLC0415 - as above, for YAML

    if arguments.url is None and hubs:
        return ",".join(config.client_urls(os.environ, os.geteuid(), hubs))
    url: str | None = arguments.url
    return url


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    handler = logging.StreamHandler()  # the client's warnings, when a connection is lost for example
    handler.setFormatter(_Line())
    logging.basicConfig(handlers=[handler])
    return {
        "timeout": arguments.timeout or CONNECT_TIMEOUT,
        "server_key": arguments.server_key,
        "key": arguments.key,
    }
