"""What every hop promises a program: the same suite, program to master, to an agent, across agents, and down a tree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

import qulo
from tests.unit.qulo.aio_tools import AsyncMock, _run
from tests.unit.qulo.site import Site, until


@dataclass(frozen=True)
class Hop:
    """Which hubs exist, and where the two programs of a story sit."""

    name: str
    hubs: tuple[tuple[str, str | None], ...]
    here: str
    there: str


HOPS = [
    Hop("master", (("m", None),), "m", "m"),
    Hop("agent", (("m", None), ("a", "m")), "a", "a"),
    Hop("agent to agent", (("m", None), ("a", "m"), ("b", "m")), "a", "b"),
    Hop("master to agent", (("m", None), ("a", "m")), "m", "a"),
    Hop("agent to master", (("m", None), ("a", "m")), "a", "m"),
    Hop("down a tree", (("m", None), ("a", "m"), ("c", "a"), ("b", "m")), "c", "b"),
]

Story = Callable[[qulo.Bus, qulo.Bus], Awaitable[None]]


@pytest.fixture(params=HOPS, ids=lambda hop: hop.name)
def tell(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Run a story with two programs, `here` and `there`, over this hop."""
    hop: Hop = request.param

    async def play(story: Story) -> None:
        async with Site() as site:
            for name, under in hop.hubs:
                await site.start(name, under)
            async with site.bus(hop.here) as here, site.bus(hop.there) as there:
                await story(here, there)

    return lambda story: _run(play(story))


Tell = Callable[[Story], None]


