"""What is asked of a hub about its streams and dead letters, on `$qulo.stream.*`: each a request with a map.

Whoever may subscribe to all that a stream stores may look at it; whoever has `stream` there may change it. An agent
answers about its own dead letters, on `$qulo.local.dead.*`. What changes something is a line of the audit log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from qulo.errors import Denied, NoStream, QuloError, UsageError
from qulo.net.storing import StoreThread
from qulo.protocol import topics
from qulo.protocol.hub import Hub
from qulo.protocol.journal import Journal, Then
from qulo.protocol.permissions import ADMIN
from qulo.protocol.ports import Answering
from qulo.protocol.session import Session
from qulo.protocol.storage import (
    Appended,
    DeadLetter,
    DeadPurge,
    Report,
    Result,
    Store,
    Stored,
    Stream,
    StreamState,
)
from qulo.protocol.streams import Streams

STREAM = "$qulo.stream"
LOCAL_DEAD = "$qulo.local.dead"

Argument = dict[str, Any]
Answer = Callable[[Any], None]

# Messages, letters or groups in one answer, and bytes of messages: it has to fit into a frame.
MOST, MOST_BYTES = 1000, 500_000

# Messages that are looked through for those on a topic, per request.
LOOKED_AT = 20_000

# Seconds per unit of the arguments that are times: the store counts milliseconds.
_MS = 1000


class Keeper(Protocol):
    """Who has dead letters: `Streams`, or an agent's `Spool`."""

    journal: Journal

    def requeue(self, letter: DeadLetter, then: Then, now: float) -> None:
        """Put it where it came from."""


