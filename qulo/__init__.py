"""qulo: messaging for the programs on your hosts. Start with `connect`; `qulo.sync.connect` is the blocking one."""

from qulo import errors
from qulo._version import __version__
from qulo.client import Bus, Message, Responder, Subscription, connect
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
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    QuloError,
    RequestError,
    ResponderLost,
    TooLarge,
)
from qulo.protocol.tracker import Gap

__all__ = [
    "BadBody",
    "BadTopic",
    "BadVersion",
    "Bus",
    "DeadlineExceeded",
    "Denied",
    "Disconnected",
    "EndpointError",
    "Gap",
    "HandlerError",
    "Message",
    "NoResponders",
    "OutcomeUnknown",
    "Overloaded",
    "ProtocolError",
    "QuloError",
    "RequestError",
    "Responder",
    "ResponderLost",
    "Subscription",
    "TooLarge",
    "__version__",
    "connect",
    "errors",
]
