"""The client against a real hub: reading, waiting, failing and closing. What survives a hub is in net/test_link.py."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import msgpack
import pytest

import qulo
from qulo.client import decode_body, encode_body
from qulo.errors import Disconnected, EndpointError, UsageError
from qulo.protocol.wire import HEADED, PACKED, RAW
from tests.unit.qulo.aio_tools import AsyncMock, _run
from tests.unit.qulo.net.proxy import Proxy
from tests.unit.qulo.site import Site, until

# Nobody listens there: the port is reserved, and unused on any machine.
NOWHERE = "tcp://127.0.0.1:1"

Story = Callable[[qulo.Bus, Site], Awaitable[None]]


def tell(story: Story, **options: Any) -> None:
    """Run a story with one program on one hub."""

    async def play() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m", **options) as bus:
                await story(bus, site)

    _run(play())


async def bodies(sub: qulo.Subscription, count: int) -> list[Any]:
    """The bodies of the next messages; a gap would show as itself."""
    got = [await sub.next(10) for _ in range(count)]
    return [item.body if isinstance(item, qulo.Message) else item for item in got]


async def reached(got: list[Any], count: int) -> None:
    """Wait until so many have come."""
    await until(lambda: len(got) >= count)


async def publish_all(bus: qulo.Bus, topic: str, values: range) -> None:
    """Publish one message per value."""
    for value in values:
        await bus.publish(topic, value)


# -- bodies


@pytest.mark.parametrize("body", [b"", b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_travel_as_they_are(body: Any) -> None:
    assert encode_body(body) == (RAW, bytes(body))
    assert decode_body("t", RAW, bytes(body)).body == bytes(body)


@pytest.mark.parametrize("body", [None, 0, "ä", [1, {"a": b"b"}], {1: 2}, 1.5, True])
def test_values_and_headers_come_back(body: Any) -> None:
    kind, data = encode_body(body)
    assert (kind, decode_body("t", kind, data).body) == (PACKED, body)
    kind, data = encode_body(body, {"trace": 1})
    message = decode_body("t", kind, data)
    assert (kind, message.body, message.headers) == (HEADED, body, {"trace": 1})


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (PACKED, b""),
        (PACKED, b"\xc1"),
        (PACKED, b"\x91" * 5000 + b"\xc0"),
        (PACKED, b"\x01\x01"),
        (PACKED, b"\xa2\xff\xff"),
        (HEADED, b"\x01"),
        (HEADED, b"\x93\x80\x01\xc4"),
        (HEADED, b"\x92\x80\x01"),
    ],
)
def test_what_cannot_be_decoded_comes_as_its_bytes_and_says_so(kind: int, data: bytes) -> None:
    message = decode_body("t", kind, data)
    assert message.body == data
    assert message.headers["qulo-error"].startswith("undecodable body: ")


def test_an_undecodable_body_ends_nothing() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub:
            await bus.publish("t", "before")
            bus._link.publish("t", PACKED, b"\xc1")
            await bus.publish("t", "after")
            assert await bodies(sub, 3) == ["before", b"\xc1", "after"]

    tell(story)


# -- reading


def test_breaking_out_of_a_loop_and_going_on_later_loses_nothing() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        got: list[Any] = []
        async with bus.subscribe("t") as sub:
            await publish_all(bus, "t", range(100))
            while len(got) < 100:
                async for item in sub:
                    got.append(item.body if isinstance(item, qulo.Message) else item)
                    if len(got) % 7 == 0 or len(got) == 100:
                        break
                if len(got) < 99:
                    got += await bodies(sub, 1)
        assert got == list(range(100))

    tell(story)


def test_a_loop_that_was_cancelled_can_be_begun_again() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        got: list[Any] = []

        def take(item: qulo.Message | qulo.Gap) -> None:
            got.append(item.body if isinstance(item, qulo.Message) else item)

        async with bus.subscribe("t") as sub:

            async def read() -> None:
                async for item in sub:
                    take(item)

            for end in (10, 20, 30):
                reader = asyncio.create_task(read())
                await publish_all(bus, "t", range(end - 10, end))
                await reached(got, end)
                reader.cancel()
                await asyncio.wait([reader])
        assert got == list(range(30))

    tell(story)


def test_next_that_was_cancelled_loses_nothing() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub:
            for number in range(20):
                task = asyncio.create_task(sub.next())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                await bus.publish("t", number)
                assert await bodies(sub, 1) == [number]

    tell(story)


def test_next_keeps_its_deadline_before_and_after_messages() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub:
            for count in (0, 1, 3):
                await publish_all(bus, "t", range(count))
                assert await bodies(sub, count) == list(range(count))
                begin = time.monotonic()
                with pytest.raises(qulo.DeadlineExceeded, match=r"nothing came on t within 0\.05 s"):
                    await sub.next(0.05)
                assert 0.04 < time.monotonic() - begin < 5

    tell(story)


def test_two_readers_share_a_subscription() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub:
            readers = [asyncio.create_task(bodies(sub, 50)) for _ in range(2)]
            await publish_all(bus, "t", range(100))
            one, two = await asyncio.gather(*readers)
            assert sorted(one + two) == list(range(100))

    tell(story)


def test_what_came_before_close_can_still_be_read_then_it_ends() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        sub = await bus.subscribe("t")
        await publish_all(bus, "t", range(3))
        assert await bodies(sub, 1) == [0]
        await sub.close()
        assert [item.body async for item in sub if isinstance(item, qulo.Message)] == [1, 2]
        with pytest.raises(Disconnected, match="the subscription is closed"):
            await sub.next(5)

    tell(story)


def test_a_loop_that_waits_ends_when_the_subscription_is_closed() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        sub = await bus.subscribe("t")

        async def read() -> list[Any]:
            return [item async for item in sub]

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        await sub.close()
        assert await asyncio.wait_for(reader, 5) == []

    tell(story)


def test_a_program_too_slow_for_its_buffer_gets_one_gap_in_place_and_later_messages() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub, bus.subscribe("end") as end:
            for number in range(100):
                await bus.publish("t", b"%03d" % number + b"x" * 997)
            await bus.publish("end", b"")
            await end.next(5)
            kept = await bodies(sub, 10)
            assert [body[:3] for body in kept] == [b"%03d" % number for number in range(10)]
            gap = await sub.next(5)
            assert isinstance(gap, qulo.Gap)
            assert (gap.pattern, gap.reason, sub.gaps) == ("t", "overflow", 1)
            await bus.publish("t", b"later")
            assert await bodies(sub, 1) == [b"later"]

    async def slowly(bus: qulo.Bus, site: Site) -> None:
        # One run per message: a run is dropped or kept as a whole.
        publish = bus.publish

        async def alone(topic: str, body: Any) -> None:
            await publish(topic, body)
            await bus.flush()

        bus.publish = alone  # type: ignore[method-assign,assignment]
        await story(bus, site)

    tell(slowly, subscription_buffer=10_000)


# -- handlers


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_fails_is_logged_and_goes_on(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    got: list[Any] = []

    def handle(message: qulo.Message) -> None:
        got.append(message.body)
        if message.body == 1:
            raise ValueError("on purpose")

    async def handle_async(message: qulo.Message) -> None:
        handle(message)

    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t", handle_async if is_async else handle):
            await publish_all(bus, "t", range(3))
            await until(lambda: got == [0, 1, 2])

    tell(story)
    assert "the handler of t failed" in caplog.text
    assert "ValueError: on purpose" in caplog.text


@pytest.mark.parametrize("told", [True, False])
def test_a_handlers_gaps_go_to_on_gap_or_to_the_log(told: bool, caplog: pytest.LogCaptureFixture) -> None:
    gaps: list[str] = []
    got: list[Any] = []

    def on_gap(gap: qulo.Gap) -> None:
        gaps.append(gap.reason)
        raise ValueError("on purpose")

    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t", lambda m: got.append(m.body), on_gap=on_gap if told else None) as sub:
            site.services["m"].hub.pass_gap("t", 1, None, None, "window")
            await until(lambda: sub.gaps)
            await bus.publish("t", "after")
            await until(lambda: got == ["after"])

    tell(story)
    assert gaps == (["window"] if told else [])
    assert ("the on_gap of t failed" if told else "give subscribe an on_gap to handle that") in caplog.text


def test_a_handler_may_close_the_bus() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            bus = site.bus("m")
            await bus.open()

            async def handle(message: qulo.Message) -> None:
                await bus.close()

            await bus.subscribe("t", handle)
            await bus.publish("t", 1)
            await until(lambda: bus._context.closed)

    _run(story())


# -- requests


def test_a_request_that_was_cancelled_is_forgotten_and_harms_nobody() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        go = asyncio.Event()

        async def answer(message: qulo.Message) -> Any:
            await go.wait()
            return message.body

        async with site.bus("m") as other, other.respond("slow", answer):
            tasks = [asyncio.create_task(bus.request("slow", number)) for number in range(10)]
            await until(lambda: site.services["m"].hub.counters.requests >= 10)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks[::2])
            assert len(bus._pending) == 5
            go.set()
            assert await asyncio.gather(*tasks[1::2]) == [1, 3, 5, 7, 9]
            assert not bus._pending

    tell(story)


def name_yourself(which: int, message: qulo.Message) -> list[Any]:
    """A responder that tells which one it is."""
    return [which, message.body]


def test_a_hundred_request_many_at_once_get_all_their_answers() -> None:
    async def ask(bus: qulo.Bus, number: int) -> list[Any]:
        return [answer async for answer in bus.request_many("who", number, timeout=20)]

    async def story(bus: qulo.Bus, site: Site) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for which in range(5):
                other = await stack.enter_async_context(site.bus("m"))
                await other.respond("who", partial(name_yourself, which))
            answers = await asyncio.gather(*(ask(bus, number) for number in range(100)))
            for number, each in enumerate(answers):
                assert sorted(each) == [[which, number] for which in range(5)]
            assert not bus._pending

    tell(story)


def test_request_many_can_be_left_early() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.respond("who", lambda m: 1), site.bus("m") as other, other.respond("who", lambda m: 2):
            answers = bus.request_many("who", timeout=20)
            assert await anext(answers) in (1, 2)
            await answers.aclose()  # type: ignore[attr-defined]
            assert not bus._pending
            assert await bus.request("who") in (1, 2)

    tell(story)


def test_request_many_without_a_hub_is_disconnected_and_not_empty() -> None:
    async def story() -> None:
        async with qulo.connect(NOWHERE, timeout=None) as bus:
            with pytest.raises(Disconnected, match=r"no hub within 0\.1 s"):
                [answer async for answer in bus.request_many("who", timeout=0.1)]

    _run(story())


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x" * (1024 * 1024 + 1)])
def test_an_answer_that_cannot_be_sent_reaches_the_asker_as_an_error(value: Any) -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.respond("t", lambda m: value):
            with pytest.raises(qulo.HandlerError, match=r"BadBody|TooLarge"):
                await bus.request("t")

    tell(story)


# -- connecting


def test_connecting_to_nothing_fails_in_time_and_names_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "ipc:///tmp/qulo-none/agent.sock"
    monkeypatch.setenv("QULO_URL", f"{NOWHERE},{other}")

    async def story() -> None:
        begin = time.monotonic()
        with pytest.raises(EndpointError) as caught:
            await qulo.connect(timeout=0.5).open()
        assert 0.4 < time.monotonic() - begin < 3
        assert f"no hub answers at {NOWHERE}, {other}" in str(caught.value)
        assert f"{NOWHERE}: nobody listens there" in str(caught.value)
        assert f"{other}: nobody listens there" in str(caught.value)

    _run(story())


def test_the_next_of_several_addresses_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            monkeypatch.setenv("QULO_URL", f"{NOWHERE}, ipc:///tmp/qulo-none/x, {site.url('m')}")
            async with qulo.connect() as bus:
                assert bus.url == site.url("m")
                await bus.flush()

    _run(story())


def test_a_host_name_is_resolved() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with (
                qulo.connect(site.url("m").replace("127.0.0.1", "localhost")) as bus,
                bus.subscribe("t") as sub,
            ):
                await bus.publish("t", 1)
                assert await bodies(sub, 1) == [1]

    _run(story())


def test_a_host_name_that_does_not_exist_is_named() -> None:
    async def story() -> None:
        with pytest.raises(EndpointError, match=r"tcp://no-such-host\.invalid:7370"):
            await qulo.connect("tcp://no-such-host.invalid:7370", timeout=0.5).open()

    _run(story(), timeout=60)


@pytest.mark.parametrize("url", ["localhost:1", "http://x", "tcp//x", "udp://x:1", "inproc://x"])
def test_what_is_no_address_is_refused_before_anything_happens(url: str) -> None:
    with pytest.raises(UsageError, match="is not an address: tcp://HOST:PORT or ipc:///PATH is expected"):
        qulo.connect(url)


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1", "tcp://127.0.0.1:port", "tcp://127.0.0.1:99999", "tcp://", "ipc://"]
)
def test_an_address_that_cannot_be_dialled_is_an_endpoint_error(url: str) -> None:
    async def story() -> None:
        with pytest.raises(EndpointError, match=f"no hub answers at {url}"):
            await qulo.connect(url, timeout=0.2).open()

    _run(story())


def test_a_server_key_needs_a_key_of_ones_own() -> None:
    with pytest.raises(UsageError, match="server_key needs key"):
        qulo.connect(NOWHERE, server_key="/none")


def test_a_name_that_the_hub_does_not_allow_is_refused_at_once() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        with pytest.raises(qulo.Denied, match="the name 'Ä b' is not allowed"):
            await site.bus("m", name="Ä b", timeout=30).open()

    tell(story)


def test_on_state_hears_of_every_change_and_its_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    states: list[str] = []

    def on_state(state: str) -> None:
        states.append(state)
        raise ValueError("on purpose")

    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m", on_state=on_state) as bus:
                assert states == ["connected"]
                await site.stop("m")
                await until(lambda: not bus.connected)
                assert states == ["connected", "disconnected"]
                await site.start("m")
                await until(lambda: bus.connected)
                assert states == ["connected", "disconnected", "connected"]
            assert states == ["connected", "disconnected", "connected", "disconnected"]

    _run(story())
    assert "on_state failed" in caplog.text


# -- closing


def open_things() -> tuple[int, int, int, int]:
    """What a program holds: descriptors, threads of Python and of the system, tasks."""
    gc.collect()
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(os.listdir("/proc/self/task")),
        len(asyncio.all_tasks()),
    )


async def _use(bus: qulo.Bus) -> None:
    async with bus, bus.respond("r", AsyncMock(1).__call__), bus.subscribe("t", AsyncMock().__call__):
        await bus.subscribe("a.*")
        await bus.publish("t", 1)
        assert await bus.request("r") == 1


async def _fail(bus: qulo.Bus) -> None:
    with pytest.raises(EndpointError):
        await bus.open()


async def _cancel(bus: qulo.Bus) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.open(), 0.05)


async def _abandon(bus: qulo.Bus) -> None:
    async with bus:
        await bus.publish("t", b"x" * 1000)
        task = asyncio.create_task(bus.request("r"))
        await asyncio.sleep(0)
    with pytest.raises(Disconnected):
        await task


@pytest.mark.parametrize(
    ("use", "options"),
    [
        (_use, {}),
        (_fail, {"url": NOWHERE, "timeout": 0.1}),
        (_cancel, {"url": NOWHERE, "timeout": 30}),
        (_abandon, {"url": NOWHERE, "timeout": None}),
    ],
)
def test_closing_leaves_nothing_behind(use: Callable[[qulo.Bus], Awaitable[None]], options: dict[str, Any]) -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            await use(qulo.connect(**{"url": site.url("m"), **options}))  # what is loaded once is loaded now
            await until(lambda: not site.services["m"].hub.sessions)
            before = open_things()
            for _ in range(5):
                await use(qulo.connect(**{"url": site.url("m"), **options}))
            await until(lambda: open_things() == before, 10)  # the hub's end closes when it has heard

    _run(story())


def test_whoever_waits_is_told_when_the_bus_is_closed() -> None:
    async def story() -> None:
        bus = qulo.connect(NOWHERE, timeout=None)
        await bus.open()

        async def fill() -> None:
            while True:
                await bus.publish("t", b"x" * 60_000)

        async def subscribe() -> None:
            await bus.subscribe("t")

        async def respond() -> None:
            await bus.respond("t", lambda m: 1)

        waiting = [fill(), subscribe(), respond(), bus.flush(timeout=None), bus.request("t", timeout=60)]
        tasks = [asyncio.create_task(each) for each in waiting]
        await until(lambda: bus._link.room <= 0)
        await bus.close()
        done, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        assert [type(task.exception()) for task in done] == [Disconnected] * 5

    _run(story())


def test_a_bus_that_is_closed_takes_nothing_any_more() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m") as bus:
                await bus.publish("t", 1)
            calls: list[Callable[[], Any]] = [
                lambda: bus.publish("t", 1),
                lambda: bus.publish("u", 1),
                lambda: bus.request("t"),
                lambda: anext(bus.request_many("t")),
                lambda: bus.subscribe("t"),
                lambda: bus.respond("t", lambda m: 1),
            ]
            for call in calls:
                with pytest.raises(Disconnected, match="the bus is closed"):
                    await asyncio.wait_for(call(), 5)
            await bus.flush()
            await bus.close()

    _run(story())


def test_closing_with_unsent_messages_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with qulo.connect(NOWHERE, timeout=None) as bus:
            await bus.publish("t", 1)

    _run(story())
    assert "closed with messages that the hub has not acknowledged" in caplog.text


def test_closing_delivers_what_was_published() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m") as there, there.subscribe("t") as sub:
                for round_ in range(20):
                    async with site.bus("m") as here:
                        await publish_all(here, "t", range(round_ * 100, round_ * 100 + 100))
                assert await bodies(sub, 2000) == list(range(2000))

    _run(story())


# -- waiting for the hub's credit


def test_a_publish_that_is_cancelled_while_it_waits_for_credit_is_sent_once() -> None:
    async def story() -> None:
        async with (
            Site() as site,
            site_proxy(site) as proxy,
            qulo.connect(proxy.url) as bus,
            site.bus("m") as there,
            there.subscribe("t") as sub,
        ):
            proxy.pause()
            tasks: list[asyncio.Task[None]] = []
            while not tasks or tasks[-1].done():  # one at a time: none of them fills a batch
                tasks.append(asyncio.create_task(bus.publish("t", len(tasks).to_bytes(2) + b"x" * 20_000)))
                await asyncio.wait(tasks[-1:], timeout=0.1)
            tasks[-1].cancel()
            count = len(tasks)
            assert 131_072 // 20_000 <= count <= 131_072 // 20_000 + 2
            proxy.resume()
            await bus.flush()
            await bus.publish("t", b"end")
            got = await bodies(sub, count + 1)
            assert [body[:2] for body in got] == [*(number.to_bytes(2) for number in range(count)), b"en"]

    _run(story())


@contextlib.asynccontextmanager
async def site_proxy(site: Site) -> AsyncIterator[Proxy]:
    """A hub with little credit to give, and a way to it that can stop."""
    service = await site.start("m", max_message="64K", link_buffer="128K", heartbeat="2s")
    async with Proxy(service.addresses["listen"], service.addresses["publish"]) as proxy:
        yield proxy


def test_flush_has_a_deadline() -> None:
    async def story() -> None:
        async with qulo.connect(NOWHERE, timeout=None) as bus:
            await bus.publish("t", 1)
            with pytest.raises(qulo.DeadlineExceeded, match=r"not acknowledged everything within 0\.05 s"):
                await bus.flush(0.05)

    _run(story())


# -- what a program sees of itself


def test_a_program_has_a_name_that_tells_which_it_is() -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        listed = await bus.request("$qulo.list")
        (peer,) = listed["peers"]
        assert f"-{os.getpid()}." in peer["name"]
        assert peer["version"] == qulo.__version__

    tell(story)


def test_no_secret_and_no_body_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bus: qulo.Bus, site: Site) -> None:
        async with bus.subscribe("t") as sub, bus.respond("r", lambda m: m.body):
            await bus.publish("t", "the body")
            await bus.request("r", "the body")
            await sub.next(5)
            token = bus._link._token
        assert token
        assert token.hex() not in caplog.text
        assert "the body" not in caplog.text

    with caplog.at_level(logging.DEBUG):
        tell(story)
    assert "connected to qmaster" in caplog.text


def test_a_socket_path_in_the_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            monkeypatch.setenv("QULO_URL", site.url("m", local=True))
            async with qulo.connect() as bus:
                assert bus.url == site.url("m", local=True)

    _run(story())


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([1, PACKED, b"x"], id="headers are no map"),
        pytest.param([{"h": 1}, HEADED, b"x"], id="headers twice"),
        pytest.param([{"h": 1}, RAW, "text"], id="a body that is no bytes"),
        pytest.param([{"h": 1}, 9, b"x"], id="an unknown kind"),
    ],
)
def test_a_body_with_bad_headers_comes_as_its_bytes(value: Any) -> None:
    data = msgpack.packb(value)
    message = decode_body("t", HEADED, data)
    assert message.body == data
    assert "qulo-error" in message.headers
    repr(message)


def test_a_bad_body_with_good_headers_says_so_beside_them() -> None:
    message = decode_body("t", HEADED, msgpack.packb([{"h": 1}, PACKED, b"\xc1"]))
    assert (message.body, message.headers["h"]) == (b"\xc1", 1)
    assert "qulo-error" in message.headers
