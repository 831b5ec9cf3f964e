"""The blocking front against a real hub, and its outbox by itself."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import qulo
from qulo import client, handover, sync
from qulo.errors import (
    BadBody,
    BadTopic,
    DeadlineExceeded,
    Disconnected,
    EndpointError,
    HandlerError,
    NoResponders,
    TooLarge,
    UsageError,
)
from qulo.protocol.tracker import Gap
from tests.unit.qulo.conftest import PATIENCE, Hub, until


@pytest.fixture(autouse=True)
def no_thread_is_left(hub: Hub) -> Iterator[None]:
    """`hub` comes first: its own Bus has a thread."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def bus(hub: Hub) -> Iterator[sync.Bus]:
    with sync.connect(hub.url, name="sync-tests") as bus:
        yield bus


def test_it_has_the_verbs_of_the_client_with_their_arguments() -> None:
    missing = [name for name in vars(client.Bus) if name[0] != "_" and not hasattr(sync.Bus, name)]
    assert missing == ["open"]  # connect does it
    for verb in ("publish", "subscribe", "respond", "request", "request_many", "flush", "put", "consume", "read"):
        theirs = inspect.signature(getattr(client.Bus, verb)).parameters
        ours = inspect.signature(getattr(sync.Bus, verb)).parameters
        assert {**ours, **theirs}.keys() == ours.keys()
        assert [(name, p.default) for name, p in theirs.items()] == [(n, ours[n].default) for n in theirs]
    assert inspect.signature(sync.connect).parameters == inspect.signature(client.connect).parameters


def test_messages_come_in_order_with_their_values_and_headers(bus: sync.Bus) -> None:
    with bus.subscribe("sync.order.>") as sub:
        for number in range(2000):
            bus.publish("sync.order.number", number)
        bus.publish("sync.order.last", b"raw", {"key": "value"})
        got = [sub.next(PATIENCE) for _ in range(2001)]
    assert all(isinstance(item, client.Message) for item in got)
    assert [item.body for item in got[:-1] if not isinstance(item, Gap)] == list(range(2000))
    assert repr(got[-1]) == "Message('sync.order.last', b'raw', {'key': 'value'})"


def test_next_keeps_its_deadline_also_after_messages(bus: sync.Bus) -> None:
    with bus.subscribe("sync.next") as sub:
        bus.publish("sync.next", b"1")
        sub.next(PATIENCE)
        with pytest.raises(DeadlineExceeded, match=r"nothing came on sync\.next within 0\.05 s"):
            sub.next(0.05)
        bus.publish("sync.next", b"2")
        sub.next(PATIENCE)


@pytest.mark.parametrize("topic", ["", "a..b", "a b", "a.*", "$qulo.list", "x" * 300])
def test_a_bad_topic_is_refused_before_anything_is_sent(bus: sync.Bus, topic: str) -> None:
    with pytest.raises(BadTopic):
        bus.publish(topic, b"")


def test_a_bad_body_is_refused_before_anything_is_sent(bus: sync.Bus) -> None:
    with bus.subscribe("sync.bad") as sub:
        with pytest.raises(BadBody):
            bus.publish("sync.bad", object())
        with pytest.raises(TooLarge):
            bus.publish("sync.bad", bytes(2 * 1024 * 1024))
        bus.publish("sync.bad", b"good")
        assert isinstance(first := sub.next(PATIENCE), client.Message)
        assert first.body == b"good"


def test_a_body_can_be_changed_after_publish(bus: sync.Bus) -> None:
    with bus.subscribe("sync.changed") as sub:
        body = bytearray(b"before")
        bus.publish("sync.changed", body)
        body[:] = b"after!"
        assert isinstance(first := sub.next(PATIENCE), client.Message)
        assert first.body == b"before"


def test_a_request_follows_what_was_published_before_it(bus: sync.Bus) -> None:
    seen: list[bytes] = []
    bus.subscribe("sync.before", lambda message: seen.append(message.body))
    bus.respond("sync.count", lambda _message: len(seen))
    for _ in range(100):
        bus.publish("sync.before", b"x")
    bus.flush()
    until(lambda: bus.request("sync.count") == 100)


