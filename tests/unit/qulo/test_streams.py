"""Streams as programs use them, over real hubs, sockets and files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

import qulo
from qulo.config import Settings
from qulo.errors import (
    DeadlineExceeded,
    Disconnected,
    NoStream,
    OutcomeUnknown,
    StoreFailed,
    StoreFull,
    TooLarge,
    UsageError,
)
from qulo.protocol.storage import Append, Operation, Result, Store
from qulo.store import open_store
from qulo.store.sqlite import SqliteStore
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until

ORDERS = {"name": "ORDERS", "topics": ["orders.>"], "max_tries": 3}


@contextlib.asynccontextmanager
async def shop(agent: bool = False, **options: Any) -> AsyncIterator[tuple[Site, qulo.Bus]]:
    """A master with the stream ORDERS, and a program on it, or on its agent."""
    async with Site() as site:
        await site.start("m")
        if agent:
            await site.start("a", under="m")
        async with site.bus("a" if agent else "m") as bus:
            await bus.request("$qulo.stream.add", {**ORDERS, **options})
            yield site, bus


def test_a_put_says_where_it_is_and_the_group_gets_it_with_its_value_and_headers() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            assert await bus.put("orders.new", {"id": 17}, {"by": "me"}, id="17") == ("ORDERS", 1, False, "master")
            assert await bus.put("orders.new", {"id": 17}, id="17") == ("ORDERS", 1, True, "master")
            async with bus.consume("ORDERS", group="g") as work:
                (message,) = await work.fetch(timeout=5)
                assert (message.topic, message.body, message.headers["by"]) == ("orders.new", {"id": 17}, "me")
                assert (message.stream, message.seq, message.tries, message.redelivered) == ("ORDERS", 1, 1, False)
                assert message.time > 1_700_000_000
                await message.ack()
                await work.flush()
                assert await work.fetch(timeout=0.05) == []

    _run(story())


def test_many_puts_share_their_commits_and_keep_their_order() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            answers = await asyncio.gather(*(bus.put("orders.new", number) for number in range(2000)))
            assert [answer.seq for answer in answers] == list(range(1, 2001))
            got = [message.body async for message in bus.read("ORDERS")]
            assert got == list(range(2000))

    _run(story())


def test_what_is_settled_before_leaving_is_done_and_the_rest_comes_to_the_next_one() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            await asyncio.gather(*(bus.put("orders.new", number) for number in range(10)))
            async with bus.consume("ORDERS", group="g") as work:
                async for message in work:
                    if message.body == 4:
                        break
                    await message.ack()
            async with bus.consume("ORDERS", group="g") as work:
                rest = await work.fetch(timeout=5)
                assert [message.body for message in rest] == [4, 5, 6, 7, 8, 9]
                assert all(message.redelivered and message.tries == 1 for message in rest)  # leaving is no failure

    _run(story())


def test_what_was_given_back_counts_and_the_last_time_it_goes_to_the_dead_letters() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            await bus.put("orders.new", b"no")
            async with bus.consume("ORDERS", group="g") as work:
                for tries in (1, 2, 3):
                    (message,) = await work.fetch(timeout=5)
                    assert message.tries == tries
                    await message.nak(0.05)
                await work.flush()
            listed = await bus.request("$qulo.stream.dead.ls")
            assert [(letter["seq"], letter["group"], letter["tries"]) for letter in listed["letters"]] == [(1, "g", 3)]
            shown = await bus.request("$qulo.stream.dead.show", {"number": 1})
            assert shown["body"] == b"no"
            assert await bus.request("$qulo.stream.dead.requeue", {"number": 1}) == {"seq": 2}
            async with bus.consume("ORDERS", group="g") as work:
                (message,) = await work.fetch(timeout=5)
                await message.reject("really not")
            (letter,) = (await bus.request("$qulo.stream.dead.ls"))["letters"]
            assert letter["reason"] == "really not"
            await bus.request("$qulo.stream.dead.purge", {"number": letter["number"]})
            assert (await bus.request("$qulo.stream.dead.ls"))["letters"] == []

    _run(story())


def test_what_waits_for_a_slow_program_keeps_its_lease() -> None:
    async def story() -> None:
        async with shop() as (site, bus), site.bus("m") as other:
            await asyncio.gather(*(bus.put("orders.new", number) for number in range(5)))
            async with bus.consume("ORDERS", group="g", lease=0.4) as work:
                taken = aiter(work)
                message = await anext(taken)  # all five are here then
                async with other.consume("ORDERS", group="g") as theirs:
                    for number in range(5):
                        assert message.body == number
                        await asyncio.sleep(0.25)
                        await message.ack()
                        if number < 4:
                            message = await anext(taken)
                    await work.flush()
                    assert await theirs.fetch() == []
            info = await bus.request("$qulo.stream.info", {"stream": "ORDERS"})
            assert (info["groups"][0]["expired"], info["groups"][0]["floor"]) == (0, 5)

    _run(story())


def test_a_program_that_is_stuck_keeps_nothing() -> None:
    async def story() -> None:
        async with shop() as (site, bus), site.bus("m") as other:
            await asyncio.gather(*(bus.put("orders.new", number) for number in range(3)))
            async with bus.consume("ORDERS", group="g", lease=0.4) as work:
                first = await anext(aiter(work))
                async with other.consume("ORDERS", group="g") as theirs:
                    got: dict[int, int] = {}
                    while len(got) < 3:
                        for message in await theirs.fetch(timeout=5):
                            got[message.body] = message.tries
                            await message.ack()
                    assert got == {0: 2, 1: 2, 2: 2}
                    await theirs.flush()
                await first.ack()  # too late, and no harm
                await bus.put("orders.new", 3)
                assert [message.body for message in await work.fetch(timeout=5)] == [3]

    _run(story())


def test_a_lease_that_is_extended_goes_on() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            await bus.put("orders.new", 0)
            async with bus.consume("ORDERS", group="g", lease=0.3) as work:
                (message,) = await work.fetch(timeout=5)
                await message.extend(30)
                assert await work.fetch(timeout=0.6) == []
                await message.ack()
                await work.flush()
            info = await bus.request("$qulo.stream.info", {"stream": "ORDERS"})
            assert (info["groups"][0]["expired"], info["groups"][0]["floor"]) == (0, 1)

    _run(story())


def test_a_delayed_message_comes_in_time_and_an_expired_one_never() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            await bus.put("orders.new", "late", delay=0.4)
            await bus.put("orders.new", "gone", delay=0.4, ttl=0.2)
            async with bus.consume("ORDERS", group="g") as work:
                assert await work.fetch(timeout=0.1) == []
                before = asyncio.get_running_loop().time()
                assert [message.body for message in await work.fetch(timeout=5)] == ["late"]
                assert asyncio.get_running_loop().time() - before < 0.45  # to the moment, not to the heartbeat
                assert await work.fetch(timeout=0.3) == []

    _run(story())


def test_a_stream_is_read_from_a_number_from_a_time_or_for_what_is_last() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            for number in range(6):
                await bus.put(f"orders.{number % 2}", number)

            async def bodies(**options: Any) -> list[Any]:
                return [message.body async for message in bus.read("ORDERS", **options)]

            assert await bodies() == list(range(6))
            assert await bodies(seq=5) == [4, 5]
            assert await bodies(topic="orders.1") == [1, 3, 5]
            assert await bodies(since=3600) == list(range(6))
            assert await bodies(last=True) == [4, 5]
            assert await bodies(last=True, topic="orders.0") == [4]
            with pytest.raises(NoStream):
                await anext(bus.read("NONE"))

    _run(story())


def test_a_mistake_is_an_error_that_says_what_is_right() -> None:
    async def story() -> None:
        async with shop() as (_, bus):
            with pytest.raises(NoStream, match="qulo stream add"):
                await bus.put("nowhere", b"")
            with pytest.raises(UsageError, match="an id is text"):
                await bus.put("orders.new", b"", id="")
            with pytest.raises(UsageError, match="delay is a number of seconds"):
                await bus.put("orders.new", b"", delay=-1)
            with pytest.raises(UsageError, match="can require the master"):
                await bus.put("orders.new", b"", require="slave")
            with pytest.raises(TooLarge):
                await bus.put("orders.new", bytes(2 * 1024 * 1024))
            with pytest.raises(NoStream, match="there are: ORDERS"):
                await bus.consume("ORDRES", group="g")
            with pytest.raises(UsageError, match="prefetch"):
                await bus.consume("ORDERS", group="g", prefetch=0)
            for argument in ({"name": "X"}, {"name": "a b", "topics": ["x"]}, {"name": "X", "topics": ["x"], "kep": 1}):
                with pytest.raises(UsageError):
                    await bus.request("$qulo.stream.add", argument)

    _run(story())


ODD: tuple[Any, ...] = (
    None,
    -1,
    2**63,
    2**200,
    -(2**70),
    1.5,
    float("nan"),
    float("inf"),
    1e300,
    "",
    "x" * 5000,
    b"x",
    [],
    {},
    [[]],
    True,
    "\0",
)


def test_whatever_is_asked_of_a_stream_is_answered_and_ends_nothing() -> None:
    verbs: dict[str, dict[str, Any]] = {
        "add": {
            "name": "X",
            "topics": ["x"],
            "keep": "work",
            "max_age": 1,
            "max_bytes": 1,
            "dedupe": 1,
            "change": False,
        },
        "info": {"stream": "ORDERS"},
        "topics": {"stream": "ORDERS", "topic": ">", "after": ""},
        "read": {"stream": "ORDERS", "topic": ">", "count": 1, "after": 0, "since": 1, "last": False},
        "purge": {"stream": "ORDERS", "upto": 1},
        "group.rm": {"stream": "ORDERS", "group": "g"},
        "dead.ls": {"after": 0, "count": 1},
        "dead.show": {"number": 1},
        "dead.requeue": {"number": 1},
        "dead.purge": {"number": 1},
    }

    async def story() -> None:
        async with shop() as (site, bus):
            await bus.put("orders.new", b"1")
            for verb, argument in verbs.items():
                for name in argument:
                    for odd in ODD:
                        with contextlib.suppress(qulo.QuloError):
                            await bus.request(f"$qulo.stream.{verb}", {**argument, name: odd})
            with contextlib.suppress(qulo.QuloError):
                await bus.request("$qulo.stream.read", {"stream": "ORDERS", "last": True, "after": "\0"})
            assert (await bus.put("orders.new", b"2")).seq > 1
            assert site.failures["m"] == []

    _run(story())


def test_large_bodies_go_through_alone() -> None:
    async def story() -> None:
        async with shop(agent=True) as (_, bus):
            large = bytes(range(256)) * 2000
            await bus.put("orders.new", large, id="x")
            async with bus.consume("ORDERS", group="g") as work:
                (message,) = await work.fetch(timeout=5)
                assert message.body == large

    _run(story())


def test_a_put_that_got_no_answer_is_unknown_and_again_with_its_id_stored_once() -> None:
    async def story() -> None:
        async with shop() as (site, bus):
            put = asyncio.ensure_future(bus.put("orders.new", b"1", id="1"))
            await asyncio.sleep(0)
            await site.stop("m")
            await site.start("m")
            with contextlib.suppress(OutcomeUnknown):  # the answer may have come before the end
                await put
            await bus.put("orders.new", b"1", id="1")
            assert [message.seq async for message in bus.read("ORDERS")] == [1]

    _run(story())


def test_without_a_hub_a_put_waits_and_says_that_nothing_was_sent() -> None:
    async def story() -> None:
        async with shop() as (site, bus):
            await site.stop("m")
            await until(lambda: not bus.connected)
            with pytest.raises(Disconnected, match="is not stored"):
                await bus.put("orders.new", b"1", timeout=0.2)
            put = asyncio.ensure_future(bus.put("orders.new", b"2"))
            await asyncio.sleep(0.1)
            await site.start("m")
            assert (await put).seq == 1
            assert [message.body async for message in bus.read("ORDERS")] == [b"2"]

    _run(story())


def test_after_a_restart_everything_that_is_not_done_comes_again_and_says_so() -> None:
    async def story() -> None:
        async with shop(agent=True) as (site, bus):
            await asyncio.gather(*(bus.put("orders.new", number) for number in range(5)))
            async with bus.consume("ORDERS", group="g", prefetch=3) as work:
                first = await work.fetch(2, timeout=5)
                await first[0].ack()
                await work.flush()
                await site.stop("m")
                await site.start("m")
                got: dict[int, bool] = {}
                while len(got) < 4:
                    for message in await work.fetch(timeout=5):
                        got[message.body] = message.redelivered
                        await message.ack()
                assert got == dict.fromkeys((1, 2, 3, 4), True)
                await work.flush()

    _run(story())


def test_what_was_settled_while_there_was_no_hub_is_not_said_to_be_on_disk() -> None:
    async def story() -> None:
        async with shop() as (site, bus):
            await bus.put("orders.new", 1)
            async with bus.consume("ORDERS", group="g") as work:
                (message,) = await work.fetch(timeout=5)
                await site.stop("m")
                await until(lambda: not bus.connected)
                await message.ack()
                await site.start("m")
                await until(lambda: bus.connected)
                with pytest.raises(OutcomeUnknown):
                    await work.flush(5)
                await work.flush(5)  # said once
                (again,) = await work.fetch(timeout=5)
                assert again.redelivered
                await again.ack()
                await work.flush()

    _run(story())


def test_while_the_master_is_away_the_agent_takes_it_and_brings_it_in_order() -> None:
    async def story() -> None:
        async with shop(agent=True) as (site, bus):
            await bus.put("orders.new", 0)
            await site.stop("m")
            await until(lambda: not site.services["a"].connected)
            answers = await asyncio.gather(*(bus.put("orders.new", number) for number in range(1, 300)))
            assert {answer.at for answer in answers} == {"agent"}
            with pytest.raises(Disconnected):
                await bus.put("orders.new", "no", require="master")
            assert (await bus.put("nowhere", b"x")).at == "agent"
            await site.stop("a")  # and it ends, and starts again, without its master
            agent = await site._listen("a", None, {})
            agent.dial()
            await until(lambda: bus.connected)
            await bus.put("orders.new", 300)
            await site.start("m")
            await until(lambda: agent.connected)
            await bus.put("orders.new", "last", require="master")  # behind everything
            got = [message.body async for message in bus.read("ORDERS")]
            assert got == [*range(301), "last"]
            (letter,) = (await bus.request("$qulo.local.dead.ls"))["letters"]
            assert (letter["topic"], letter["stream"]) == ("nowhere", "")

    _run(story())


def test_streams_are_listed_changed_purged_and_removed() -> None:
    async def story() -> None:
        async with shop(keep="work", max_age=3600, max_bytes=10_000) as (_, bus):
            (info,) = await bus.request("$qulo.stream.ls")
            assert (info["keep"], info["max_age"], info["max_bytes"], info["dedupe"]) == ("work", 3600, 10_000, 600)
            await bus.request("$qulo.stream.add", {"name": "ORDERS", "max_age": 60, "change": True})
            info = await bus.request("$qulo.stream.info", {"stream": "ORDERS"})
            assert (info["max_age"], info["max_bytes"]) == (60, 10_000)
            await asyncio.gather(*(bus.put("orders.new", number) for number in range(5)))
            assert await bus.request("$qulo.stream.purge", {"stream": "ORDERS", "upto": 3}) == {"purged": 3}
            assert await bus.request("$qulo.stream.topics", {"stream": "ORDERS"}) == [["orders.new", 2, 22]]
            await bus.request("$qulo.stream.rm", {"stream": "ORDERS"})
            with pytest.raises(NoStream):
                await bus.put("orders.new", b"")

    _run(story())


def test_who_may_only_read_a_stream_changes_nothing() -> None:
    rules = """
  - {allow: [publish, subscribe, request, respond], names: ["*"], topics: [">", "$qulo.>"]}
  - {allow: [stream], names: ["boss"], topics: [">"]}
