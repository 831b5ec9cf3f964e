"""What groups of consumers were given: flags, leases, what is done, what was lost. One object for each group.

A holder's interval begins when the program gets the message. It ends when the program settles it, when its lease ends
(on the holder's clock: a frozen holder's ends too), when the library says so, with the holder's death, or with the
beginning of a disturbance that reaches the holder, because the hub may know more of that than the holder does. Two
intervals of one message must not overlap.

A settlement is *sure* when the holder's interval was open when it settled, and a flush that began later returned. The
message is then never delivered again, but to a holder that a disturbance keeps from knowing better.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.history.events import EVERYBODY, INVOKE, OK, Event
from tests.history.report import Final, Params, Report
from tests.history.sending import Message, Sending

# What is known of one message in one group, as bits: there are millions of them.
UNFLAGGED, FLAGGED, ACKED, REJECTED, DONE = 1, 2, 4, 8, 16


class Hold(NamedTuple):
    """One holder's interval, while it is open."""

    who: str
    since: float
    until: float


class Trouble:
    """What is broken at the moment, and for whom."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._began: dict[str, float] = {}  # the last disturbance of each
        self._until: dict[str, float] = {}  # when its effects are over
        self._active: dict[str, int] = {}
        self._dead: set[str] = set()

    def disturb(self, event: Event) -> None:
        """One begins or ends."""
        who = event.who
        if event.phase == INVOKE:
            self._began[who] = event.t
            self._active[who] = self._active.get(who, 0) + 1
        else:
            self._active[who] -= 1
            self._until[who] = event.t + self._grace

    def die(self, who: str) -> None:
        """It is gone for good."""
        self._dead.add(who)

    def reaches(self, who: str, t: float) -> bool:
        """Is something broken for them now, or was it a short time ago?"""
        return any(
            self._active.get(name, 0) > 0 or t <= self._until.get(name, float("-inf")) for name in (who, EVERYBODY)
        )

    def since(self, who: str, t: float) -> bool:
        """Was something broken for them since then?"""
        return who in self._dead or any(self._began.get(name, float("-inf")) >= t for name in (who, EVERYBODY))


class Group:
    """One group of one stream."""

    def __init__(self, name: str, sending: Sending, trouble: Trouble, params: Params, report: Report) -> None:
        self.name = name
        self.flags: dict[str, int] = {}
        self.delivered = self.redelivered = self.acked = 0
        self.intervals = self.sure = 0  # how much there was to judge: holders, and what must not come again
        self._sending = sending
        self._trouble = trouble
        self._params = params
        self._report = report
        self._holds: dict[str, Hold] = {}
        self._newest: dict[str, int] = {}  # of each consumer, the last number without the flag
        self._settled: dict[str, list[str]] = {}  # surely, since the consumer's last flush
        self._flushing: dict[str, list[str]] = {}

    # -- delivering

    def deliver(self, event: Event) -> None:
        """A consumer has it."""
        key, who, t = event.key, event.who, event.t
        message = self._sending.messages.get(key)
        if message is None:
            self._report.add("never sent", key, f"delivered to {who} of {self.name}", t)
            return
        self._sending.number(message, key, event.stream, event.seq, t)
        flags = self.flags.get(key, 0)
        self.delivered += 1
        if event.redelivered:
            self.redelivered += 1
            self.flags[key] = flags | FLAGGED
        else:
            self._check_first(event, flags, message)
            self.flags[key] = flags | UNFLAGGED
        troubled = self._trouble.reaches(who, t)
        if flags & DONE and not troubled:
            text = f"delivered to {who} of {self.name} after it was acknowledged, and that flushed"
            self._report.add("delivered after ack", key, text, t)
        if not troubled:
            self._check_holder(event)
            self.intervals += 1
            self._holds[key] = Hold(who, t, t + (event.lease or self._params.lease) - self._params.early)

    def _check_first(self, event: Event, flags: int, message: Message) -> None:
        if flags & UNFLAGGED:
            text = f"delivered to {event.who} of {self.name} as if it had not been delivered before"
            self._report.add("unflagged duplicate", event.key, text, event.t)
        elif not message.delayed:
            last = self._newest.get(event.who, 0)
            if event.seq <= last:
                text = f"{event.who} of {self.name} got {event.stream} {event.seq} after {last}"
                self._report.add("order", event.key, text, event.t)
            self._newest[event.who] = event.seq

    def _check_holder(self, event: Event) -> None:
        hold = self._holds.get(event.key)
        if hold is not None and event.t < hold.until and not self._trouble.since(hold.who, hold.since):
            text = (
                f"delivered to {event.who} of {self.name}, while {hold.who} has it since {hold.since:.3f}"
                f" and until {hold.until:.3f}"
            )
            self._report.add("two holders", event.key, text, event.t)

    # -- settling

    def settle(self, event: Event) -> None:
        """ack, reject; nak."""
        key, who = event.key, event.who
        if event.op == "nak":
            self._release(event)
            return
        flags = self.flags.get(key, 0) | (ACKED if event.op == "ack" else REJECTED)
        self.acked += 1
        hold = self._holds.get(key)
        sure = False
        if hold is not None and hold.who == who:
            del self._holds[key]
            sure = event.t < hold.until and not self._trouble.since(who, hold.since)
        if event.phase == OK:
            flags |= DONE
        elif sure:
            self._settled.setdefault(who, []).append(key)
        self.flags[key] = flags

    def _release(self, event: Event) -> None:
        hold = self._holds.get(event.key)
        if hold is not None and hold.who == event.who:
            del self._holds[event.key]

    def extend(self, event: Event) -> None:
        """The lease goes on from now."""
        hold = self._holds.get(event.key)
        if hold is not None and hold.who == event.who:
            lease = event.lease or self._params.lease
            self._holds[event.key] = hold._replace(until=event.t + lease - self._params.early)

    def end_lease(self, event: Event) -> None:
        """The consumer was told that it has it no more; without key: any of them."""
        if event.key:
            self._release(event)
        else:
            self._drop(event.who)

    def _drop(self, who: str) -> None:
        for key in [key for key, hold in self._holds.items() if hold.who == who]:
            del self._holds[key]
        self._settled.pop(who, None)
        self._flushing.pop(who, None)

    def flush(self, event: Event) -> None:
        """Of a consumer."""
        if event.phase == INVOKE:
            self._flushing[event.who] = self._settled.pop(event.who, [])
            return
        done = self._flushing.pop(event.who, [])
        if event.phase == OK:
            flags = self.flags
            self.sure += len(done)
            for key in done:
                flags[key] |= DONE

    def die(self, event: Event) -> None:
        """The process is gone."""
        self._drop(event.who)

    def requeue(self, event: Event) -> None:
        """It comes as new, once more."""
        self.flags.pop(event.key, None)
        self._holds.pop(event.key, None)
        self._newest.clear()

    # -- the end

    def finish(self, stream: str, group: str, final: Final) -> None:
        """Everything that was stored is done, still there, or dead: in this group."""
        left = final.left.get((stream, group), frozenset())
        for key, message in self._sending.messages.items():
            flags = self.flags.get(key, 0)
            if message.attempts == message.fails and flags:
                self._report.add("refused", key, f"delivered to {self.name}, and its sender was told that it failed")
            if message.stream != stream or not (flags or (message.acked and message.is_put)):
                continue
            if flags & ACKED or key in left or key in final.gone or message.ttl:
                continue
            if (group, key) not in final.dead and ("", key) not in final.dead:
                text = f"{_told(message, flags)}, and {self.name} has it no more"
                self._report.add("lost", key, text, message.acked)


def _told(message: Message, flags: int) -> str:
    sent = f"{message.who}'s {message.n} on {message.topic} "
    if flags & REJECTED:
        return sent + "was rejected, is in no dead letters"
    if flags:
        return sent + "was delivered, never settled"
    return sent + f"was acknowledged at {message.acked:.3f}, never delivered"
