"""The intake of a hub: which numbered frames are taken in now, and which wait. Pure.

A frame waits, unacknowledged, while subscribers lag, while the store has too much to do, while the hub drains, or
while its sender is over max_rate; frames of one session never overtake each other. Runs from above wait here too. What
a record means is the hub's: the intake hands each to `dispatch`, and a publish that needs no more asking to `publish`.

It must never drop a frame that its session's channel has accepted, and never do more for a publish on an authorised
topic than one look into the session's set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from qulo.errors import ProtocolError
from qulo.protocol import wire
from qulo.protocol.bucket import Bucket
from qulo.protocol.journal import Journal
from qulo.protocol.ports import Limits, Note
from qulo.protocol.router import Router
from qulo.protocol.session import Life, Session
from qulo.protocol.wire import Record

# Bytes of runs from above that may wait while local subscribers lag; beyond it they get a Gap.
ABOVE_LIMIT = 16 * 1024 * 1024

# Seconds' worth of max_rate that a peer may publish at once: more than the time between two looks at who is held
# back, so that a steady publisher gets its whole rate.
RATE_BURST = 1.0

# Connections whose session has ended, and whose next one inherits what it owes to max_rate: else a HELLO would pay it.
DEBTORS = 1000

# Records that publish are these, whatever else is in them.
_PUBLISHING = ([wire.PUBLISH], [wire.PUT])

Carry = Callable[[Session, Record, float], None]


class Seam(NamedTuple):
    """What the intake needs of its hub."""

    dispatch: Carry
    """Check, authorise and carry out a record. Raises ProtocolError."""
    publish: Carry
    """Carry out a PUBLISH on a topic that is authorised. Raises ProtocolError."""
    bad: Callable[[Session, ProtocolError, float], None]
    """A frame that had waited was not the protocol."""
    note: Callable[[Note], None]
    dirty: dict[Session, None]
    """Who has something to send. The hub's own, so it may be emptied but not replaced."""
    debts: dict[str, Bucket]
    """By user: of its last session, see DEBTORS. The reception gives it to the next one."""


