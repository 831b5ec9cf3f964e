"""What the verbs about streams share: asking the site's authority, page by page, and showing what a stream has.

What it shows was put by other programs: nothing of it may reach the terminal as more than text.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qulo.cli import admin, body
from qulo.errors import DeadlineExceeded, NoResponders, QuloError, UsageError

if TYPE_CHECKING:
    from qulo.client import Message
    from qulo.sync import Bus

# docs/streams.md; not imported from where they are answered, which loads what a command line without a hub does not
# need.
STREAM = "$qulo.stream"

# Seconds for an answer without --timeout: a purge or a removal may have to wait for the disk.
TIMEOUT = 10.0


def ask(bus: Bus, arguments: argparse.Namespace, verb: str, argument: Mapping[str, Any]) -> Any:
    """The answer of the site's authority. Raises what it answered with, in words that say what to do."""
    topic = verb if verb.startswith("$") else f"{STREAM}.{verb}"
    timeout = arguments.timeout or TIMEOUT
    try:
        return bus.request(topic, argument, timeout=timeout)
    except NoResponders:
        raise NoResponders(
            f"nobody answers about streams: the master that {bus.url} belongs to is away (`qulolist --local` says so), "
            "or keeps none"
        ) from None
    except DeadlineExceeded:
        raise DeadlineExceeded(
            f"no answer within {timeout:g} s: is the master there (`qulolist --local`)? --timeout waits longer"
        ) from None


def answer_map(answer: Any) -> dict[str, Any]:
    """An answer that has to be a map. Raises QuloError."""
    if not isinstance(answer, dict):
        raise QuloError("the hub's answer is not one: do the versions match?")
    return answer


def read(bus: Bus, arguments: argparse.Namespace, argument: dict[str, Any]) -> Iterator[Row]:
    """What a stream has, from where `argument` says to its end; page by page, so that nothing large is held.

    `argument` says then where that was: asked again, it goes on from there.
    """
    while True:
        page = answer_map(ask(bus, arguments, "read", argument))
        for number, topic, kind, data, time_ms in page["messages"]:
            yield Row(number, topic, kind, data, time_ms / 1000)
        argument.pop("since", None)
        argument["after"] = page["next"]
        if page["end"]:
            return


class Row:
    """A message of a stream, decoded when it is shown."""

    __slots__ = ("_data", "_kind", "seq", "time", "topic")

    def __init__(self, seq: int, topic: str, kind: int, data: bytes, time: float) -> None:
        self.seq, self.topic, self._kind, self._data, self.time = seq, topic, kind, data, time

    def message(self) -> Message:
        """Its body and headers."""
        from qulo.client import decode_body  # noqa: PLC0415 - ZeroMQ is loaded by what talks to a hub only

        return decode_body(self.topic, self._kind, self._data)

    def form(self, as_json: bool) -> bytes:
        """As a line: number, topic and body, or an object."""
        message = self.message()
        if not as_json:
            return f"{self.seq} {self.topic} {body.to_line(message.body)}\n".encode()
        fields: dict[str, Any] = {"seq": self.seq, "topic": self.topic, "body": message.body}
        if message.headers:
            fields["headers"] = dict(message.headers)
        return f"{body.to_json(fields | {'time': admin.when(self.time)})}\n".encode()


def check_topic(pattern: str) -> str:
    """A pattern as the hub would take it. Raises BadTopic before there is a connection."""
    from qulo.protocol import topics  # noqa: PLC0415 - loaded by what uses it

    return topics.check_pattern(pattern)


def covers(wide: str, narrow: str) -> bool:
    """Does a pattern match all that another does?"""
    from qulo.protocol import topics  # noqa: PLC0415 - as above

    return topics.covers(wide, narrow)


def given(arguments: argparse.Namespace, *names: str, more: str = "", many: bool = False) -> list[str]:
    """The words behind an action: as many as there are names; `more` names one that may follow, `many` lets any.

    Raises UsageError.
    """
    found: list[str] = arguments.words
    action = f"qulo {arguments.noun} {arguments.action}"
    if len(found) < len(names):
        raise UsageError(f"{action} needs {names[len(found)]}")
    most = len(names) + bool(more)
    if len(found) > most and not many:
        raise UsageError(f"{action} takes no {found[most]!r}")
    return found


def only(arguments: argparse.Namespace, allowed: set[str], options: set[str]) -> None:
    """Raises UsageError where an option was given that the action does not have."""
    for name in sorted(options - allowed):
        if getattr(arguments, name) not in (None, False, [], ()):
            raise UsageError(f"qulo {arguments.noun} {arguments.action} takes no --{name.replace('_', '-')}")


def shown_size(size: float) -> str:
    """Bytes for people, in the units that options and the configuration take."""
    unit = ""
    for larger in ("K", "M", "G", "T"):
        if size < 1024:
            break
        unit = larger
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + unit


def shown_duration(seconds: float) -> str:
    """Seconds for people, likewise."""
    for unit, each in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= each and not seconds % each:
            return f"{seconds / each:.0f}{unit}"
    return f"{seconds:g}s"
