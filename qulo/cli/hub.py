"""The connection that every verb needs, made of the global options."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qulo.sync import Bus

# Seconds for the first session without --timeout: a hub on this host takes milliseconds, a far one less than
# a second, and nobody wants to look at a silent terminal for longer.
CONNECT_TIMEOUT = 2.0


def connect(arguments: argparse.Namespace, hubs: Sequence[str] = ()) -> Bus:
    """A connected Bus, to be used in a `with`. Raises EndpointError, Denied, ConfigError or UsageError.

    Without an address: what `qulo.connect` finds, or the first of these `hubs` (master, agent) on this host.
    """
    logging.basicConfig(format="qulo: %(message)s")  # the client's warnings, when a connection is lost for example
    from qulo import config, sync  # noqa: PLC0415 - ZeroMQ is loaded by what talks to a hub only

    url = arguments.url
    if url is None and hubs:
        url = ",".join(config.client_urls(os.environ, os.geteuid(), hubs))
    return sync.connect(
        url,
        timeout=arguments.timeout or CONNECT_TIMEOUT,
        server_key=arguments.server_key,
        key=arguments.key,
    )