class Intake:
    """What waits at one hub, and why."""

    def __init__(self, router: Router, limits: Limits, seam: Seam) -> None:
        self.limits = limits
        self.blocked = False  # publishers may not go on
        self.draining = False  # nor will they
        self.journal: Journal | None = None  # of a hub that has a store
        self.parked: dict[Session, None] = {}  # while subscribers lag
        self.held: dict[Session, None] = {}  # over max_rate
        self._router = router
        self._dispatch, self._publish, self._bad, self._note, self._dirty, self._debts = seam
        self._above: deque[tuple[str, int, list[bytes], bytes]] = deque()
        self._above_size = 0
        self._look: float | None = None  # when something changed that `turn` looks at
        self._above_lost: set[str] = set()

    # -- numbered frames

    def numbered(self, session: Session, number: int, records: list[Record], size: int, now: float) -> None:
        """A numbered frame of `size` bytes has come: take it in, or keep it. Raises ProtocolError."""
        if not self.blocked and (self._router.budget <= 0 or self._is_store_full):
            self.measure(now)
        if session.parked or (self.blocked and _publishes(records)):
            self._park(session, number, records, size)
            return
        if session.bucket is not None and self._is_over_rate(session, records, now):
            self._hold(session)
            self._park(session, number, records, size)
            return
        self._take_in(session, number, records, size, now)

    def _park(self, session: Session, number: int, records: list[Record], size: int) -> None:
        """Healthy subscribers lag, or it publishes too fast: the frame is not accepted yet, so credit runs out."""
        if session.parked_size + size > 2 * self.limits.link_buffer + self.limits.max_message:
            raise ProtocolError("more was sent than the hub has given credit for")
        session.parked_size += size
        session.parked.append((number, records, size))
        if session not in self.held:
            self.parked[session] = None

    def _take_in(self, session: Session, number: int, records: list[Record], size: int, now: float) -> None:
        channel = session.channel
        self._dirty[session] = None
        if size > self.limits.max_message:
            self._check_sizes(records)
        if not channel.accept(number, size):
            return
        for record in records:
            # The hot path: a publish on a topic that has been authorised is not checked through the table again.
            if type(record) is list and len(record) == 4 and record[0] == wire.PUBLISH:
                channel.ack_now = True
                if type(record[1]) is str and record[1] in session.publishes:
                    self._publish(session, record, now)
                    continue
            self._dispatch(session, record, now)
            if session.life is Life.DOWN:
                return  # what comes in one frame with BYE, behind it

    def _check_sizes(self, records: list[Record]) -> None:
        """A frame as large as this holds one body (wire.SMALL); what we pass on has to fit in at its receiver."""
        for record in records:
            last = record[-1] if type(record) is list and record else None
            bodies = last if type(last) is list else [last]
            if any(type(body) is bytes and len(body) > self.limits.max_message for body in bodies):
                raise ProtocolError(f"a body has more than max_message ({self.limits.max_message}) bytes")

    # -- max_rate

    def count(self, session: Session, count: int, now: float) -> None:
        """It published: that counts against max_rate."""
        if session.bucket is None:
            session.bucket = Bucket(self.limits.max_rate * session.weight, RATE_BURST, now)
        session.bucket.take(count)

    @staticmethod
    def _is_over_rate(session: Session, records: list[Record], now: float) -> bool:
        """Has it published more than max_rate allows, so that these records have to wait?"""
        return session.bucket is not None and not session.bucket.is_open(now) and _publishes(records)

    def _hold(self, session: Session) -> None:
        """Keep what it sends until its rate allows more; named once."""
        self.held[session] = None
        if not session.over_rate:
            session.over_rate = True
            rate = self.limits.max_rate * session.weight
            text = (
                f"{session.name} ({session.address}) publishes more than {rate} messages per second (max_rate): "
                "it is held back, nothing is lost"
            )
            self._note(Note("warning", text))

    @property
    def holding(self) -> bool:
        """Is anybody held back by max_rate? Then call `release` soon."""
        return bool(self.held)

    def release(self, now: float) -> None:
        """Take in what was held back, as far as each one's rate goes by now."""
        self.parked.update(self.held)
        self.held.clear()
        if not self.blocked:
            self.measure(now)

    def adopt(self, limits: Limits, sessions: list[Session]) -> None:
        """Take over new limits; another max_rate holds from now on, and nobody owes anything to the old one."""
        before, self.limits = self.limits.max_rate, limits
        if before == limits.max_rate:
            return
        self._debts.clear()
        for session in sessions:
            session.over_rate = False
            if not limits.max_rate:
                session.bucket = None  # who is held back goes on with the next `release`
            elif session.bucket is not None:
                session.bucket.rate = limits.max_rate * session.weight

    # -- when to go on

    def measure(self, now: float) -> None:
        """May publishers go on? If they were held back and may, what they sent meanwhile is taken in."""
        self.blocked = self.draining or self._is_store_full or not self._router.measure(now)
        while self.parked and not self.blocked:
            session = next(iter(self.parked))
            del self.parked[session]
            if self._is_over_rate(session, session.parked[0][1], now):
                self._hold(session)
                continue
            number, records, size = session.parked.popleft()
            session.parked_size -= size
            if session.parked:
                self.parked[session] = None  # at the end: publishers take turns
            try:
                self._take_in(session, number, records, size, now)
            except ProtocolError as error:
                self._bad(session, error, now)
            if self._router.budget <= 0 or self._is_store_full:
                self.blocked = self._is_store_full or not self._router.measure(now)
        while self._above and not self.blocked:
            name, kind, bodies, origin = self._above.popleft()
            self._above_size -= sum(map(len, bodies))
            self._router.publish(name, kind, bodies, origin)
            if self._router.budget <= 0:
                self.blocked = not self._router.measure(now)
        if not self._above:
            self._above_lost.clear()

    @property
    def _is_store_full(self) -> bool:
        """Does more wait for the disk than should?"""
        return self.journal is not None and self.journal.is_full

    def acked(self, session: Session, now: float) -> None:
        """It has acknowledged more of what it was sent."""
        if not session.channel.all_sent or session.repairs:
            self._dirty[session] = None
        self.look(now)

    def look(self, now: float) -> None:
        """Something has changed that may let publishers go on: see at the end of the turn.

        Not at once: that is a walk over all that everybody is owed, and a frame can hold many reasons for it.
        """
        if self.blocked:
            self._look = now

    def turn(self) -> bool:
        """The turn of the loop ends; True when what it has taken in needs another one, by the store or the relay."""
        now, self._look = self._look, None
        if now is None or not self.blocked:
            return False
        self.measure(now)
        return not self.blocked

    def drain(self) -> None:
        """Take no more publishes, for good."""
        self.draining = self.blocked = True

    # -- runs from above

    def take_from_above(self, name: str, kind: int, bodies: list[bytes], origin: bytes, now: float) -> None:
        """A run that the master published; waits, bounded, while local subscribers lag."""
        if self._router.budget <= 0 and not self.blocked:
            self.measure(now)
        if not self.blocked and not self._above:
            self._router.publish(name, kind, bodies, origin)
            return
        size = sum(map(len, bodies))
        if self._above_size + size > ABOVE_LIMIT:
            self._router.counters.dropped += len(bodies)
            if name not in self._above_lost:  # one Gap until it has drained, not one a run
                self._above_lost.add(name)
                self._router.pass_gaps({name: "overflow"})
            return
        self._above.append((name, kind, bodies, origin))
        self._above_size += size

    # -- sessions that go

    def let_go(self, session: Session) -> None:
        """Its connection is gone, and with it what was not accepted: its Link sends that again."""
        session.parked.clear()
        session.parked_size = 0
        self.parked.pop(session, None)
        self.held.pop(session, None)

    def ended(self, session: Session) -> None:
        """The session is over; what it owes to max_rate its connection goes on owing."""
        if session.bucket is not None:
            self._debts[session.user] = session.bucket
            if len(self._debts) > DEBTORS:
                del self._debts[next(iter(self._debts))]


def _publishes(records: list[Record]) -> bool:
    """Is any of them, if they are records at all, a PUBLISH or a PUT?"""
    return any(type(record) is list and record[:1] in _PUBLISHING for record in records)