"""

    async def story() -> None:
        async with shop() as (site, bus):
            await site.stop("m")
            await site.start("m", permissions=rules)
            await until(lambda: bus.connected)
            assert (await bus.put("orders.new", b"1")).seq == 1
            assert [message.body async for message in bus.read("ORDERS")] == [b"1"]
            for topic, argument in (
                ("$qulo.stream.add", {"name": "X", "topics": ["x"]}),
                ("$qulo.stream.purge", {"stream": "ORDERS"}),
                ("$qulo.stream.rm", {"stream": "ORDERS"}),
            ):
                with pytest.raises(qulo.Denied, match="qulo auth explain"):
                    await bus.request(topic, argument)
            with pytest.raises(qulo.Denied):
                await bus.consume("ORDERS", group="g")

    _run(story())


class Sick(SqliteStore):
    """A store whose disk breaks when it is told to."""

    broken = False

    def commit(self, operations: Sequence[Operation]) -> list[Result]:
        if self.broken and any(isinstance(op, Append) for op in operations):
            super().commit(operations)  # the worst case: it is on disk, and nobody can know
            self._failure = "the disk is broken"
        return super().commit(operations)


def test_after_an_error_of_the_disk_nothing_is_acknowledged_and_a_restart_is_clean() -> None:
    made: list[Sick] = []

    def make(settings: Settings) -> Store:
        made.append(Sick(f"{settings.data_dir}/streams.db"))
        return made[-1]

    async def story() -> None:
        async with Site() as site:
            site.open_store = make
            (site.path / "m").mkdir()
            await site.start("m")
            async with site.bus("m") as bus:
                await bus.request("$qulo.stream.add", ORDERS)
                await bus.put("orders.new", b"1", id="1")
                made[0].broken = True
                put = asyncio.ensure_future(bus.put("orders.new", b"2", id="2"))
                await until(lambda: site.failures["m"])
                assert isinstance(site.failures["m"][0], StoreFailed)
                later = asyncio.ensure_future(bus.put("orders.new", b"3", timeout=0.5))
                with pytest.raises(DeadlineExceeded, match="unknown"):
                    await later
                assert not put.done()
                await site.stop("m")
                site.open_store = open_store
                await site.start("m")
                with pytest.raises(OutcomeUnknown):
                    await put
                assert (await bus.put("orders.new", b"2", id="2")).duplicate
                assert [message.body async for message in bus.read("ORDERS")] == [b"1", b"2"]

    _run(story())


def test_at_the_quota_producers_are_refused_and_acks_go_on() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m", max_store="1M")
            async with site.bus("m") as bus:
                await bus.request("$qulo.stream.add", {**ORDERS, "keep": "work"})
                body, stored = b"x" * 10_000, 0
                while await _fits(bus, body):
                    stored += 1
                assert 20 < stored < 200
                async with bus.consume("ORDERS", group="g") as work:
                    for _ in range(stored):
                        await (await anext(aiter(work))).ack()
                    await work.flush()
                async with asyncio.timeout(10):
                    while not await _fits(bus, body):
                        pass  # until the trimming has come to it

    _run(story())


async def _fits(bus: qulo.Bus, body: bytes) -> bool:
    try:
        await bus.put("orders.new", body)
    except StoreFull:
        return False
    return True


def test_the_end_of_the_bus_ends_its_consumers() -> None:
    async def story() -> None:
        async with shop() as (site, bus):
            async with site.bus("m") as other:
                work = await other.consume("ORDERS", group="g")
                await bus.put("orders.new", b"1")
                await work.fetch(timeout=5)
            assert [message async for message in work] == []
            async with bus.consume("ORDERS", group="g") as mine:
                (message,) = await mine.fetch(timeout=5)
                assert message.tries == 1

    _run(story())


def test_a_lease_is_as_long_as_promised_from_when_the_message_is_handed_out() -> None:
    """What waits here is extended three times per lease: the one handed out just before that had a third less."""

    async def story() -> None:
        lease = 1.5
        async with shop() as (site, bus), site.bus("m") as other:
            for number in range(2):
                await bus.put("orders.new", number)
            async with bus.consume("ORDERS", group="g", lease=lease) as work:
                (first,) = await work.fetch(1, timeout=5)
                async with other.consume("ORDERS", group="g", lease=lease) as others:
                    assert (
                        await others.fetch(timeout=lease / 3 * 1.9) == []
                    )  # the first extension was, the second is due
                    await first.ack()
                    (second,) = await work.fetch(1, timeout=5)
                    assert await others.fetch(timeout=0.9 * lease) == []
                    (again,) = await others.fetch(timeout=5)
                    assert (again.seq, again.redelivered) == (second.seq, True)

    _run(story())
