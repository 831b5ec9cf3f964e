"""Every error qulo raises, in one tree.

    QuloError
    ├── UsageError            ours: the caller's argument; nothing was sent
    │   ├── BadTopic
    │   ├── BadBody
    │   └── TooLarge
    ├── ConfigError           a file or value that the operator has to mend
    ├── EndpointError         an address that cannot be bound or reached
    ├── FileError             a file or directory that cannot be made or used
    ├── ProtocolError         theirs: a peer broke the protocol; at most its session ends
    ├── Refused               the hub answered no to a session or a subscription
    │   ├── Denied
    │   ├── BadVersion
    │   ├── Overloaded
    │   ├── NoStream
    │   └── StoreFull
    ├── StoreFailed           the disk or its engine failed: the outcome of what was under way is unknown
    ├── Disconnected          no hub: the outcome of what was under way is unknown
    ├── OutcomeUnknown        a hub died with messages it had not acknowledged
    └── RequestError          a request that has no good answer
        ├── NoResponders
        ├── DeadlineExceeded  (also a TimeoutError)
        ├── ResponderLost
        └── HandlerError      the responder's handler raised; carries its type and text

`code` is what travels on the wire and what scripts may compare; codes never change their meaning.
A docstring's first line is the default text of its error.
"""

from __future__ import annotations

from typing import ClassVar


class QuloError(Exception):
    """Something went wrong in qulo."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])


class UsageError(QuloError):
    """The call cannot be carried out as it was made; nothing was sent."""

    code = "usage"


class BadTopic(UsageError):
    """A topic is dot-separated tokens of visible characters, at most 255 bytes."""

    code = "bad-topic"


class BadBody(UsageError):
    """A body is bytes or any value msgpack can hold."""

    code = "bad-body"


class TooLarge(UsageError):
    """The message is larger than the hub's max_message."""

    code = "too-large"


class ConfigError(QuloError):
    """The configuration is not valid."""

    code = "config"

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str | None = None,
    ) -> None:
        self.message, self.file, self.line, self.column, self.key = message, file, line, column, key
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(": ".join(part for part in (place, key, message) if part))


class EndpointError(QuloError):
    """The address cannot be used."""

    code = "endpoint"


class FileError(QuloError):
    """The file cannot be made or used."""

    code = "file"


class ProtocolError(QuloError):
    """A peer sent something that is not the protocol."""

    code = "protocol"


class Refused(QuloError):
    """The hub refused."""

    code = "refused"


class Denied(Refused):
    """The hub does not allow this to this principal."""

    code = "denied"


class BadVersion(Refused):
    """The hub speaks another version of the protocol; install matching versions on both sides."""

    code = "version"


class Overloaded(Refused):
    """A limit of the hub is reached; try again later or raise the limit."""

    code = "overloaded"


class NoStream(Refused):
    """There is no such stream or group, or none that stores this topic."""

    code = "no-stream"


class StoreFull(Refused):
    """The store has reached its quota, or the disk is full; what is stored can still be read and acknowledged."""

    code = "store-full"


class StoreFailed(QuloError):
    """The store failed; whether what was under way is stored is unknown until it has been restarted."""

    code = "store-failed"


class Disconnected(QuloError):
    """There is no connection to the hub; the outcome of what was under way is unknown."""

    code = "disconnected"


class OutcomeUnknown(QuloError):
    """The hub restarted before it acknowledged these messages; they may or may not have arrived."""

    code = "unknown"


class RequestError(QuloError):
    """The request has no answer."""

    code = "request"


class NoResponders(RequestError):
    """Nobody answers requests on this topic."""

    code = "no-responders"


class DeadlineExceeded(RequestError, TimeoutError):
    """No answer came before the deadline."""

    code = "deadline"


class ResponderLost(RequestError):
    """The responder's connection ended before it answered; the outcome is unknown."""

    code = "responder-lost"


class HandlerError(RequestError):
    """The responder's handler raised an exception."""

    code = "handler"


def _tree(cls: type[QuloError]) -> list[type[QuloError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _tree(child))]


# ConfigError is never sent: it has a place, not a code that a peer could use.
BY_CODE: dict[str, type[QuloError]] = {cls.code: cls for cls in _tree(QuloError) if cls is not ConfigError}


def from_wire(code: str, text: str) -> QuloError:
    """The error that a peer answered with; an unknown code becomes a plain QuloError that names it."""
    cls = BY_CODE.get(code)
    return cls(text) if cls else QuloError(f"{code}: {text}")
