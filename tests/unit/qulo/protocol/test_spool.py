"""Puts through an agent, over the fake network: straight up, into the spool, and up again, in order and never twice."""

from __future__ import annotations

from typing import Any

from qulo.errors import Disconnected, NoStream, OutcomeUnknown, StoreFull
from qulo.protocol import events
from qulo.protocol.spool import RUN, Spool
from qulo.protocol.storage import Operation, Result, Stream
from qulo.protocol.storage import Spool as SpoolOperation
from qulo.protocol.streams import MOST_AGENTS
from qulo.store.memory import MemoryStore
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Net


class Site:
    """A master with the stream ORDERS, an agent with a spool, and a program there."""

    def __init__(self) -> None:
        self.net = Net()
        self.disk, self.spool_disk = MemoryStore(), MemoryStore()
        self.master = self.net.host("master", disk=self.disk)
        assert self.master.hub.streams is not None
        stream = Stream("ORDERS", ("orders.>",), dedupe_ms=1000)
        self.master.hub.streams.add(stream, lambda error: None, self.net.now)
        self.master.flush()
        self.agent = self.net.host("agent", self.master, disk=self.spool_disk)
        self.program = self.net.program("program", self.agent)

    @property
    def spool(self) -> Spool:
        assert self.agent.up is not None
        assert self.agent.up.spool is not None
        return self.agent.up.spool

    def put(self, *bodies: str, topic: str = "orders.new", **extra: Any) -> list[Any]:
        rids = self.program.put(topic, *bodies, **extra)
        self.net.settle()
        return self.program.put_answers(rids)

    def stored(self) -> list[str]:
        return [message.body.decode() for message in self.disk.read("ORDERS", 0, 10_000, 10**9, 0).messages]

    def go_away(self) -> None:
        self.master.stop()
        self.net.settle()

    def come_back(self) -> None:
        self.master.start()
        self.net.advance(3)


def test_with_the_master_there_it_answers_and_the_spool_stays_empty() -> None:
    site = Site()
    assert site.put("1", "2") == [("master", 1, False), ("master", 2, False)]
    assert site.put("3", topic="other") == [NoStream.code]
    assert site.put("3", topic="local.x") == [NoStream.code]
    assert site.spool_disk.spool_state().messages == 0


def test_while_it_is_away_the_agent_answers_after_its_own_fsync_and_what_it_has_goes_up_in_order() -> None:
    site = Site()
    site.put("1")
    site.go_away()
    site.agent.disk_is_slow = True
    rids = site.program.put("orders.new", "2", "3")
    site.net.settle()
    assert site.program.put_answers(rids) == [None, None]
    site.agent.disk_is_slow = False
    site.agent.sync()
    site.net.settle()
    assert site.program.put_answers(rids) == [("agent", 0, False)] * 2
    site.come_back()
    assert site.stored() == ["1", "2", "3"]
    assert site.spool_disk.spool_state().messages == site.spool.open == 0
    assert site.put("4") == [("master", 4, False)]


def test_who_requires_the_master_is_refused_while_it_is_away_and_waits_behind_the_spool() -> None:
    site = Site()
    site.go_away()
    assert site.put("1", require="master") == [Disconnected.code]
    site.put("2")
    site.master.start()
    site.agent.way_up.wire if site.agent.way_up.connection else site.net.advance(1)
    rids = site.program.put("orders.new", "3", require="master")
    site.net.advance(3)
    assert list(site.program.put_answers(rids)) == [("master", 2, False)]
    assert site.stored() == ["2", "3"]


def test_what_comes_behind_one_who_requires_the_master_does_not_overtake_it_by_the_spool() -> None:
    site = Site()
    site.go_away()
    site.put("1")
    site.master.start()
    site.agent.way_up.wire if site.agent.way_up.connection else site.net.advance(1)
    rids = site.program.put("orders.new", "2", require="master")
    rids += site.program.put("orders.new", "3")
    site.net.advance(3)
    assert [answer and answer[0] for answer in site.program.put_answers(rids)] == ["master", "master"]
    assert site.stored() == ["1", "2", "3"]


