"""qulo: messaging for the programs on your hosts. Start with `connect`, or the blocking `qulo.sync.connect`.

The names are loaded when they are first used (PEP 562), so that `qulo --version` need not load ZeroMQ.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qulo._version import __version__

if TYPE_CHECKING:
    from qulo import errors, sync
    from qulo.client import Bus, Consumer, Delivery, Message, Responder, Stored, StoredMessage, Subscription, connect
    from qulo.errors import (
        BadBody,
        BadTopic,
        BadVersion,
        DeadlineExceeded,
        Denied,
        Disconnected,
        EndpointError,
        HandlerError,
        NoResponders,
        NoStream,
        OutcomeUnknown,
        Overloaded,
        ProtocolError,
        QuloError,
        RequestError,
        ResponderLost,
        StoreFailed,
        StoreFull,
        TooLarge,
    )
    from qulo.protocol.tracker import Gap

__all__ = [
    "BadBody",
    "BadTopic",
    "BadVersion",
    "Bus",
    "Consumer",
    "DeadlineExceeded",
    "Delivery",
    "Denied",
    "Disconnected",
    "EndpointError",
    "Gap",
    "HandlerError",
    "Message",
    "NoResponders",
    "NoStream",
    "OutcomeUnknown",
    "Overloaded",
    "ProtocolError",
    "QuloError",
    "RequestError",
    "Responder",
    "ResponderLost",
    "StoreFailed",
    "StoreFull",
    "Stored",
    "StoredMessage",
    "Subscription",
    "TooLarge",
    "__version__",
    "connect",
    "errors",
    "sync",
]

_MODULES = ("errors", "sync")
_CLIENT = (
    *("Bus", "Consumer", "Delivery", "Message", "Responder", "Stored", "StoredMessage", "Subscription", "connect"),
)


def _home(name: str) -> str:
    """The module that a public name lives in; every name that is nowhere else is an error's."""
    if name in _CLIENT:
        return "qulo.client"
    return "qulo.protocol.tracker" if name == "Gap" else "qulo.errors"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'qulo' has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"qulo.{name}")
    value = getattr(importlib.import_module(_home(name)), name)
    globals()[name] = value  # asked only once
    return value


def __dir__() -> list[str]:
    return __all__
