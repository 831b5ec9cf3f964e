"""One line of a history, and how histories are written and read. It must never judge what it reads.

Who is a process *of one life*: a program that is started again has another name. A `key` names one message: a put that
is tried again with the same `id` has the same key; without an id each try is another message with another key.

| op | phases | what it says |
|---|---|---|
| put | invoke, ok, fail, unknown | key, topic, n (its own number), id, delay, ttl; ok: stream, seq, duplicate, at |
| publish | invoke, ok, fail, unknown | key, topic, n; a publish is also ok when a `flush` that began after it is |
| deliver | ok | a consumer has it: key, topic, stream, seq, group, redelivered, lease (seconds) |
| ack, nak, reject | invoke, ok | of key, by the consumer who, of stream and group; ok: it is known to be on disk |
| extend | ok | the lease of key goes on from now for `lease` seconds |
| lease_end | ok | who does not hold key any more; without key: nothing of that stream and group |
| flush | invoke, ok, unknown | of a consumer (stream, group) or a publisher: all it said before is on disk, accepted |
| subscribe, unsubscribe | ok | who has a confirmed subscription to topic (a pattern), or none any more |
| receive | ok | a subscriber got key on topic |
| gap | ok | a subscriber was told that something on topic (a pattern) is missing; reason |
| death | ok | the process is gone: it holds nothing, says nothing |
| requeue | ok | a dead letter was put back: key may come once more as if it were new |
| disturb | invoke, ok | from invoke to ok something is broken for who, `*`: for all; leases may end unseen meanwhile |
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

INVOKE, OK, FAIL, UNKNOWN = "invoke", "ok", "fail", "unknown"

EVERYBODY = "*"


class Event(NamedTuple):
    """Something that a client did or saw; see the module."""

    t: float
    """Seconds of one clock for all (`time.monotonic` of one machine, or a simulation's)."""
    who: str
    op: str
    phase: str = OK
    key: str = ""
    topic: str = ""
    n: int = 0
    id: str = ""
    stream: str = ""
    seq: int = 0
    group: str = ""
    redelivered: bool = False
    duplicate: bool = False
    at: str = ""
    lease: float = 0.0
    delay: float = 0.0
    ttl: float = 0.0
    reason: str = ""

    def to_json(self) -> str:
        """One line, without what has its default."""
        said = {name: value for name, value in zip(self._fields, self, strict=True) if value != _DEFAULTS.get(name)}
        return json.dumps(said, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """Raises ValueError or TypeError when it is not one."""
        said: dict[str, Any] = json.loads(line)
        return cls(**said)


_DEFAULTS: dict[str, Any] = dict(Event._field_defaults)


class Writer:
    """A file that one process appends to.

    What was handed to the kernel survives the death of the process: `flush` before doing what an `invoke` announces.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        """Append."""
        self._file.write(event.to_json() + "\n")

    def flush(self) -> None:
        """All that was appended is the kernel's now."""
        self._file.flush()

    def close(self) -> None:
        """The end of it."""
        self._file.close()


def read(path: Path) -> Iterator[Event]:
    """The events of one file. A torn last line is what a killed writer leaves, and no event."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield Event.from_json(line)


def merge(histories: Iterable[Iterable[Event]]) -> Iterator[Event]:
    """Several histories as one, in the order of time; each is in that order already."""
    return heapq.merge(*histories, key=lambda event: event.t)