def test_what_the_master_has_not_answered_is_spooled_with_its_number_and_stored_once() -> None:
    site = Site()
    site.master.disk_is_slow = True
    rids = site.program.put("orders.new", "1", "2")
    site.net.settle()
    site.master.sync()  # stored, but the answer is lost with the connection
    site.agent.way_up.wire.paused.add("down")
    site.agent.way_up.cut()
    site.net.settle()
    assert site.program.put_answers(rids) == [("agent", 0, False)] * 2
    site.master.disk_is_slow = False
    site.net.advance(5)
    assert site.stored() == ["1", "2"]
    assert site.spool.open == 0
    assert site.put("3") == [("master", 3, False)]


def test_an_outage_longer_than_the_window_of_ids_stores_nothing_twice() -> None:
    site = Site()
    site.master.disk_is_slow = True
    site.program.put("orders.new", "1", ids=["a"])
    site.net.settle()
    site.master.sync()
    site.master.stop()
    site.net.advance(100)
    site.master.disk_is_slow = False
    site.come_back()
    assert site.stored() == ["1"]
    assert site.spool_disk.spool_state().messages == 0


def test_an_unanswered_put_that_required_the_master_is_unknown() -> None:
    site = Site()
    site.master.disk_is_slow = True
    rids = site.program.put("orders.new", "1", require="master")
    site.net.settle()
    site.go_away()
    assert site.program.put_answers(rids) == [OutcomeUnknown.code]


def test_new_puts_go_behind_the_spool_while_it_drains() -> None:
    site = Site()
    site.go_away()
    site.put(*(str(n) for n in range(3 * RUN)))
    site.master.start()
    site.net.now += 1
    for dialler in site.net.diallers:
        dialler.tick()
    for number in range(3 * RUN, 3 * RUN + 20):
        site.net.step()
        site.program.put("orders.new", str(number))
    site.net.advance(5)
    assert site.stored() == [str(n) for n in range(3 * RUN + 20)]


def test_the_spool_outlives_its_agent() -> None:
    site = Site()
    site.go_away()
    site.put("1", "2")
    site.agent.stop()
    site.agent.start()
    site.net.advance(3)
    assert site.agent.said("2 messages are in the spool")
    site.put("3")
    site.come_back()
    assert site.stored() == ["1", "2", "3"]


def test_numbers_are_never_used_twice_also_after_the_agent_was_killed() -> None:
    site = Site()
    for number in range(3):
        site.put(str(number))
        site.agent.restart()
        site.net.advance(3)
    assert site.stored() == ["0", "1", "2"]


def test_what_is_refused_later_goes_to_the_agents_dead_letters_and_the_rest_goes_on() -> None:
    site = Site()
    site.go_away()
    assert site.put("1") + site.put("2", topic="other") + site.put("3") == [("agent", 0, False)] * 3
    site.come_back()
    assert site.stored() == ["1", "3"]
    letters = site.spool_disk.dead()
    assert [(letter.topic, letter.reason.partition(":")[0]) for letter in letters] == [("other", NoStream.code)]
    assert site.spool.buried == 1
    assert site.agent.said("the master refused 1 messages of the spool")
    assert site.spool_disk.spool_state().messages == 0


def test_a_requeued_letter_goes_up_once_there_is_a_stream_for_it() -> None:
    site = Site()
    site.go_away()
    site.put("2", topic="other")
    site.come_back()
    assert site.master.hub.streams is not None
    site.master.hub.streams.add(Stream("OTHER", ("other",)), lambda error: None, site.net.now)
    site.master.flush()
    site.spool.requeue(site.spool_disk.dead()[0], lambda results, now: None, site.net.now)
    site.agent.flush()
    site.net.advance(3)
    assert [message.body for message in site.disk.read("OTHER", 0, 10, 1000, 0).messages] == [b"2"]
    assert site.spool.open == 0


