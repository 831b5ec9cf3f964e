"""What is never lost between two ends: numbered frames, cumulative acks, resending, dropping repeats.

Hub and Link each hold one Channel per session. A Channel outlives connections: after a reconnect `rewind`
gives everything that the other side has not received once more, and `accept` drops what came before.

A Channel never drops a record by itself. Whoever adds records looks at `room` first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qulo.errors import ProtocolError
from qulo.protocol.wire import BODY_OVERHEAD, PUBLISH, RECORD_OVERHEAD, SMALL, Record, decode, encode

# Frames under way at once to one peer. Well below any high_water, so that the socket refuses a frame only
# when the connection itself has stalled.
FLYING = 256

# Acks that nobody waits for travel with other frames; by themselves only after this many frames or bytes.
LAZY_FRAMES = 16
LAZY_BYTES = 262_144

# A batch never grows beyond what the other side decodes whole; the frame's own head takes the difference.
CEILING = SMALL - 64


def _nothing() -> None:
    """The owner takes without being told."""


class Channel:
    """One end of a session.

    add(record, size) → take() gives frames to send → acknowledged(n) when an ack comes in.
    accept(n) for each numbered frame that comes in → `received` goes out as ack with the next frame.
    """

    __slots__ = (
        "_flying",
        "_pending",
        "_waiting",
        "ack_now",
        "acked",
        "bytes",
        "limit",
        "mark",
        "number",
        "pending_size",
        "received",
        "told",
        "unacked_in",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes that may be unacknowledged
        self.mark: Callable[[], None] = _nothing  # called when there is something to take
        self.number = 0  # of the last frame made
        self.acked = 0  # highest number the other side has
        self.bytes = 0  # size of all that is not acknowledged, pending records included
        self.received = 0  # highest number taken in
        self.told = 0  # the `received` that the other side was last told
        self.unacked_in = 0  # bytes taken in since
        self.ack_now = False
        self._pending: list[Record] = []
        self.pending_size = 0  # bytes of the batch that is being filled
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._flying: deque[tuple[int, bytes]] = deque()

    @property
    def room(self) -> int:
        """Bytes that can still be added; negative when over the limit."""
        return self.limit - self.bytes

    @property
    def idle(self) -> bool:
        """Is everything that was added acknowledged?"""
        return not (self._pending or self._waiting or self._flying)

    @property
    def all_sent(self) -> bool:
        """Has everything that was added been given to the socket?"""
        return not (self._pending or self._waiting)

    @property
    def unacknowledged(self) -> int:
        """Frames made and not acknowledged."""
        return len(self._flying) + len(self._waiting)

    def count_messages(self) -> int:
        """Published messages that are not acknowledged. Takes its time: for the end, not for each turn."""
        frames = [_records(frame)[0] for _, frame in (*self._flying, *self._waiting)]
        return sum(len(record[3]) for records in (*frames, self._pending) for record in records if record[0] == PUBLISH)

    def add(self, record: Record, size: int) -> None:
        """Queue a record whose encoded size is at most `size`; `take` puts it on the wire."""
        if self.pending_size + size > CEILING and self._pending:
            self.close_batch()
        if not self._pending:
            self.mark()
        self._pending.append(record)
        self.pending_size += size
        self.bytes += size

    def add_run(self, head: Record, bodies: list[bytes]) -> None:
        """Queue `[*head, bodies]`, a head that ends in topic and kind; as several where it exceeds a frame."""
        size = sum(map(len, bodies)) + BODY_OVERHEAD * len(bodies) + RECORD_OVERHEAD + 4 * len(head[-2])
        if size > CEILING and len(bodies) > 1:
            half = len(bodies) // 2
            self.add_run(head, bodies[:half])
            self.add_run(head, bodies[half:])
        else:
            self.add([*head, bodies], size)

    def close_batch(self) -> None:
        """Make the pending records one frame."""
        if not self._pending:
            return
        self.number += 1
        frame = encode(self.number, self.received, self._pending)
        self._note_told()
        self._waiting.append((self.number, frame))
        self.bytes += len(frame) - self.pending_size
        self._pending = []
        self.pending_size = 0

    def take(self) -> list[bytes]:
        """The frames to send now, in order; an ack alone when one is due and no frame carries it."""
        if self._pending:
            self.close_batch()
        out: list[bytes] = []
        while self._waiting and len(self._flying) < FLYING:
            entry = self._waiting.popleft()
            self._flying.append(entry)
            out.append(entry[1])
        if self.ack_due:
            out.append(self.unnumbered([]))
        return out

    def untake(self, count: int) -> None:
        """The socket refused the last `count` numbered frames that `take` gave: they wait again."""
        for _ in range(min(count, len(self._flying))):
            self._waiting.appendleft(self._flying.pop())

    def unnumbered(self, records: list[Record]) -> bytes:
        """A frame that is not kept: heartbeats, acks, HELLO and its answers."""
        frame = encode(0, self.received, records)
        self._note_told()
        return frame

    def _note_told(self) -> None:
        self.told = self.received
        self.unacked_in = 0
        self.ack_now = False

    @property
    def ack_due(self) -> bool:
        """Should an ack go out even if nothing else does?"""
        if self.ack_now or self.received - self.told >= LAZY_FRAMES:
            return True
        return self.unacked_in >= min(LAZY_BYTES, self.limit // 4)  # both sides agree on the limit, or nearly

    def accept(self, number: int, size: int) -> bool:
        """Take in the number of an incoming frame: True for new, False for a repeat; a hole is a ProtocolError."""
        if number <= self.received:
            self.ack_now = True  # whoever repeats has missed the ack
            return False
        if number != self.received + 1:
            raise ProtocolError(f"frame {number} came after {self.received}")
        self.received = number
        self.unacked_in += size
        return True

    def acknowledged(self, ack: int) -> bool:
        """The other side has everything up to `ack`; True if that was news. Raises ProtocolError."""
        if ack <= self.acked:
            return False
        if ack > self.number:
            raise ProtocolError(f"frame {ack} was acknowledged, the last one made is {self.number}")
        self.acked = ack
        for queue in (self._flying, self._waiting):
            while queue and queue[0][0] <= ack:
                self.bytes -= len(queue.popleft()[1])
        return True

    def rewind(self, received: int) -> None:
        """A new connection: the other side says it has received up to `received`; the rest goes again."""
        self.acknowledged(received)
        self._flying.extend(self._waiting)
        self._waiting, self._flying = self._flying, deque()
        self.told = 0
        self.ack_now = self.received > 0

    def withdraw(self, stale: Callable[[Record], bool]) -> None:
        """Take records back that make no sense any more; whatever of them has arrived is not undone."""
        self.close_batch()
        for queue in (self._flying, self._waiting):
            for place, (number, frame) in enumerate(queue):
                records = decode(frame)[2]
                kept = [record for record in records if not stale(record)]
                if len(kept) < len(records):
                    short = encode(number, self.received, kept)
                    self.bytes += len(short) - len(frame)
                    queue[place] = (number, short)

    def forget_sent(self) -> dict[str, int]:
        """The other side has lost its end: start numbering anew, keep what was never sent.

        Returns, by topic, how many messages had been under way; whether they took effect is unknown.
        """
        lost: dict[str, int] = {}
        for _, frame in self._flying:
            for record in _records(frame)[0]:
                if record[0] == PUBLISH:
                    lost[record[1]] = lost.get(record[1], 0) + len(record[3])
        kept = [_records(frame) for _, frame in self._waiting]
        pending, size = self._pending, self.pending_size
        self.number = self.acked = self.received = self.told = self.unacked_in = self.bytes = 0
        self.ack_now = False
        self._flying.clear()
        self._waiting.clear()
        self._pending, self.pending_size = [], 0
        for records, length in kept:
            self._pending, self.pending_size = records, length
            self.bytes += length
            self.close_batch()
        self._pending, self.pending_size = pending, size
        self.bytes += size
        return lost


def _records(frame: bytes) -> tuple[list[Record], int]:
    """The records of a frame of our own, and its size."""
    return decode(frame)[2], len(frame)
