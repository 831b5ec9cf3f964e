"""Two channels over a line that loses everything now and then: each record arrives once and in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qulo.protocol.channel import Channel
from qulo.protocol.wire import UNSUBSCRIBE, decode


@dataclass
class End:
    """One side: what it sent, what it took in, what is on its way to it."""

    channel: Channel = field(default_factory=lambda: Channel(10_000))
    sent: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    line: list[bytes] = field(default_factory=list)

    def receive(self) -> None:
        """Take the next frame in, as Hub and Link do."""
        data = self.line.pop(0)
        number, ack, records = decode(data)
        self.channel.acknowledged(ack)
        if number and self.channel.accept(number, len(data)):
            self.got += [record[1] for record in records]


class Session(RuleBasedStateMachine):
    """A session over connections that break."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (End(), End())
        self.made = 0

    @rule(side=st.booleans(), count=st.integers(1, 4), close=st.booleans())
    def add(self, side: bool, count: int, close: bool) -> None:
        end = self.ends[side]
        for _ in range(count):
            self.made += 1
            end.sent.append(self.made)
            end.channel.add([UNSUBSCRIBE, self.made], 20)
        if close:
            end.channel.close_batch()

    @rule(side=st.booleans(), refused=st.integers(0, 3))
    def take(self, side: bool, refused: int) -> None:
        end, other = self.ends[side], self.ends[not side]
        frames = end.channel.take()
        kept = frames[: len(frames) - refused] if refused else frames
        end.channel.untake(sum(decode(frame)[0] > 0 for frame in frames[len(kept) :]))
        other.line += kept

    @rule(side=st.booleans(), count=st.integers(1, 5))
    def deliver(self, side: bool, count: int) -> None:
        end = self.ends[side]
        for _ in range(min(count, len(end.line))):
            end.receive()

    @rule()
    def reconnect(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            end.line.clear()
            end.channel.rewind(other.channel.received)

    @rule(side=st.booleans())
    def beat(self, side: bool) -> None:
        self.ends[not side].line.append(self.ends[side].channel.unnumbered([]))

    @invariant()
    def nothing_is_doubled_or_out_of_order(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            assert other.got == end.sent[: len(other.got)]
            assert end.channel.bytes >= 0

    def teardown(self) -> None:
        self.reconnect()
        for _ in range(4):
            for side in (False, True):
                self.beat(side)
                self.take(side, 0)
                self.deliver(not side, 10_000)
        for end, other in (self.ends, self.ends[::-1]):
            assert other.got == end.sent
            assert end.channel.idle
            assert end.channel.bytes == 0


TestSession = Session.TestCase


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=30), st.integers(0, 30))
def test_a_new_session_gets_what_was_never_sent_in_order(sizes: list[int], taken: int) -> None:
    channel = Channel(10_000_000)
    for number, size in enumerate(sizes[:taken]):
        channel.add([UNSUBSCRIBE, number, bytes(size)], size + 30)
    channel.take()
    for number, size in enumerate(sizes[taken:]):
        channel.add([UNSUBSCRIBE, number + taken, bytes(size)], size + 30)
    channel.forget_sent()
    frames = [decode(frame) for frame in channel.take()]
    assert [record[1] for _, _, records in frames for record in records] == list(
        range(min(taken, len(sizes)), len(sizes))
    )
    assert [number for number, _, _ in frames] == list(range(1, len(frames) + 1))
