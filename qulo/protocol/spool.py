"""An agent's puts: straight to the master while it is there, into the agent's own spool on disk while it is not. Pure.

Every put gets a number, in order, online too; the master remembers the highest of each agent with the messages
themselves, so whatever is sent twice is stored once, however long the master was away.

    online    link, answered by the master                       nothing in the spool
    away      spool, answered `at: agent` after fsync
    draining  spool → link, in order; new puts go behind it       until the spool is empty

What was acknowledged here and refused by the master goes to this agent's dead letters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from qulo.errors import Disconnected, NoStream, OutcomeUnknown, Overloaded, QuloError
from qulo.protocol import storage, topics, wire
from qulo.protocol.journal import Journal, Then, ignore
from qulo.protocol.link import Link, Phase
from qulo.protocol.ports import Note, Put
from qulo.protocol.session import Life, Session
from qulo.protocol.storage import Numbers, SpoolBury, SpoolRelease, SpoolState, Store
from qulo.protocol.streams import AT_AGENT, AT_MASTER, check_put, refuse

# Numbers that are taken at a time, each block a commit; the next when half of it is used.
BLOCK = 1_000_000

# Messages and bytes of the spool that are read at a time, and bytes of it that may be under way to the master.
READ_COUNT, READ_BYTES = 1000, 256 * 1024
UNDER_WAY = 1024 * 1024

# Messages of the spool that go up in one record: well below a frame, whatever their ids are.
RUN = 50

# Seconds between two lines in the log about what the master refused.
REFUSED_EVERY = 10.0

# Bytes of puts that wait for room on the way to the master; beyond it they are refused.
QUEUE = 16 * 1024 * 1024


class Loaded(NamedTuple):
    """What the store knows when an agent starts."""

    state: SpoolState
    first_number: int


def load(store: Store) -> Loaded:
    """Everything that `Spool.adopt` needs, with a first block of numbers. Blocks; in the store's thread."""
    before = store.spool_state()
    store.commit([Numbers(BLOCK)])
    return Loaded(before, before.next_number)


@dataclass(slots=True, eq=False)
class Flight:
    """A PUT on its way to the master: a session's own, or (session None) some of the spool."""

    session: Session | None
    put: Put
    number: int  # of its first message; 0 where a lower agent has numbered it
    time_ms: int
    size: int
    left: int  # messages without an answer


