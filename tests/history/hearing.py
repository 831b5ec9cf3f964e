"""What subscribers heard: in order per publisher and topic, and nothing missing that no Gap tells of.

A Gap covers a message that was published before it, on a topic that its pattern overlaps, if it comes before the next
message of the same publisher and topic, or not much later (`Params.gap_grace`). Behind a Gap(restart) a publisher's
messages may come again: a new agent does not know its predecessor's. What a publisher sent before a disturbance may
come late for the same reason, once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from qulo.protocol import topics
from tests.history.events import Event
from tests.history.report import Params, Report
from tests.history.sending import Message, Sending
from tests.history.working import Trouble

RESTART = "restart"

Source = tuple[str, str]
"""A publisher and a topic."""


@dataclass(slots=True)
class Heard:
    """Of one source: its counters and when they came, in the order in which they came."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    late: set[int] = field(default_factory=set)  # came behind newer ones, as they may behind a disturbance
    newest: int = -1


@dataclass(slots=True)
class Subscription:
    """One confirmed subscription of one process."""

    who: str
    pattern: str
    since: float
    until: float = float("inf")
    sources: dict[Source, Heard] = field(default_factory=dict)
    gaps: list[tuple[float, str]] = field(default_factory=list)


class Hearing:
    """All subscriptions."""

    def __init__(self, sending: Sending, trouble: Trouble, params: Params, report: Report) -> None:
        self._sending = sending
        self._trouble = trouble
        self._params = params
        self._report = report
        self._open: dict[str, Subscription] = {}
        self._all: list[Subscription] = []
        self.received = self.gaps = 0

    def subscribe(self, event: Event) -> None:
        """It is confirmed: from now on everything comes."""
        subscription = self._open[event.who] = Subscription(event.who, event.topic, event.t)
        self._all.append(subscription)

    def unsubscribe(self, event: Event) -> None:
        """It is over, or the process is."""
        subscription = self._open.pop(event.who, None)
        if subscription is not None:
            subscription.until = event.t

    def receive(self, event: Event) -> None:
        """A message came."""
        self.received += 1
        message = self._sending.messages.get(event.key)
        subscription = self._open.get(event.who)
        if message is None:
            self._report.add("never sent", event.key, f"received by {event.who}", event.t)
            return
        if subscription is None or not topics.matches(subscription.pattern, message.topic):
            self._report.add("never subscribed", event.key, f"received by {event.who}", event.t)
            return
        source = message.who, message.topic
        heard = subscription.sources.get(source)
        if heard is None:
            heard = subscription.sources[source] = Heard()
        n = message.n
        if n > heard.newest:
            heard.newest = n
            heard.numbers.append(n)
            heard.times.append(event.t)
        elif self._is_excused(heard, message):
            heard.late.add(n)
        elif message.attempts == 1 and not message.delayed:
            text = f"{event.who} received {message.who}'s {n} on {message.topic} twice, or after {heard.newest}"
            self._report.add("order", event.key, text, event.t)

    def _is_excused(self, heard: Heard, message: Message) -> bool:
        if message.n in heard.late or not self._trouble.since(message.who, message.last):
            return False
        at = bisect_left(heard.numbers, message.n)
        return at == len(heard.numbers) or heard.numbers[at] != message.n

    def gap(self, event: Event) -> None:
        """It was told that something is missing."""
        self.gaps += 1
        subscription = self._open.get(event.who)
        if subscription is None:
            return
        subscription.gaps.append((event.t, event.topic))
        if event.reason == RESTART:
            for heard in subscription.sources.values():
                heard.late.update(heard.numbers)
                heard.numbers, heard.times, heard.newest = array("q"), array("d"), -1

    # -- the end

    def finish(self) -> None:
        """What was acknowledged while a subscription stood has come, or a Gap tells of it."""
        wanted: dict[Source, list[tuple[Message, str]]] = {}
        for key, message in self._sending.messages.items():
            if message.attempts == message.fails:
                self._check_refused(key, message)
            if message.acked and (not message.is_put or (self._params.puts_are_heard and not message.delayed)):
                wanted.setdefault((message.who, message.topic), []).append((message, key))
        for subscription in self._all:
            for source, messages in wanted.items():
                if topics.matches(subscription.pattern, source[1]):
                    self._check_source(subscription, source, messages)

    def _check_refused(self, key: str, message: Message) -> None:
        for subscription in self._all:
            heard = subscription.sources.get((message.who, message.topic))
            if heard is not None and (message.n in heard.late or message.n in heard.numbers):
                self._report.add("refused", key, f"received by {subscription.who}, its sender was told that it failed")

    def _check_source(self, subscription: Subscription, source: Source, messages: list[tuple[Message, str]]) -> None:
        heard = subscription.sources.get(source, Heard())
        got = heard.late.union(heard.numbers)
        covering = [t for t, pattern in subscription.gaps if topics.overlap(pattern, source[1])]
        for message, key in messages:
            # One that ends while the message is on its way may miss it.
            if message.n in got or message.first <= subscription.since or message.acked >= subscription.until:
                continue
            following = bisect_right(heard.numbers, message.n)
            last = heard.times[following] if following < len(heard.numbers) else float("inf")
            at = bisect_left(covering, message.first)
            if at == len(covering) or covering[at] > last + self._params.gap_grace:
                text = (
                    f"{subscription.who} did not receive {message.who}'s {message.n} on {message.topic},"
                    f" published at {message.first:.3f}, and was told of no gap"
                )
                self._report.add("missed", key, text)