def test_time_in_the_spool_counts_for_delay_and_expiry() -> None:
    site = Site()
    site.go_away()
    put_at = int(site.net.now * 1000)
    site.put("late", delay=60_000)
    site.put("gone", ttl=5_000)
    site.put("kept", ttl=500_000)
    site.net.advance(10)
    site.come_back()
    assert site.master.hub.streams is not None
    wall = site.master.hub.streams.wall(site.net.now)
    read = site.disk.read("ORDERS", 0, 10, 1000, wall)
    assert [message.body for message in read.messages] == [b"kept"]
    assert [delayed.visible_ms for delayed in read.delayed] == [put_at + 60_000]


class Full(MemoryStore):
    """Its spool takes nothing."""

    def commit(self, operations: Any) -> list[Result]:
        kept: list[Operation] = [op for op in operations if not isinstance(op, SpoolOperation)]
        results = iter(super().commit(kept))
        return [
            StoreFull("the spool is full") if isinstance(op, SpoolOperation) else next(results) for op in operations
        ]


def test_a_full_spool_refuses_and_nothing_is_lost() -> None:
    site = Site()
    site.agent.disk = site.spool_disk = Full()
    site.agent.restart()
    site.net.advance(3)
    site.go_away()
    assert site.put("1", "2") == [StoreFull.code] * 2
    site.come_back()
    assert site.put("3") == [("master", 1, False)]


def test_an_agent_passes_on_what_one_below_has_numbered_and_holds_it_while_the_master_is_away() -> None:
    site = Site()
    lower_disk = MemoryStore()
    lower = site.net.host("lower", site.agent, disk=lower_disk)
    program: Program = site.net.program("below", lower)
    rids = program.put("orders.new", "1")
    site.net.settle()
    assert program.put_answers(rids) == [("master", 1, False)]
    site.go_away()
    rids = program.put("orders.new", "2")
    site.net.settle()
    site.come_back()
    assert program.put_answers(rids) == [("master", 2, False)]
    assert site.stored() == ["1", "2"]
    assert site.disk.marks().keys() == {f"agent/{lower_disk.spool_state().agent}"}


def test_a_lower_agents_put_that_is_on_its_way_when_the_master_goes_is_stored_once() -> None:
    site = Site()
    lower = site.net.host("lower", site.agent, disk=MemoryStore())
    program: Program = site.net.program("below", lower)
    site.master.disk_is_slow = True
    rids = program.put("orders.new", "1", "2")
    site.net.settle()
    site.master.sync()
    site.go_away()
    site.master.disk_is_slow = False
    site.come_back()
    assert program.put_answers(rids) == [("master", 0, True)] * 2
    assert site.stored() == ["1", "2"]


def test_nobody_can_make_the_master_take_an_agents_puts_for_repeats() -> None:
    site = Site()
    mine = site.spool_disk.spool_state().agent
    liar = site.net.program("liar", site.master, local=False)  # with a key of its own, but no agent's
    liar.put("orders.new", "x", agent=mine, number=2**61)
    site.net.settle()
    assert site.master.hub.counters.bad_frames == 1
    other = site.net.host("other", site.master, disk=MemoryStore())  # an agent that says it is this one
    other.way_up.link.put_run("orders.new", 0, [b"y"], {"agent": mine, "number": 2**61})
    other.flush()
    site.net.settle()
    assert site.put("z") == [("master", 2, False)]
    assert site.stored() == ["y", "z"]


def test_the_agents_behind_one_key_are_bounded() -> None:
    site = Site()
    for number in range(MOST_AGENTS + 5):
        site.agent.way_up.link.put_run("orders.new", 0, [b"x"], {"agent": f"a{number}", "number": 1})
        site.agent.flush()
        site.net.settle()
        if site.agent.way_up.connection is None:
            break
    assert len(site.disk.marks()) == MOST_AGENTS


# -- consuming through an agent