class Spool:
    """The puts of one agent."""

    def __init__(self, link: Link, note: Callable[[Note], None]) -> None:
        self.journal = Journal()
        self.offset_ms = 0
        """Wall clock minus the clock of `now`; the driver keeps it."""
        self.due: float | None = None  # nothing is due here but for what happens
        self.open = 0
        """Messages acknowledged here that the master has not answered."""
        self.buried = 0
        """Messages acknowledged here that the master refused, since the start."""
        self._link = link
        self._note = note
        self._untold = 0  # of what the master refused, since that was last told
        self._told = -REFUSED_EVERY
        self._agent = ""
        self._next = 0
        self._end = 0  # of the block of numbers
        self._taking = False
        self._queue: deque[tuple[Session, Put, int]] = deque()
        self._queued = 0
        self._passing: deque[tuple[Session, Put]] = deque()  # of lower agents
        self._passing_size = 0
        self._flying: dict[int, Flight] = {}  # by the number of the first unanswered put
        self._spool_flying = 0  # bytes
        self._sent = 0  # up to this number the spool is under way, or answered
        self._answered = 0
        self._top = 0  # the last number that was spooled and is on disk
        self._reading = False

    def adopt(self, loaded: Loaded) -> None:
        """Begin with what the store has."""
        state = loaded.state
        self._agent = state.agent
        self._next, self._end = loaded.first_number, loaded.first_number + BLOCK
        self.open = state.messages
        self._sent = self._answered = max(0, state.first - 1)
        self._top = self._next - 1 if state.messages else self._sent
        if state.messages:
            self._note(Note("info", f"{state.messages} messages are in the spool, for the master"))

    def _wall(self, now: float) -> int:
        return int(now * 1000) + self.offset_ms

    # -- from below

    def put(self, session: Session, put: Put, now: float) -> None:
        """A program's put, or a lower agent's. Raises ProtocolError for what cannot be said like that."""
        ids = check_put(put)
        if topics.is_local(put.topic):
            refuse(session, put, NoStream(f"{put.topic}: no stream stores what is local to a host"))
        elif put.extra and "agent" in put.extra:
            self._pass_on(session, put, now)
        elif self._is_online or self._queue or (_requires(put) and self._link.phase is Phase.UP):
            self._queue_up(session, put, now)
        elif _requires(put):
            refuse(session, put, Disconnected("the master is away, and this put was not to be kept by the agent"))
        else:
            self._spool(session, put, ids, self._wall(now))

    def _queue_up(self, session: Session, put: Put, now: float) -> None:
        """To the master with it; behind the spool, and behind what waits for that already, so that order is kept."""
        size = _size(put)
        if self._queued + size > QUEUE:
            refuse(session, put, Overloaded("the way to the master is full"))
        elif self._queue or self.open or self._link.room < size:
            self._queue.append((session, put, self._wall(now)))
            self._queued += size
        else:
            self._forward(session, put, self._wall(now), now)

    @property
    def _is_online(self) -> bool:
        return self._link.phase is Phase.UP and not self.open

    def _pass_on(self, session: Session, put: Put, now: float) -> None:
        """A lower agent's put, numbered by it: it waits here for the master, in order, and is spooled there."""
        size = _size(put)
        if self._passing_size + size > QUEUE:
            refuse(session, put, Overloaded("the way to the master is full"))
            return
        self._passing.append((session, put))
        self._passing_size += size
        self._pass()

    def _pass(self) -> None:
        while self._passing and self._link.phase is Phase.UP and self._link.room >= _size(self._passing[0][1]):
            session, put = self._passing.popleft()
            self._passing_size -= _size(put)
            if session.life is not Life.DOWN:  # else it sends them again, in its next session
                rid = self._link.put_run(put.topic, put.kind, put.bodies, put.extra)
                self._flying[rid] = Flight(session, put, 0, 0, 0, len(put.bodies))

    def _number(self, count: int) -> int:
        first = self._next
        self._next += count
        if not self._taking and self._next > self._end - BLOCK // 2:
            self._taking = True
            self.journal.submit([Numbers(BLOCK)], self._numbers_taken)
        return first

    def _numbers_taken(self, results: list[storage.Result], now: float) -> None:
        """The store hands out blocks in a row, and nobody else takes any."""
        self._taking = False
        self._end += BLOCK

    def _forward(self, session: Session, put: Put, time_ms: int, now: float) -> None:
        number = self._number(len(put.bodies))
        extra = {k: v for k, v in (put.extra or {}).items() if k != "require"}
        extra |= {"agent": self._agent, "number": number, "age": max(0, self._wall(now) - time_ms)}
        rid = self._link.put_run(put.topic, put.kind, put.bodies, extra)
        self._flying[rid] = Flight(session, put, number, time_ms, 0, len(put.bodies))

    def _spool(
        self, session: Session, put: Put, ids: list[str | None], time_ms: int, number: int | None = None
    ) -> None:
        extra = put.extra or {}
        visible = time_ms + extra["delay"] if extra.get("delay") else 0
        expires = time_ms + extra["ttl"] if extra.get("ttl") else 0
        first = self._number(len(put.bodies)) if number is None else number
        operations = [
            storage.Spool(first + i, put.topic, put.kind, body, time_ms, ids[i], visible, expires)
            for i, body in enumerate(put.bodies)
        ]
        self.open += len(operations)
        spooled = partial(self._spooled, session, put, first, number is not None)
        self.journal.submit(operations, spooled, _size(put))

    def _spooled(
        self, session: Session, put: Put, first: int, sent: bool, results: list[storage.Result], now: float
    ) -> None:
        """`sent`: the master had been given these and had not answered."""
        for at, result in enumerate(results):
            if isinstance(result, QuloError):
                self.open -= 1
                error = OutcomeUnknown(f"the master was lost before it answered, and here: {result}")
                refuse(session, put, error if sent else result, at, 1)
            else:
                self._top = first + at
        if not any(isinstance(result, QuloError) for result in results):
            record = [wire.STORED, put.rid, len(results), "", 0, False, AT_AGENT]
            session.channel.add(record, wire.RECORD_OVERHEAD)
        else:
            for at, result in enumerate(results):
                if not isinstance(result, QuloError):
                    session.channel.add([wire.STORED, put.rid + at, 1, "", 0, False, AT_AGENT], wire.RECORD_OVERHEAD)

    def requeue(self, letter: storage.DeadLetter, then: Then, now: float) -> None:
        """Give a dead letter back to the spool; `then` gets the result of the Requeue. Raises Overloaded."""
        if self._flying and not self.open:
            raise Overloaded("puts are on their way to the master, which would come behind this one: try again")
        number = self._number(1)
        self.open += 1

        def requeued(results: list[storage.Result], now: float) -> None:
            if isinstance(results[0], storage.Appended):
                self._top = number
            else:
                self.open -= 1
            then(results, now)

        self.journal.submit([storage.Requeue(letter.number, self._wall(now), number)], requeued)

    # -- from above

    def answered(self, rid: int, count: int, stream: str, seq: int, duplicate: bool) -> None:
        """The master has stored these puts."""
        flight, at = self._landed(rid, count)
        if flight is None:
            return
        if flight.session is not None:
            record = [wire.STORED, flight.put.rid + at, count, stream, seq, duplicate, AT_MASTER]
            flight.session.channel.add(record, wire.RECORD_OVERHEAD + len(stream))
            return
        self._answered = flight.number + at + count - 1
        self.open -= count
        self.journal.submit([SpoolRelease(self._answered)], ignore)

    def refused(self, rid: int, count: int, error: QuloError, now: float) -> None:
        """The master does not store these puts."""
        flight, at = self._landed(rid, count)
        if flight is None:
            return
        if flight.session is not None:
            refuse(flight.session, flight.put, error, at, count)
            return
        self.open -= count
        self.buried += count
        first = flight.number + at
        reason = f"{error.code}: {error}"
        self._untold += count
        if now - self._told >= REFUSED_EVERY:
            self._told, untold, self._untold = now, self._untold, 0
            text = f"the master refused {untold} messages of the spool, now in `qulo dead ls --agent`: {error}"
            self._note(Note("error", text))
        self.journal.submit(
            [SpoolBury(number, reason, self._wall(now)) for number in range(first, first + count)], self._buried
        )

    def _buried(self, results: list[storage.Result], now: float) -> None:
        for result in results:
            if isinstance(result, QuloError):
                self._note(
                    Note("error", f"there is no room for a message that the master refused, it is lost: {result}")
                )

    def _landed(self, rid: int, count: int) -> tuple[Flight | None, int]:
        """The flight that these puts belong to, and which of its messages they begin with."""
        flight = self._flying.pop(rid, None)
        if flight is None:
            return None, 0
        at = len(flight.put.bodies) - flight.left
        flight.left -= count
        if flight.left > 0:
            self._flying[rid + count] = flight
        elif flight.session is None:
            self._spool_flying -= flight.size
        return flight, at

    def went_away(self, now: float) -> None:
        """The connection is gone: what it has not answered goes into the spool, with the numbers that it has."""
        flights, self._flying = self._flying, {}
        queue, self._queue = self._queue, deque()
        self._link.withdraw_puts()
        self._spool_flying = self._queued = 0
        self._sent = self._answered
        passing: list[tuple[Session, Put]] = []
        for _, flight in sorted(flights.items()):  # one that was answered in part stands behind newer ones
            session, put = flight.session, flight.put
            if session is None:
                continue
            at = len(put.bodies) - flight.left
            if not flight.number:
                passing.append((session, _rest(put, at)))
            elif _requires(put):
                text = "the connection to the master was lost before it answered; the outcome is unknown"
                refuse(session, put, OutcomeUnknown(text), at, flight.left)
            else:
                ids = check_put(put)[at:]
                rest = put._replace(rid=put.rid + at, bodies=put.bodies[at:])
                self._spool(session, rest, ids, flight.time_ms, flight.number + at)
        self._passing.extendleft(reversed(passing))
        self._passing_size += sum(_size(put) for _, put in passing)
        for session, put, time_ms in queue:
            if _requires(put):
                refuse(session, put, Disconnected("the master is away, and this put was not to be kept by the agent"))
            else:
                self._spool(session, put, check_put(put), time_ms)

    # -- every turn

    def turn(self, now: float) -> None:
        """Send what waits, as far as there is room."""
        if self._link.phase is not Phase.UP:
            return
        self._pass()
        while self._queue and not self.open and self._link.room >= _size(self._queue[0][1]):
            session, put, time_ms = self._queue.popleft()
            self._queued -= _size(put)
            self._forward(session, put, time_ms, now)
        if self.open and not self._reading and self._sent < self._top and self._spool_flying < UNDER_WAY:
            self._reading = True
            after, top = self._sent, self._top

            def read(store: Store) -> list[storage.Spool]:
                return store.spool(after, READ_COUNT, READ_BYTES)

            self.journal.ask(read, partial(self._have_read, after, top))

    @property
    def idle(self) -> bool:
        """Is every put answered, of those that do not wait for the master?"""
        return self.journal.idle and not any(flight.session for flight in self._flying.values()) and not self._queue

    def _have_read(self, after: int, top: int, puts: list[storage.Spool], now: float) -> None:
        self._reading = False
        if after != self._sent or self._link.phase is not Phase.UP:
            return  # the connection was lost meanwhile
        if not puts:
            self._sent = top
            return
        wall = self._wall(now)
        run: list[storage.Spool] = []
        for put in puts:
            if run and (len(run) == RUN or not _continues(run[-1], put)):
                self._send(run, wall)
                run = []
            run.append(put)
        if run:
            self._send(run, wall)

    def _send(self, run: list[storage.Spool], wall: int) -> None:
        first = run[0]
        extra: dict[str, Any] = {
            "agent": self._agent,
            "number": first.number,
            "age": max(0, wall - first.time_ms),
        }
        if first.visible_ms:
            extra["delay"] = first.visible_ms - first.time_ms
        if first.expires_ms:
            extra["ttl"] = first.expires_ms - first.time_ms
        if any(put.id is not None for put in run):
            extra["ids"] = [put.id for put in run]
        bodies = [put.body for put in run]
        rid = self._link.put_run(first.topic, first.kind, bodies, extra)
        size = sum(map(len, bodies)) + 100 * len(bodies)
        put = Put(rid, first.topic, first.kind, extra, bodies)
        self._flying[rid] = Flight(None, put, first.number, first.time_ms, size, len(run))
        self._spool_flying += size
        self._sent = run[-1].number


def _continues(last: storage.Spool, put: storage.Spool) -> bool:
    """Can the two go in one record?"""
    return (
        put.number == last.number + 1
        and put[1:3] == last[1:3]
        and put.time_ms == last.time_ms
        and put[6:] == last[6:]
        and len(put.body) + len(last.body) < wire.BATCH // (2 * RUN)
    )


def _size(put: Put) -> int:
    return sum(map(len, put.bodies)) + 100 * len(put.bodies)


def _requires(put: Put) -> bool:
    """Is it not to be kept by an agent?"""
    return put.extra is not None and put.extra.get("require") == AT_MASTER


def _rest(put: Put, at: int) -> Put:
    """What a lower agent's put is without its first messages, which are answered."""
    if not at or put.extra is None:
        return put
    extra = put.extra | {"number": put.extra["number"] + at}
    if "ids" in extra:
        extra["ids"] = extra["ids"][at:]
    return put._replace(rid=put.rid + at, bodies=put.bodies[at:], extra=extra)
