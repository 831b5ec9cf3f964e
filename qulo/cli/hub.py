"""The connection that every verb needs, made of the global options."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qulo.sync import Bus

# Seconds for the first session without --timeout: a hub on this host takes milliseconds, a far one less than
# a second, and nobody wants to look at a silent terminal for longer.
CONNECT_TIMEOUT = 2.0


def connect(arguments: argparse.Namespace) -> Bus:
    """A connected Bus, to be used in a `with`. Raises EndpointError, Denied, ConfigError or UsageError."""
    logging.basicConfig(format="qulo: %(message)s")  # the client's warnings, when a connection is lost for example
    from qulo import sync  # noqa: PLC0415 - ZeroMQ is loaded by what talks to a hub only

    return sync.connect(
        arguments.url,
        timeout=arguments.timeout or CONNECT_TIMEOUT,
        server_key=arguments.server_key,
        key=arguments.key,
    )