def test_a_program_consumes_through_its_agent() -> None:
    site = Site()
    sid = site.program.consume("ORDERS")
    site.net.settle()
    site.put("1", "2")
    assert site.program.delivered(sid) == [(1, "1", 1, False), (2, "2", 1, False)]
    site.program.ack(sid, 1)
    site.program.link.reject(sid, 2, "no")
    site.program.turn()
    site.net.settle()
    assert site.disk.groups("ORDERS")[0].floor == 2
    assert [letter.seq for letter in site.disk.dead()] == [2]


def test_after_a_restart_of_the_master_everything_comes_again_and_the_program_is_told() -> None:
    site = Site()
    sid = site.program.consume("ORDERS")
    site.net.settle()
    site.put("1")
    site.program.delivered(sid)
    site.go_away()
    site.come_back()
    assert [event.spans for event in site.program.events if isinstance(event, events.Expired)] == [[]]
    assert site.program.delivered(sid) == [(1, "1", 1, True)]
    site.program.ack(sid, 1)
    site.net.settle()
    assert site.disk.groups("ORDERS")[0].floor == 1


def test_a_program_that_is_lost_below_gives_back_above() -> None:
    site = Site()
    sid = site.program.consume("ORDERS")
    site.net.settle()
    site.put("1")
    assert site.program.delivered(sid)
    other = site.net.program("other", site.agent)
    theirs = other.consume("ORDERS")
    site.net.settle()
    site.program.connection = None
    site.program.retry_at = site.net.now + 10_000
    site.agent.expire(site.program)
    site.net.settle()
    assert other.delivered(theirs) == [(1, "1", 2, True)]


def test_a_stream_that_is_not_there_is_told_from_above() -> None:
    site = Site()
    sid = site.program.consume("NONE")
    site.net.settle()
    rejected = [event for event in site.program.events if isinstance(event, events.Rejected)]
    assert [(event.sid, event.error.code) for event in rejected] == [(sid, NoStream.code)]
    assert not site.agent.session(site.program).consumers


def test_what_may_be_at_the_master_and_finds_no_room_here_is_unknown_and_not_refused() -> None:
    site = Site()
    site.agent.disk = site.spool_disk = Full()
    site.agent.restart()
    site.net.advance(3)
    site.master.disk_is_slow = True
    rids = site.program.put("orders.new", "1")
    site.net.settle()
    site.master.sync()  # stored, and the answer is lost with the connection
    site.agent.way_up.wire.paused.add("down")
    site.agent.way_up.cut()
    site.net.settle()
    assert site.stored() == ["1"]
    assert site.program.put_answers(rids) == [OutcomeUnknown.code]


def test_what_was_answered_in_part_is_spooled_before_what_came_behind_it() -> None:
    site = Site()
    site.master.disk_is_slow = True
    rids = site.program.put("orders.new", "1", "2")
    site.net.settle()
    rids += site.program.put("orders.new", "3")
    site.net.settle()
    site.spool.answered(min(site.spool._flying), 1, "ORDERS", 1, False)
    site.go_away()
    assert site.program.put_answers(rids) == [("master", 1, False), ("agent", 0, False), ("agent", 0, False)]


def test_of_a_lower_agents_put_only_what_was_not_answered_is_sent_again() -> None:
    site = Site()
    lower = site.net.host("lower", site.agent, disk=MemoryStore())
    program: Program = site.net.program("below", lower)
    site.master.disk_is_slow = True
    rids = program.put("orders.new", "1", "2")
    site.net.settle()
    site.master.sync()  # both are stored, and one of the answers gets lost
    site.agent.way_up.wire.paused.add("down")
    site.net.settle()
    site.spool.answered(min(site.spool._flying), 1, "ORDERS", 1, False)
    site.agent.way_up.cut()
    site.master.disk_is_slow = False
    site.net.advance(5)
    assert site.stored() == ["1", "2"]
    assert program.put_answers(rids) == [("master", 1, False), ("master", 0, True)]
