"""The judge of histories: events in the order of time go in, violations come out. Pure.

What holds, and the name of the rule in a violation:

    lost                  an acknowledged put is, for each group, acknowledged by a consumer, or still in the stream, or
                          in the dead letters (an agent's too); so is whatever a group was given of a stream
    never sent            what is delivered or received was begun before
    refused               what failed is not delivered; what is unknown may be
    unflagged duplicate   a group gets a message once without `redelivered`
    delivered after ack   never, once the flush behind it has returned
    two holders           never at one time
    order                 per publisher and stream, per consumer, per subscriber and publisher and topic
    stored twice          one id is one message: one number in its stream
    false duplicate       what is called a duplicate was stored before
    missed                what was published and acknowledged is received by who was subscribed, or a Gap tells
    never subscribed      who receives has subscribed to that
    malformed             the history itself makes no sense

How exactly, say `sending`, `working` and `hearing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.history.events import Event
from tests.history.hearing import Hearing
from tests.history.report import Final, Params, Report, Violation
from tests.history.sending import Sending
from tests.history.working import Group, Trouble


class Checker:
    """Takes the events one by one, so that a history need not be in memory."""

    def __init__(self, params: Params | None = None) -> None:
        self._params = params or Params()
        self.report = Report()
        self.trouble = Trouble(self._params.grace)
        self.sending = Sending(self._params, self.report)
        self.hearing = Hearing(self.sending, self.trouble, self._params, self.report)
        self.groups: dict[tuple[str, str], Group] = {}
        self._last = float("-inf")
        to_group: dict[str, Callable[[Group, Event], None]] = {
            "deliver": Group.deliver,
            "ack": Group.settle,
            "nak": Group.settle,
            "reject": Group.settle,
            "extend": Group.extend,
            "lease_end": Group.end_lease,
        }
        self._to_group = to_group
        self._handlers: dict[str, Callable[[Event], None]] = {
            "put": self.sending.send,
            "publish": self.sending.send,
            "subscribe": self.hearing.subscribe,
            "unsubscribe": self.hearing.unsubscribe,
            "receive": self.hearing.receive,
            "gap": self.hearing.gap,
            "flush": self._flush,
            "death": self._die,
            "requeue": self._requeue,
            "disturb": self.trouble.disturb,
        }

    def feed(self, event: Event) -> None:
        """The next event."""
        if event.t < self._last:
            self.report.add("malformed", event.key or event.who, "events are not in the order of time", event.t)
        self._last = event.t
        handler = self._to_group.get(event.op)
        if handler is not None:
            handler(self._group(event), event)
        elif event.op in self._handlers:
            self._handlers[event.op](event)
        else:
            self.report.add("malformed", event.key or event.who, f"what is {event.op}?", event.t)

    def _group(self, event: Event) -> Group:
        name = event.stream, event.group
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(
                f"{event.stream}/{event.group}", self.sending, self.trouble, self._params, self.report
            )
        return group

    def _flush(self, event: Event) -> None:
        if event.group:
            self._group(event).flush(event)
        else:
            self.sending.flush(event)

    def _die(self, event: Event) -> None:
        self.trouble.die(event.who)
        self.hearing.unsubscribe(event)
        for group in self.groups.values():
            group.die(event)

    def _requeue(self, event: Event) -> None:
        self.sending.requeue(event)
        for group in self.groups.values():
            group.requeue(event)

    def finish(self, final: Final) -> list[Violation]:
        """No more events; what is left at the end, and everything that was found."""
        self.sending.finish(final)
        for stream, group in final.left:
            self._group(Event(0, "", "", stream=stream, group=group))
        for (stream, name), judged in self.groups.items():
            judged.finish(stream, name, final)
        self.hearing.finish()
        return self.report.violations()


def check(history: Iterable[Event], final: Final | None = None, params: Params | None = None) -> list[Violation]:
    """All that is wrong with a history."""
    checker = Checker(params)
    for event in history:
        checker.feed(event)
    return checker.finish(final or Final())
