"""What was sent, and what became of it: the account of every message. It knows nothing of groups and subscribers.

Order in a stream: of one publisher's puts to one stream the numbers (`seq`) ascend as the publisher's own do (`n`, in
the order in which it began them). Left out is what was put more than once, or with a delay.
"""

from __future__ import annotations

from itertools import pairwise

from qulo.protocol import topics
from tests.history.events import FAIL, INVOKE, OK, Event
from tests.history.report import Final, Params, Report

PUT, PUBLISH = "put", "publish"


class Message:
    """One message."""

    __slots__ = (
        "acked",
        "attempts",
        "delayed",
        "fails",
        "first",
        "id",
        "is_put",
        "last",
        "n",
        "seq",
        "stored_at",
        "stream",
        "topic",
        "ttl",
        "who",
    )

    def __init__(self, event: Event) -> None:
        self.who, self.topic, self.n, self.id = event.who, event.topic, event.n, event.id
        self.is_put = event.op == PUT
        self.first = self.last = event.t  # when it was begun, the first and the last time
        self.delayed, self.ttl = event.delay > 0, event.ttl > 0
        self.attempts, self.fails = 1, 0
        self.acked = 0.0  # when that was known first
        self.stream, self.seq = "", 0
        self.stored_at = -1.0  # when the master said that it stored it now


class Sending:
    """All messages, by key."""

    def __init__(self, params: Params, report: Report) -> None:
        self.messages: dict[str, Message] = {}
        self._params = params
        self._report = report
        self._open: dict[str, list[Message]] = {}  # of a publisher, since its last flush
        self._flushing: dict[str, list[Message]] = {}
        self.acked = 0

    def send(self, event: Event) -> None:
        """put, publish."""
        if event.phase == INVOKE:
            self._begin(event)
            return
        message = self.messages.get(event.key)
        if message is None:
            self._report.add("malformed", event.key, f"{event.who} has an answer to what it never began", event.t)
        elif event.phase == OK:
            self._accept(message, event)
        elif event.phase == FAIL:
            message.fails += 1

    def _begin(self, event: Event) -> None:
        message = self.messages.get(event.key)
        if message is None:
            message = self.messages[event.key] = Message(event)
        else:
            message.attempts += 1
            message.last = event.t
            if not message.id or message.id != event.id:
                self._report.add("malformed", event.key, "sent again under the same key without the same id", event.t)
        if event.op == PUBLISH:
            self._open.setdefault(event.who, []).append(message)

    def _accept(self, message: Message, event: Event) -> None:
        if not message.acked:
            message.acked = event.t
            self.acked += 1
        if not message.is_put or event.at == "agent":
            return
        if event.seq:
            self.number(message, event.key, event.stream, event.seq, event.t)
        if event.duplicate:
            # Without a number it was known by its agent's, which sends again what it has no answer to: no news.
            if message.attempts - message.fails < 2 and event.seq:
                self._report.add("false duplicate", event.key, "a duplicate, but it was never stored before", event.t)
        elif message.stored_at >= 0 and event.t - message.stored_at < self._params.dedupe:
            self._report.add("stored twice", event.key, f"{event.who} was told twice that it is new", event.t)
        else:
            message.stored_at = event.t

    def number(self, message: Message, key: str, stream: str, seq: int, t: float) -> None:
        """It has this number in this stream: always the same one."""
        if not message.seq:
            message.stream, message.seq = stream, seq
        elif (message.stream, message.seq) != (stream, seq):
            known = f"{message.stream} {message.seq}"
            self._report.add("stored twice", key, f"is {stream} {seq}, and was {known} before", t)

    def requeue(self, event: Event) -> None:
        """It gets another number."""
        message = self.messages.get(event.key)
        if message is not None:
            message.seq, message.delayed = 0, True

    def flush(self, event: Event) -> None:
        """Of a publisher."""
        if event.phase == INVOKE:
            self._flushing[event.who] = self._open.pop(event.who, [])
            return
        flushed = self._flushing.pop(event.who, [])
        if event.phase == OK:
            for message in flushed:
                if not message.acked:
                    message.acked = event.t
                    self.acked += 1

    # -- the end

    def finish(self, final: Final) -> None:
        """Say where what has no number yet belongs, and check the order of what has one."""
        where: dict[str, str] = {}
        published: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
        for key, message in self.messages.items():
            if message.seq and message.is_put and message.attempts == 1 and not message.delayed:
                published.setdefault((message.who, message.stream), []).append((message.n, message.seq, key))
            elif not message.stream:
                if message.topic not in where:
                    where[message.topic] = stream_of(message.topic, final)
                message.stream = where[message.topic]
        for (who, stream), numbers in published.items():
            numbers.sort()
            for (before, seq_before, key_before), (n, seq, key) in pairwise(numbers):
                if seq <= seq_before:
                    text = f"{who}'s {n} is {stream} {seq}, its {before} ({key_before}) is {seq_before}"
                    self._report.add("order", key, text)


def stream_of(topic: str, final: Final) -> str:
    """The stream that stores the topic; "" if there is none."""
    for stream, patterns in final.streams.items():
        if any(topics.matches(pattern, topic) for pattern in patterns):
            return stream
    return ""
