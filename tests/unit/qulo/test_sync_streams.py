"""Streams through the blocking front: threads put, share a consumer, settle, and can be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from qulo import sync
from qulo.errors import NoStream
from tests.unit.qulo.conftest import PATIENCE, Hub, until


@pytest.fixture
def bus(hub: Hub) -> Iterator[sync.Bus]:
    with sync.connect(hub.url, name="sync-streams") as bus:
        bus.request("$qulo.stream.add", {"name": "JOBS", "topics": ["jobs.>"], "max_tries": 2})
        yield bus
        bus.request("$qulo.stream.rm", {"stream": "JOBS"})


def test_what_is_put_is_consumed_and_settled(bus: sync.Bus) -> None:
    assert bus.put("jobs.a", {"n": 1}, id="1") == ("JOBS", 1, False, "master")
    assert bus.put("jobs.a", {"n": 1}, id="1").duplicate
    with pytest.raises(NoStream):
        bus.put("nowhere", b"")
    with bus.consume("JOBS", group="g") as work:
        (message,) = work.fetch(timeout=PATIENCE)
        assert isinstance(message, sync.Delivery)
        assert (message.body, message.seq, message.tries) == ({"n": 1}, 1, 1)
        message.extend(10)
        message.nak()
        message = next(iter(work))
        assert (message.tries, message.redelivered) == (2, True)
        message.ack()
        work.flush()
        assert work.fetch(timeout=0.05) == []
    with bus.consume("JOBS", group="g") as work:
        bus.put("jobs.a", b"bad")
        work.fetch(timeout=PATIENCE)[0].reject("bad")
        work.flush()
    (letter,) = [each for each in bus.request("$qulo.stream.dead.ls")["letters"] if each["stream"] == "JOBS"]
    assert letter["reason"] == "bad"
    bus.request("$qulo.stream.dead.purge", {"number": letter["number"]})
    assert [message.body for message in bus.read("JOBS", topic="jobs.a")] == [{"n": 1}, b"bad"]


def test_threads_share_a_bus_and_a_consumer_and_each_message_goes_to_one(bus: sync.Bus) -> None:
    def put(start: int) -> None:
        for number in range(start, start + 100):
            bus.put("jobs.a", number)

    putters = [threading.Thread(target=put, args=(100 * n,)) for n in range(4)]
    for thread in putters:
        thread.start()
    got: list[int] = []
    with bus.consume("JOBS", group="g") as work:

        def take() -> None:
            for message in work:
                got.append(message.body)
                message.ack()
                if len(got) >= 400:
                    return

        takers = [threading.Thread(target=take, daemon=True) for _ in range(3)]
        for thread in takers:
            thread.start()
        for thread in putters:
            thread.join(PATIENCE)
        until(lambda: len(got) >= 400)
        work.flush()
    assert sorted(got) == list(range(400))
    for thread in takers:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_what_the_program_has_not_seen_yet_keeps_its_lease(bus: sync.Bus) -> None:
    for number in range(3):
        bus.put("jobs.a", number)
    with bus.consume("JOBS", group="g", lease=0.3) as work:
        seen = []
        for message in work:
            threading.Event().wait(0.2)
            seen.append((message.body, message.redelivered))
            message.ack()
            if len(seen) == 3:
                break
    assert seen == [(0, False), (1, False), (2, False)]


def test_what_comes_while_a_consumer_leaves_counts_as_no_try(bus: sync.Bus) -> None:
    for number in range(3):
        bus.put("jobs.a", number)
    for _ in range(2):  # max_tries
        with bus.consume("JOBS", group="g", prefetch=2) as work:
            got = work.fetch(2, PATIENCE)
            got[0].nak(30.0)  # makes room for the third, which comes when nobody wants it any more
    with bus.consume("JOBS", group="g") as work:
        (third,) = work.fetch(timeout=PATIENCE)
        assert (third.body, third.tries) == (2, 1)
        third.ack()
        work.flush()
    letters = bus.request("$qulo.stream.dead.ls")["letters"]
    assert [letter["seq"] for letter in letters] == []