def test_what_is_published_arrives_in_order_across_topics(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        async with there.subscribe("s.>") as sub:
            for number in range(1000):
                await here.publish(f"s.{number % 7}", number)
            got = [await sub.next(5) for _ in range(1000)]
            assert [m.body for m in got if isinstance(m, qulo.Message)] == list(range(1000))

    tell(story)


def test_bodies_arrive_as_they_were(tell: Tell) -> None:
    bodies = [
        b"",
        b"raw\0bytes",
        "text",
        1,
        -1.5,
        None,
        True,
        [1, [2]],
        {"k": {"n": b"x"}},
        b"x" * 70_000,
        "y" * 70_000,
    ]

    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        async with there.subscribe("b") as sub:
            for body in bodies:
                await here.publish("b", body)
            await here.publish("b", "with headers", headers={"trace": "1"})
            got = [await sub.next(5) for _ in range(len(bodies) + 1)]
            assert [m.body for m in got if isinstance(m, qulo.Message)] == [*bodies, "with headers"]
            assert isinstance(got[-1], qulo.Message)
            assert got[-1].headers == {"trace": "1"}

    tell(story)


@pytest.mark.parametrize("pattern", ["a.b.c", "a.b.>", "a.*.c", "*.b.*", ">", "a.>"])
def test_a_pattern_gets_what_it_matches_and_nothing_else(tell: Tell, pattern: str) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        got: list[Any] = []
        async with there.subscribe(pattern, lambda m: got.append(m.topic)), there.subscribe("end") as end:
            for topic in ("a.b.c", "a.bb.d", "b.a", "a.b.c.d", "a.b.c"):
                await here.publish(topic, b"")
            await here.publish("end", b"")
            await end.next(5)
            wanted = {
                "a.b.c": ["a.b.c", "a.b.c"],
                "a.b.>": ["a.b.c", "a.b.c.d", "a.b.c"],
                "a.*.c": ["a.b.c", "a.b.c"],
                "*.b.*": ["a.b.c", "a.b.c"],
                ">": ["a.b.c", "a.bb.d", "b.a", "a.b.c.d", "a.b.c", "end"],
                "a.>": ["a.b.c", "a.bb.d", "a.b.c.d", "a.b.c"],
            }
            await until(lambda: len(got) >= len(wanted[pattern]))
            assert got == wanted[pattern]

    tell(story)


def test_overlapping_subscriptions_each_get_a_message_once(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        got: dict[str, list[Any]] = {p: [] for p in ("o.>", "o.x", "o.*")}
        subs = [await there.subscribe(p, partial(_keep_body, got[p])) for p in got]
        for number in range(50):
            await here.publish("o.x", number)
        await until(lambda: all(len(g) >= 50 for g in got.values()))
        assert all(g == list(range(50)) for g in got.values())
        for sub in subs:
            await sub.close()

    tell(story)


def test_a_program_gets_what_it_publishes_itself_once(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        async with here.subscribe("self.>") as sub, there.subscribe("self.>") as other:
            for number in range(20):
                await here.publish("self.x", number)
            for each in (sub, other):
                assert [(await each.next(5)).body for _ in range(20)] == list(range(20))  # type: ignore[union-attr]
            await there.publish("self.x", "end")
            assert (await sub.next(5)).body == "end"  # type: ignore[union-attr]

    tell(story)


def test_after_close_nothing_comes_any_more(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        got: list[Any] = []
        sub = await there.subscribe("c.x", lambda m: got.append(m.body))
        await here.publish("c.x", 1)
        await until(lambda: got == [1])
        await sub.close()
        async with there.subscribe("c.y") as end:
            await here.publish("c.x", 2)
            await here.publish("c.y", 3)
            await end.next(5)
        assert got == [1]

    tell(story)


def test_an_async_handler_gets_messages_one_at_a_time_in_order(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        handler = AsyncMock()
        async with there.subscribe("h", handler.__call__):
            for number in range(5):
                await here.publish("h", number)
            await handler.called(5, 5)
        assert [args[0].body for args, _ in handler.calls] == list(range(5))

    tell(story)


def test_a_request_gets_one_answer_or_the_responders_exception(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        async def slow(msg: qulo.Message) -> Any:
            await asyncio.sleep(0)
            return {"sum": sum(msg.body)}

        async with there.respond("math.add", lambda m: sum(m.body)), there.respond("math.slow", slow):
            assert await here.request("math.add", [1, 2]) == 3
            assert await here.request("math.slow", [1, 2]) == {"sum": 3}
            assert await asyncio.gather(*(here.request("math.add", [n, n]) for n in range(200))) == [
                2 * n for n in range(200)
            ]
            with pytest.raises(qulo.HandlerError, match="TypeError"):
                await here.request("math.add", 1)

    tell(story)


def test_a_request_without_responder_fails_at_once(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        with pytest.raises(qulo.NoResponders):
            await asyncio.wait_for(here.request("nobody.here", timeout=60), 5)

    tell(story)


def test_a_request_ends_at_its_deadline(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        never = asyncio.Event()

        async def hang(msg: qulo.Message) -> None:
            await never.wait()

        async with there.respond("hang", hang):
            with pytest.raises(qulo.DeadlineExceeded):
                await here.request("hang", timeout=0.2)

    tell(story)


def test_request_many_gets_every_responders_answer(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        with pytest.raises(qulo.NoResponders):
            [answer async for answer in here.request_many("who", timeout=5)]
        async with (
            there.respond("who", lambda m: "there"),
            here.respond("who", lambda m: "here"),
            there.respond("who", lambda m: "there too"),
        ):
            answers = [answer async for answer in here.request_many("who", timeout=10)]
            assert sorted(answers) == ["here", "there", "there too"]
            first = [answer async for answer in here.request_many("who", timeout=10, count=1)]
            assert len(first) == 1

    tell(story)


def test_a_group_gives_each_message_to_exactly_one_member(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        got: dict[str, list[int]] = {"one": [], "two": [], "other": []}
        async with (
            there.subscribe("job.>", lambda m: got["one"].append(m.body), group="g"),
            here.subscribe("job.>", lambda m: got["two"].append(m.body), group="g"),
            there.subscribe("job.>", lambda m: got["other"].append(m.body), group="another"),
        ):
            for number in range(300):
                await here.publish("job.x", number)
            await until(lambda: len(got["one"]) + len(got["two"]) >= 300 and len(got["other"]) >= 300)
            assert sorted(got["one"] + got["two"]) == list(range(300)) == got["other"]
            assert got["one"]
            assert got["two"]

    tell(story)


def test_local_topics_stay_on_their_host(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        if here.url.startswith("tcp://"):
            with pytest.raises(qulo.Denied, match="ipc://"):
                await here.subscribe("local.x")
            return
        async with here.respond("local.name", lambda m: "here"), here.subscribe("local.>") as sub:
            assert await here.request("local.name") == "here"
            await here.publish("local.x", 1)
            assert (await sub.next(5)).body == 1  # type: ignore[union-attr]
            if there.url != here.url:
                with pytest.raises((qulo.NoResponders, qulo.Denied)):
                    await there.request("local.name")

    tell(story)


def test_the_site_is_listed_from_every_hub(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        site = await here.request("$qulo.list")
        assert site["hub"]["authority"]
        own = await here.request("$qulo.local.list")
        assert "client" in {peer["kind"] for peer in own["peers"]}
        if here.url.startswith("ipc://"):
            assert not own["hub"]["authority"]
            assert "agent" in {peer["kind"] for peer in site["peers"]}

    tell(story)


def test_every_host_answers_a_ping(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        site = await here.request("$qulo.list")
        below = {peer["name"] for peer in site["peers"] if peer["kind"] == "agent"}
        if not below:
            with pytest.raises(qulo.NoResponders):
                [answer async for answer in here.request_many("$qulo.ping", timeout=10)]
            return
        names = [answer["name"] async for answer in here.request_many("$qulo.ping", timeout=10)]
        assert len(names) == len(set(names))
        assert below <= set(names)
        with pytest.raises(qulo.Denied):
            await there.respond("$qulo.ping", lambda m: "me too")

    tell(story)


@pytest.mark.parametrize("topic", ["", "a b", "a..b", ".a", "a\n", "a.*", ">", "x" * 256, "$qulo.x", "a\x00"])
def test_a_bad_topic_fails_at_the_caller(tell: Tell, topic: str) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        with pytest.raises(qulo.BadTopic):
            await here.publish(topic, b"")

    if topic in ("", "a b"):
        tell(story)
    else:
        _run(_on_one_master(story))


def test_a_bad_body_fails_at_the_caller(tell: Tell) -> None:
    async def story(here: qulo.Bus, there: qulo.Bus) -> None:
        for body in (object(), {1, 2}, 1 << 80, [lambda: 0]):
            with pytest.raises(qulo.BadBody):
                await here.publish("x", body)
        with pytest.raises(qulo.TooLarge, match="max_message"):
            await here.publish("x", b"x" * (1024 * 1024 + 1))
        with pytest.raises(qulo.TooLarge):
            await here.request("x", b"x" * (1024 * 1024 + 1))
        async with there.subscribe("x") as sub:
            await here.publish("x", b"x" * (1024 * 1024))
            assert len((await sub.next(10)).body) == 1024 * 1024  # type: ignore[union-attr]

    tell(story)


def _keep_body(bodies: list[Any], message: qulo.Message) -> None:
    bodies.append(message.body)


async def _on_one_master(story: Story) -> None:
    async with Site() as site:
        await site.start("m")
        async with site.bus("m") as bus:
            await story(bus, bus)