def test_a_handler_has_its_own_thread_and_may_use_the_bus(bus: sync.Bus) -> None:
    done = threading.Event()
    seen: dict[str, Any] = {}

    def handle(message: client.Message) -> None:
        seen["answer"] = bus.request("sync.double", message.body)
        seen["thread"] = threading.current_thread().name
        done.set()

    bus.respond("sync.double", lambda message: 2 * message.body)
    bus.subscribe("sync.handled", handle)
    bus.publish("sync.handled", 21)
    assert done.wait(PATIENCE)
    assert seen == {"answer": 42, "thread": "qulo handler of sync.handled"}


def test_a_handler_that_fails_is_logged_and_goes_on(bus: sync.Bus, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def handle(message: client.Message) -> None:
        seen.append(message.body)
        assert message.body != 1, "on purpose"

    bus.subscribe("sync.fails", handle)
    bus.publish("sync.fails", 1)
    bus.publish("sync.fails", 2)
    until(lambda: seen == [1, 2])
    assert "the handler of sync.fails failed" in caplog.text


def test_a_responder_may_block_while_others_answer(bus: sync.Bus) -> None:
    release = threading.Event()

    def answer(message: client.Message) -> Any:
        if message.body == "wait":
            assert release.wait(PATIENCE)
        return message.body

    with bus.respond("sync.block", answer):
        answers: list[Any] = []
        asker = threading.Thread(target=lambda: answers.append(bus.request("sync.block", "wait")))
        asker.start()
        assert bus.request("sync.block", "at once") == "at once"
        release.set()
        asker.join(PATIENCE)
    assert answers == ["wait"]


def test_requests_end_with_an_answer_or_a_named_error(bus: sync.Bus) -> None:
    def fail(_message: client.Message) -> None:
        raise ValueError("on purpose")

    release = threading.Event()
    bus.respond("sync.fail", fail)
    bus.respond("sync.slow", lambda _message: release.wait(PATIENCE))
    with pytest.raises(NoResponders):
        bus.request("sync.nobody")
    with pytest.raises(HandlerError, match="ValueError: on purpose"):
        bus.request("sync.fail")
    with pytest.raises(DeadlineExceeded, match=r"no answer on sync\.slow within 0\.1 s"):
        bus.request("sync.slow", timeout=0.1)
    release.set()


def test_many_answers_come_one_by_one(bus: sync.Bus) -> None:
    for number in range(3):
        bus.respond("sync.many", partial(lambda number, _message: number, number))
    assert sorted(bus.request_many("sync.many", timeout=PATIENCE)) == [0, 1, 2]
    assert len(list(bus.request_many("sync.many", timeout=PATIENCE, count=2))) == 2
    for _answer in bus.request_many("sync.many", timeout=PATIENCE):
        break  # leaves the others
    with pytest.raises(NoResponders):
        list(bus.request_many("sync.nobody"))


def test_each_message_goes_to_one_member_of_a_group(bus: sync.Bus) -> None:
    lock, seen = threading.Lock(), []

    def take(message: client.Message) -> None:
        with lock:
            seen.append(message.body)

    for _ in range(2):
        bus.subscribe("sync.group", take, group="g")
    for number in range(20):
        bus.publish("sync.group", number)
    until(lambda: len(seen) >= 20)
    assert sorted(seen) == list(range(20))


def test_what_was_missed_is_a_gap_in_place(hub: Hub) -> None:
    with sync.connect(hub.url, subscription_buffer=100) as bus, bus.subscribe("sync.gap") as sub:
        bus.publish("sync.gap", bytes(60))
        bus.flush()
        bus.publish("sync.gap", bytes(60))
        bus.flush()
        until(lambda: sub.gaps)
        first, second = sub.next(PATIENCE), sub.next(PATIENCE)
    assert isinstance(first, client.Message)
    assert isinstance(second, Gap)
    assert second.reason == "overflow"


def test_with_a_handler_gaps_go_to_on_gap(hub: Hub) -> None:
    gaps: list[Gap] = []
    with sync.connect(hub.url, subscription_buffer=10) as bus:
        bus.subscribe("sync.told", lambda _message: None, on_gap=gaps.append)
        bus.publish("sync.told", bytes(60))
        until(lambda: gaps)
    assert gaps[0].pattern == "sync.told"


def test_coroutines_are_refused(bus: sync.Bus) -> None:
    async def handle(_message: client.Message) -> None:
        """Never called."""

    with pytest.raises(UsageError, match=r"qulo\.connect"):
        bus.subscribe("sync.x", handle)
    with pytest.raises(UsageError):
        bus.respond("sync.x", handle)


def test_closing_ends_iteration_everywhere(hub: Hub) -> None:
    bus = sync.connect(hub.url)
    sub = bus.subscribe("sync.closing")
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(sub))
    reader.start()
    bus.publish("sync.closing", 1)
    until(lambda: got)
    bus.close()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert not bus.connected
    for call in (lambda: bus.publish("a", b""), bus.flush, lambda: bus.request("a"), sub.next):
        with pytest.raises(Disconnected):
            call()
    bus.close()  # again: nothing happens


