"""Groups: each message to exactly one member, whoever comes and goes."""

from __future__ import annotations

from collections import Counter

from qulo.protocol.groups import HARD_BOUND
from qulo.protocol.ports import Limits
from tests.unit.qulo.protocol.fake_link import Program
from tests.unit.qulo.protocol.fake_net import Host, Net


def world(members: int, limits: Limits | None = None) -> tuple[Net, Host, Program, list[Program]]:
    """A hub, a publisher, and members of one group on jobs.>."""
    net = Net(limits)
    hub = net.host("hub")
    p = net.program("p", hub)
    workers = [net.program(f"w{number}", hub) for number in range(members)]
    for worker in workers:
        worker.join("jobs.>", "g")
    net.settle()
    return net, hub, p, workers


def numbers(count: int) -> list[str]:
    """Bodies."""
    return [str(number) for number in range(count)]


def test_each_message_goes_to_one_member_and_all_have_a_share() -> None:
    net, _, p, workers = world(3)
    p.publish("jobs.x", *numbers(90))
    net.settle()
    shares = [len(worker.work()) for worker in workers]
    assert sorted(text for worker in workers for text in worker.work()) == sorted(numbers(90))
    assert shares == [30, 30, 30]


def test_members_take_turns_also_message_by_message() -> None:
    net, _, p, workers = world(3)
    for text in numbers(9):
        p.publish("jobs.x", text)
        net.settle()
    assert [len(worker.work()) for worker in workers] == [3, 3, 3]


def test_every_group_gets_every_message_and_subscribers_too() -> None:
    net, hub, p, workers = world(2)
    other, subscriber = net.program("other", hub), net.program("sub", hub)
    other.join("jobs.x", "h")
    tracker = subscriber.subscribe("jobs.*")
    net.settle()
    p.publish("jobs.x", *numbers(10))
    net.settle()
    assert sorted(text for worker in workers for text in worker.work()) == sorted(numbers(10))
    assert other.work() == numbers(10)
    assert subscriber.texts(tracker) == numbers(10)


def test_one_program_can_be_two_members() -> None:
    net, _, p, (worker,) = world(1)
    worker.join("jobs.>", "g")
    net.settle()
    p.publish("jobs.x", *numbers(10))
    net.settle()
    assert sorted(worker.work()) == sorted(numbers(10))


def test_a_member_that_left_gets_nothing_more() -> None:
    net, _, p, (first, second) = world(2)
    sid = first.join("jobs.>", "g")
    net.settle()
    first.close(sid)
    first.close(1)
    net.settle()
    p.publish("jobs.x", *numbers(10))
    net.settle()
    assert first.work() == []
    assert second.work() == numbers(10)


def test_work_goes_past_a_member_that_is_suspect_and_what_it_had_comes_when_it_is_back() -> None:
    net, hub, p, (first, second) = world(2)
    first.wire.paused.add("down")
    p.publish("jobs.x", *numbers(10))
    net.settle()
    first.cut()
    p.publish("jobs.x", "a")  # sent to the connection that is gone: the hub hears of it
    net.settle()
    before = len(second.work())
    net.now += 0.1
    if not hub.session(first).connected:
        p.publish("jobs.x", "b", "c")
        for path in ("up", "down"):
            while getattr(p.wire, path):
                p.wire.deliver(path)
    net.advance(3)
    got = Counter([*first.work(), *second.work()])
    assert set(got) >= {*numbers(10), "a"}
    assert set(got.values()) == {1}
    assert len(second.work()) >= before


def test_members_that_die_take_no_more_than_they_held() -> None:
    net, hub, p, (first, second) = world(2)
    first.wire.paused.add("down")
    p.publish("jobs.x", *numbers(10))
    net.settle()
    first.cut()
    hub.expire(first)
    net.programs.remove(first)
    p.publish("jobs.x", *"abcdef")
    net.settle()
    assert sorted(second.work()) == sorted([*numbers(10)[1::2], *"abcdef"]) or len(second.work()) == 11
    assert hub.said("frames for it were not acknowledged")


def test_publishers_wait_while_all_members_are_full() -> None:
    limits = Limits(link_buffer=20_000, max_message=5000)
    net, hub, p, (worker,) = world(1, limits)
    worker.wire.paused.add("down")
    for number in range(40):
        p.publish("jobs.x", f"{number:04}" * 250)
        net.settle()
    assert hub.hub.intake.blocked
    assert hub.session(worker).channel.bytes < HARD_BOUND * limits.link_buffer
    worker.wire.paused.clear()
    net.settle()
    net.advance(1)
    assert len(worker.work()) == 40
    assert hub.hub.counters.dropped == 0


def test_what_exceeds_the_hard_bound_is_dropped_and_said() -> None:
    limits = Limits(link_buffer=20_000, max_message=5000, slow_after=1.0)
    net, hub, p, (worker,) = world(1, limits)
    worker.wire.paused.add("down")
    worker.heard = 1e9
    for number in range(300):
        p.publish("jobs.x", f"{number:04}" * 250)
        net.advance(0.5)
    assert hub.said("messages are dropped, every member is full")
    assert hub.hub.counters.dropped > 0
    assert hub.session(worker).channel.bytes <= HARD_BOUND * limits.link_buffer + limits.max_message
    assert sum("messages are dropped" in note.text for note in hub.notes) == 1, "once, not once a message"
    worker.wire.paused.clear()
    net.advance(3)
    p.publish("jobs.x", "again")
    net.advance(1)
    assert hub.said(f"{hub.hub.counters.dropped} messages were dropped")


def test_a_run_that_fills_a_frame_still_fits_when_it_is_dealt() -> None:
    net, _, p, (worker,) = world(1)
    p.wire.paused.add("up")
    p.publish("jobs.x", *["" for _ in range(30_000)])
    p.wire.paused.clear()
    net.settle()
    net.advance(2)
    assert len(worker.work()) == 30_000
    assert worker.errors == []


def test_local_topics_are_dealt_to_members_on_this_host_only() -> None:
    net = Net()
    hub = net.host("hub")
    p, here, there = net.program("p", hub), net.program("here", hub), net.program("there", hub, local=False)
    there.join(">", "g")
    net.settle()
    p.publish("local.secret", *numbers(5))
    net.settle()
    assert there.work() == []
    here.join(">", "g")
    net.settle()
    p.publish("local.secret", *numbers(5))
    p.publish("other", *numbers(10))
    net.settle()
    assert there.work() == [text for text in there.work() if text in numbers(10)]
    assert len(there.work()) == 5
    assert len(here.work()) == 10