class DeadRequests:
    """Answers about dead letters: those of the streams, or of an agent's spool."""

    def __init__(self, hub: Hub, keeper: Keeper, prefix: str) -> None:
        self._hub = hub
        self._keeper = keeper
        self._journal = keeper.journal
        hub.answering |= {
            f"{prefix}.ls": self._list,
            f"{prefix}.show": self._show,
            f"{prefix}.requeue": self._requeue,
            f"{prefix}.purge": self._purge,
        }

    def _list(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        after, count = _number(argument, "after", 0), min(MOST, _number(argument, "count", MOST))

        def ask(store: Store) -> tuple[list[DeadLetter], dict[tuple[str, str], int]]:
            return store.dead(after, count), store.dead_counts()

        def tell(found: tuple[list[DeadLetter], dict[tuple[str, str], int]], now: float) -> None:
            letters, counts = found
            answer(
                {
                    "letters": [letter._asdict() for letter in letters if _may(asker, "subscribe", letter.topic)],
                    "next": letters[-1].number if letters else after,
                    "end": len(letters) < count,
                    "total": sum(counts.values()),
                }
            )

        self._journal.ask(ask, tell)

    def _show(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        self._with_letter(
            asker,
            "subscribe",
            _number(argument, "number"),
            answer,
            lambda letter, message: answer(
                {
                    **letter._asdict(),
                    "body": message.body,
                    "kind": message.kind,
                    "time_ms": message.time_ms,
                    "id": message.id,
                }
            ),
        )

    def _with_letter(
        self, asker: Session, verb: str, number: int, answer: Answer, then: Callable[[DeadLetter, Stored], None]
    ) -> None:
        def tell(found: tuple[DeadLetter, Stored] | None, now: float) -> None:
            if found is None:
                answer(UsageError(f"there is no dead letter {number}"))
            elif not _may(asker, verb, found[0].topic):
                answer(_denied(asker, verb, found[0].topic))
            else:
                then(*found)

        self._journal.ask(lambda store: store.letter(number), tell)

    def _requeue(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        number = _number(argument, "number")

        def again(letter: DeadLetter, message: Stored) -> None:
            self._hub.authority.audit(asker, "stream", letter.topic, True, f"requeue dead letter {number}", now)
            try:
                self._keeper.requeue(letter, requeued, now)
            except QuloError as error:
                answer(error)

        def requeued(results: list[Result], now: float) -> None:
            result = results[0]
            if isinstance(result, QuloError):
                answer(result)
            elif isinstance(result, Appended):
                answer({"seq": result.seq})
            else:
                answer(UsageError(f"there is no dead letter {number} any more"))

        self._with_letter(asker, "stream", number, answer, again)

    def _purge(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        number = _number(argument, "number")

        def purge(letter: DeadLetter, message: Stored) -> None:
            self._hub.authority.audit(asker, "stream", letter.topic, True, f"purge dead letter {number}", now)
            self._journal.submit([DeadPurge(number, number)], lambda results, now: answer({}))

        self._with_letter(asker, "stream", number, answer, purge)


class StreamRequests:
    """Answers about the streams of a site's authority."""

    def __init__(self, hub: Hub, streams: Streams) -> None:
        self._hub = hub
        self._streams = streams
        requests: dict[str, Answering] = {
            "add": self._add,
            "ls": self._list,
            "info": self._info,
            "topics": self._topics,
            "purge": self._purge,
            "rm": self._remove,
            "group.rm": self._remove_group,
            "read": self._read,
        }
        hub.answering |= {f"{STREAM}.{verb}": handler for verb, handler in requests.items()}
        DeadRequests(hub, streams, f"{STREAM}.dead")

    # -- streams

    def _add(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        change = bool(argument.pop("change", False))
        before = self._named({"stream": argument["name"]}) if change else None
        stream = _stream(argument, before)
        for pattern in {*stream.topics, *(before.topics if before else ())}:
            topics.check_pattern(pattern)
            _require(asker, "stream", pattern)
        self._audit(asker, stream.name, "change" if change else "add", now)
        then = partial(_told, answer, {"stream": stream.name})
        if change:
            self._streams.change(stream, then)
        else:
            self._streams.add(stream, then, now)

    def _list(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        def tell(states: list[StreamState], now: float) -> None:
            answer([_shown(state, self._groups(state)) for state in states if _may_see(asker, state.stream)][:MOST])

        self._streams.journal.ask(lambda store: store.streams(), tell)

    def _groups(self, state: StreamState) -> list[dict[str, Any]]:
        name = state.stream.name
        return self._streams.group_report(name) if name in self._streams.table else []

    def _info(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name = self._visible(asker, argument)

        def tell(states: list[StreamState], now: float) -> None:
            found = next((state for state in states if state.stream.name == name), None)
            answer(NoStream(f"there is no stream {name}") if found is None else _shown(found, self._groups(found)))

        self._streams.journal.ask(lambda store: store.streams(), tell)

    def _topics(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name = self._visible(asker, argument)
        pattern, after = topics.check_pattern(argument.get("topic", ">")), str(argument.get("after", ""))
        self._streams.journal.ask(
            lambda store: store.topics(name, pattern, after, MOST),
            lambda found, now: answer([tuple(state) for state in found]),
            lambda error, now: answer(error),
        )

    def _purge(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name = self._changeable(asker, argument)
        self._audit(asker, name, "purge", now)
        self._streams.purge(
            name,
            _number(argument, "upto", 0),
            lambda gone: answer(gone if isinstance(gone, QuloError) else {"purged": gone}),
        )

    def _remove(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name = self._changeable(asker, argument)
        self._audit(asker, name, "rm", now)
        self._streams.remove(name, partial(_told, answer, {}))

    def _remove_group(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name, group = self._changeable(asker, argument), str(argument["group"])
        self._audit(asker, name, f"rm group {group}", now)
        self._streams.remove_group(name, group, partial(_told, answer, {}))

    def _read(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        name = self._visible(asker, argument)
        pattern = topics.check_pattern(argument.get("topic", ">"))
        count = min(MOST, max(1, _number(argument, "count", MOST)))
        wall = self._streams.wall(now)
        if argument.get("last"):
            part = Part(name, pattern, str(argument.get("after", "")), count)
            ask = partial(_last, part=part)
        else:
            since = argument.get("since")
            # Within what the store can compare with: an argument must not be what ends it.
            start = wall - min(wall, max(0, int(float(since) * _MS))) if since is not None else None
            ask = partial(_page, part=Part(name, pattern, _number(argument, "after", 0), count), start=start, wall=wall)
        self._streams.journal.ask(ask, lambda page, now: answer(page), lambda error, now: answer(error))

    # -- who may

    def _named(self, argument: Argument) -> Stream:
        name = str(argument["stream"])
        opened = self._streams.table.get(name)
        if opened is None:
            raise NoStream(f"there is no stream {name[:64]!r}; `qulo stream ls` lists them")
        return opened.stream

    def _visible(self, asker: Session, argument: Argument) -> str:
        stream = self._named(argument)
        for pattern in stream.topics:
            _require(asker, "subscribe", pattern)
        return stream.name

    def _changeable(self, asker: Session, argument: Argument) -> str:
        stream = self._named(argument)
        for pattern in stream.topics:
            _require(asker, "stream", pattern)
        return stream.name

    def _audit(self, asker: Session, name: str, what: str, now: float) -> None:
        self._hub.authority.audit(asker, "stream", name[:64], True, what, now)


class StoreRequests:
    """Answers about the store itself, for administrators on the hub's own host."""

    def __init__(self, hub: Hub, thread: StoreThread) -> None:
        self._thread = thread
        hub.answering |= {f"{ADMIN}.store.check": self._check, f"{ADMIN}.store.backup": self._backup}

    def _check(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        self._thread.spawn(self._thread.do(lambda store: store.check()), lambda report: answer(_report(report)), answer)

    def _backup(self, asker: Session, argument: Argument, answer: Answer, now: float) -> None:
        path = str(argument["path"])
        if not Path(path).is_absolute():
            raise UsageError(f"the backup's path is absolute, on the hub's host: {path[:200]}")
        self._thread.spawn(self._thread.back_up(path), lambda _: answer({"path": path}), answer)


def _report(report: Report) -> dict[str, Any]:
    return report._asdict()


class Part(NamedTuple):
    """What part of a stream is asked for: messages on a pattern, after a number (with `last`: a topic)."""

    stream: str
    pattern: str
    after: Any
    most: int


def _page(store: Store, part: Part, start: int | None, wall: int) -> dict[str, Any]:
    """Messages in order; with `start` from that time (ms) on."""
    name, pattern, after, count = part
    if start is not None:
        after = max(after, store.at(name, start) - 1)
    found: list[tuple[int, str, int, bytes, int]] = []
    looked = size = 0
    while len(found) < count and size < MOST_BYTES and looked < LOOKED_AT:
        read = store.read(name, after, count, MOST_BYTES, wall)
        if read.upto <= after:
            return {"messages": found, "next": after, "end": True}
        after = read.upto
        looked += len(read.messages)
        for message in read.messages:
            if topics.matches(pattern, message.topic):
                if size >= MOST_BYTES or len(found) >= count:
                    return {"messages": found, "next": found[-1][0], "end": False}
                found.append((message.seq, message.topic, message.kind, message.body, message.time_ms))
                size += len(message.body)
    return {"messages": found, "next": after, "end": False}


def _last(store: Store, part: Part) -> dict[str, Any]:
    """The newest message of each topic."""
    name, pattern, after, count = part
    messages = store.last(name, pattern, after, count)
    found: list[tuple[int, str, int, bytes, int]] = []
    size = 0
    for message in messages:
        if found and size + len(message.body) > MOST_BYTES:
            break
        found.append((message.seq, message.topic, message.kind, message.body, message.time_ms))
        size += len(message.body)
    end = len(found) == len(messages) < count
    return {"messages": found, "next": found[-1][1] if found else after, "end": end}


_TIMES = {"max_age": "max_age_ms", "dedupe": "dedupe_ms"}
_COUNTS = ("max_bytes", "max_msgs", "per_topic", "max_tries")

# What a stream is like when nobody says anything else: ids are remembered long enough for a retry, and what failed ten
# times will fail again.
DEFAULTS: dict[str, Any] = {"dedupe_ms": 600_000, "max_tries": 10}


def _stream(argument: Argument, before: Stream | None) -> Stream:
    """The definition that an argument makes, of a new stream or of one that was. Raises UsageError."""
    known = {"name", "topics", "keep", *_TIMES, *_COUNTS}
    if unknown := sorted(set(argument) - known):
        raise UsageError(f"a stream has no {unknown[0][:64]!r}; it has {', '.join(sorted(known))}")
    values: dict[str, Any] = dict(DEFAULTS) if before is None else asdict(before)
    values["name"] = str(argument["name"])
    if "topics" in argument:
        if type(argument["topics"]) is not list:
            raise UsageError("topics are a list of patterns")
        values["topics"] = tuple(str(pattern) for pattern in argument["topics"])
    if "keep" in argument:
        values["keep"] = argument["keep"]
    for name, stored in _TIMES.items():
        if argument.get(name) is not None:
            values[stored] = int(float(argument[name]) * _MS)
    for name in _COUNTS:
        if argument.get(name) is not None:
            values[name] = int(argument[name])
    if any(type(v) is int and v >= 2**62 for v in values.values()):
        raise UsageError("a limit of the stream is too large")
    values.setdefault("topics", ())
    return Stream(**values)


def _shown(state: StreamState, groups: list[dict[str, Any]]) -> dict[str, Any]:
    stream = state.stream
    return {
        "name": stream.name,
        "topics": list(stream.topics),
        "keep": stream.keep,
        "max_age": stream.max_age_ms / _MS,
        "max_bytes": stream.max_bytes,
        "max_msgs": stream.max_msgs,
        "per_topic": stream.per_topic,
        "dedupe": stream.dedupe_ms / _MS,
        "max_tries": stream.max_tries,
        "created": stream.created_ms / _MS,
        "first": state.first,
        "last": state.last,
        "messages": state.messages,
        "bytes": state.bytes,
        "groups": groups,
    }


def _told(answer: Answer, value: Any, error: QuloError | None) -> None:
    answer(error or value)


def _may(asker: Session, verb: str, pattern: str) -> bool:
    return asker.rights.decide(verb, pattern).allowed


def _may_see(asker: Session, stream: Stream) -> bool:
    return all(_may(asker, "subscribe", pattern) for pattern in stream.topics)


def _denied(asker: Session, verb: str, pattern: str) -> Denied:
    name = asker.rights.speaker(pattern).name
    return Denied(
        f"{name} may not {verb} on {pattern}: `qulo auth explain {name} {verb} '{pattern}'` on the hub's host says why"
    )


def _require(asker: Session, verb: str, pattern: str) -> None:
    if not _may(asker, verb, pattern):
        raise _denied(asker, verb, pattern)


def _number(argument: Argument, name: str, default: int | None = None) -> int:
    value = argument.get(name, default)
    if type(value) is not int or not 0 <= value < 2**62:
        raise UsageError(f"{name} is a number")
    return value