def test_closing_lets_answers_under_way_go_out(hub: Hub, bus: sync.Bus) -> None:
    entered, release = threading.Event(), threading.Event()

    def answer(_message: client.Message) -> str:
        entered.set()
        assert release.wait(PATIENCE)
        return "in time"

    other = sync.connect(hub.url)
    other.respond("sync.last", answer)
    answers: list[Any] = []
    asker = threading.Thread(target=lambda: answers.append(bus.request("sync.last")))
    asker.start()
    assert entered.wait(PATIENCE)
    closer = threading.Thread(target=other.close)
    closer.start()
    release.set()
    for thread in (asker, closer):
        thread.join(PATIENCE)
    assert answers == ["in time"]


def test_no_hub_is_an_error_and_leaves_no_thread(hub: Hub) -> None:
    with pytest.raises(EndpointError, match="nobody"):
        sync.connect(f"ipc://{hub.place}/nobody.sock", timeout=0.1)


def test_without_a_hub_every_call_keeps_its_deadline(hub: Hub) -> None:
    with sync.connect(f"ipc://{hub.place}/nobody.sock", timeout=None) as bus:
        assert not bus.connected
        bus.publish("sync.away", b"waits for a hub")
        with pytest.raises(Disconnected, match=r"no hub within 0\.05 s"):
            bus.request("sync.away", timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            bus.flush(0.05)


def test_on_state_cannot_make_the_private_thread_wait_for_itself(hub: Hub) -> None:
    errors: list[Exception] = []
    made: list[sync.Bus] = []

    def on_state(state: str) -> None:
        until(lambda: made)
        try:
            made[0].request("sync.x")
        except UsageError as error:
            errors.append(error)

    with sync.connect(hub.url, timeout=None, on_state=on_state) as bus:
        made.append(bus)
        until(lambda: errors)
    assert "on_state" in str(errors[0])


# -- the outbox


def _entry(size: int) -> tuple[str, int, bytes]:
    return ("t", 0, bytes(size))


def test_the_outbox_wakes_the_loop_once_for_many_messages() -> None:
    wakes: list[None] = []
    outbox = handover.Outbox(lambda: wakes.append(None))
    for _ in range(100):
        outbox.publish(_entry(1), None)
    assert len(wakes) == 1
    assert len(outbox.take()) == 100
    outbox.publish(_entry(1), None)
    assert len(wakes) == 1  # the loop will look again before it sleeps
    outbox.take()
    assert outbox.take() == []
    outbox.publish(_entry(1), None)
    assert len(wakes) == 2


def test_a_full_outbox_blocks_until_the_loop_takes_from_it() -> None:
    outbox = handover.Outbox(lambda: None)
    outbox.publish(_entry(handover.OUTBOX), None)
    with pytest.raises(DeadlineExceeded, match="this one was not sent"):
        outbox.publish(_entry(1), 0.01)
    blocked = threading.Thread(target=lambda: outbox.publish(_entry(1), PATIENCE))
    blocked.start()
    assert outbox.take() == [_entry(handover.OUTBOX)]
    blocked.join(PATIENCE)
    assert outbox.take() == [_entry(1)]


def test_the_end_of_the_outbox_is_told_to_whoever_waits() -> None:
    outbox = handover.Outbox(lambda: None)
    outbox.publish(_entry(handover.OUTBOX), None)
    told: list[str] = []

    def publish() -> None:
        try:
            outbox.publish(_entry(1), PATIENCE)
        except Disconnected:
            told.append("publish")

    blocked = threading.Thread(target=publish)
    blocked.start()
    outbox.end()
    blocked.join(PATIENCE)
    assert told == ["publish"]


# -- whole processes


def _python(code: str) -> tuple[str, str, str]:
    return (sys.executable, "-c", f"import os, qulo.sync\n{code}")


def test_ctrl_c_ends_a_wait_without_an_end(hub: Hub) -> None:
    code = """
with qulo.sync.connect() as bus:
    try:
        bus.subscribe("sync.interrupted").next()
    except KeyboardInterrupt:
        print("interrupted")
"""
    process = hub.start_listening(*_python(code))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"interrupted\n", b"")


def test_ctrl_c_ends_a_wait_for_many_answers(hub: Hub, bus: sync.Bus) -> None:
    code = """
with qulo.sync.connect() as bus:
    try:
        for answer in bus.request_many("sync.asked", timeout=30):
            print(answer, flush=True)
    except KeyboardInterrupt:
        print("interrupted")
"""
    never = threading.Event()
    with bus.respond("sync.asked", lambda _msg: "one"), bus.respond("sync.asked", lambda _msg: never.wait(PATIENCE)):
        process = hub.start(*_python(code))
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == (b"interrupted\n", b"")
        never.set()


def test_after_an_interrupt_at_any_moment_the_bus_works(hub: Hub, bus: sync.Bus) -> None:
    """A KeyboardInterrupt comes between any two steps: it must leave nothing locked, and no wake-up untold."""
    code = """
import random, signal

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
random.seed(1)
interrupted = 0
with qulo.sync.connect() as bus, bus.subscribe("sync.cut") as sub:
    for turn in range(600):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 8e-4))
            while True:
                if turn % 3 == 0:
                    list(bus.request_many("sync.quick"))
                elif turn % 3 == 1:
                    bus.request("sync.quick")
                else:
                    bus.publish("sync.cut", turn)
                    sub.next(5)
        except KeyboardInterrupt:
            interrupted += 1
        assert bus.request("sync.quick", timeout=5) == "here"
print(interrupted)
"""
    with bus.respond("sync.quick", lambda _msg: "here"):
        done = hub.run(*_python(code))
    assert (done.stdout, done.stderr) == (b"600\n", b"")


def test_a_bus_left_open_is_closed_at_the_end_of_the_program(hub: Hub, bus: sync.Bus) -> None:
    with bus.subscribe("sync.exit") as sub:
        done = hub.run(*_python("qulo.sync.connect().publish('sync.exit', 'said')"))
        assert (done.returncode, done.stderr) == (0, b"")
        assert isinstance(item := sub.next(PATIENCE), client.Message)
    assert item.body == "said"


def test_a_forked_child_is_told_and_does_not_disturb_its_parent(hub: Hub) -> None:
    code = """
bus = qulo.sync.connect()
bus.respond("sync.forked", lambda message: "parent")
if os.fork() == 0:
    try:
        bus.publish("sync.x", b"")
    except qulo.QuloError as error:
        print(error, flush=True)
    bus.close()
    raise SystemExit
os.wait()
print(bus.request("sync.forked"))
"""
    done = hub.run(*_python(code))
    assert done.stdout.decode().splitlines() == [
        "this Bus belongs to the process that was forked: connect anew in the child",
        "parent",
    ]
    assert done.returncode == 0


def test_the_public_names_are_all_there() -> None:
    assert all(getattr(qulo, name) is not None for name in qulo.__all__)
    assert dir(qulo) == sorted(qulo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(qulo, "nothing")  # noqa: B009 - mypy knows that it is not there


def test_the_hubs_credit_bounds_what_waits_also_one_message_at_a_time(hub: Hub) -> None:
    with sync.connect(hub.url) as bus:
        link = bus._bus._link
        os.kill(hub.pid, signal.SIGSTOP)
        try:
            # Faster than three heartbeats: a link that has noticed bounds what waits in another way.
            _publish_one_by_one(bus, 800)
            assert link.channel.bytes < 2 * link.channel.limit
        finally:
            os.kill(hub.pid, signal.SIGCONT)
        bus.flush()
    until(lambda: hub.bus.connected)


def _publish_one_by_one(bus: sync.Bus, count: int) -> None:
    """Each when the loop has dealt with the one before, until it does not any more."""
    for _ in range(count):
        bus.publish("stalled", b"x" * 20_000, timeout=0.2)
        deadline = time.monotonic() + 0.1
        while not bus._outbox._asleep:
            if time.monotonic() > deadline:
                return
            time.sleep(0)
