"""What a program sees when its connection, or its hub, goes away: nothing is lost in silence, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import zmq

import qulo
from qulo.net import link
from qulo.net.service import Service
from qulo.net.socket import monitor_address, open_socket
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.proxy import Proxy
from tests.unit.qulo.site import HEARTBEAT, Site, until

BEAT = float(HEARTBEAT.removesuffix("ms")) / 1000


@contextlib.asynccontextmanager
async def behind_proxy(site: Site, **keys: str) -> AsyncIterator[Proxy]:
    """A master, and a network to it that can fail."""
    service = await site.start("m", **keys)
    async with Proxy(service.addresses["listen"], service.addresses["publish"]) as proxy:
        yield proxy


def messages_on(service: Service, topic: str) -> int:
    """How many messages a hub has taken in on a topic."""
    known = service.hub.router.window.topics.get(topic)
    return known.messages if known is not None else 0


async def reached(got: list[Any], count: int) -> None:
    """Wait until so many have come."""
    await until(lambda: len(got) >= count)


async def settle(service: Service) -> None:
    """Wait until everything that the two programs of a story registered is known to this hub."""
    await until(lambda: any(s.responders and s.members for s in service.hub.sessions.values()))
    await until(lambda: any(s.subscriptions for s in service.hub.sessions.values()))


async def drain(sub: qulo.Subscription, last: Any) -> list[Any]:
    """Bodies and gaps up to the body `last`."""
    got: list[Any] = []
    while not got or got[-1] != last:
        item = await sub.next(20)
        got.append(item.body if isinstance(item, qulo.Message) else item)
    return got


# -- the hub restarts


def test_over_a_restart_publish_waits_and_subscribers_get_one_gap() -> None:
    async def story() -> None:
        async with (
            Site() as site,
            behind_proxy(site, max_message="64K", link_buffer="128K") as proxy,
            qulo.connect(proxy.url) as here,
            site.bus("m") as there,
            there.subscribe("t") as sub,
        ):
            await here.publish("t", b"before")
            await here.flush()
            assert await drain(sub, b"before") == [b"before"]
            await site.stop("m")
            await until(lambda: not here.connected and not there.connected)
            sent: list[bytes] = []

            async def publish() -> None:
                for number in range(400):
                    sent.append(number.to_bytes(2) + b"x" * 998)
                    await here.publish("t", sent[-1])

            publishing = asyncio.create_task(publish())
            await until(lambda: here._link.room <= 0)
            assert not publishing.done()
            assert 128 * 0.9 < len(sent) < 128 * 1.1  # as many as fit into link_buffer, and one that waits
            proxy.pause()  # so that the subscriber is back before the publisher
            service = await site.start("m")
            await until(lambda: there.connected and service.hub.router.sessions)
            await there.request("$qulo.list")
            proxy.resume()
            await publishing
            await here.flush()  # nothing was under way: nothing is unknown
            assert messages_on(service, "t") == 400
            gap, *rest = await drain(sub, sent[-1])
            assert isinstance(gap, qulo.Gap)
            assert (gap.reason, gap.pattern) == ("restart", "t")
            assert rest == sent
            assert sub.gaps == 1

    _run(story())


def test_flush_says_so_when_messages_were_under_way_to_a_hub_that_died() -> None:
    async def story() -> None:
        async with Site() as site, behind_proxy(site) as proxy, qulo.connect(proxy.url) as bus:
            await bus.publish("t", b"safe")
            await bus.flush()
            proxy.swallow()  # they get into the network, and no further
            for _ in range(7):
                await bus.publish("t", b"x")
            await asyncio.sleep(0)  # the turn ends, and they are sent
            await site.stop("m")
            proxy.cut()
            await site.start("m")
            with pytest.raises(qulo.OutcomeUnknown, match="7 messages were under way when the hub restarted"):
                await bus.flush()
            await bus.flush()  # it was said once

    _run(story())


def test_a_request_without_a_hub_fails_at_its_deadline_and_is_never_carried_out() -> None:
    async def story() -> None:
        asked: list[Any] = []
        async with Site() as site:
            await site.start("m")
            async with site.bus("m") as here, site.bus("m") as there:
                await there.respond("do", lambda m: asked.append(m.body))
                await here.request("do", "before")
                await site.stop("m")
                await until(lambda: not here.connected)
                begin = time.monotonic()
                with pytest.raises(qulo.Disconnected, match=r"no hub within 0\.3 s: "):
                    await here.request("do", "away", timeout=0.3)
                assert 0.25 < time.monotonic() - begin < 3
                await site.start("m")
                await until(lambda: here.connected and there.connected)
                await until(lambda: site.services["m"].hub.calls.find("do"))
                await here.request("do", "after")
                assert asked == ["before", "after"]

    _run(story())


def test_a_request_made_while_the_hub_is_away_is_carried_out_if_it_returns_in_time() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m") as bus:
                await site.stop("m")
                await until(lambda: not bus.connected)
                asking = asyncio.create_task(bus.request("$qulo.list", timeout=20))
                await asyncio.sleep(0)
                await site.start("m")
                assert (await asking)["hub"]["name"] == "qmaster"

    _run(story())


def test_requests_that_a_dead_hub_had_fail_when_the_next_one_is_there() -> None:
    async def story() -> None:
        never = asyncio.Event()

        async def hang(message: qulo.Message) -> None:
            await never.wait()

        async with Site() as site:
            service = await site.start("m")
            async with site.bus("m") as here, site.bus("m") as there:
                await there.respond("hang", hang)
                asking = asyncio.create_task(here.request("hang", timeout=60))
                await until(lambda: service.hub.calls.pending)
                await site.stop("m")
                await site.start("m")
                with pytest.raises(qulo.Disconnected, match="its outcome is unknown"):
                    await asyncio.wait_for(asking, 20)

    _run(story())


def test_registrations_come_back_by_themselves_after_a_restart() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            async with site.bus("m") as here, site.bus("m") as there:
                got: list[Any] = []
                await there.respond("r", lambda m: 2 * m.body)
                await there.subscribe("g", lambda m: got.append(("group", m.body)), group="g")
                await there.subscribe("s.*", lambda m: got.append((m.topic, m.body)), on_gap=lambda gap: None)
                for round_ in range(3):
                    await site.stop("m")
                    await settle(await site.start("m"))
                    await until(lambda: here.connected and there.connected)
                    assert await here.request("r", round_) == 2 * round_
                    await here.publish("g", round_)
                    await here.publish("s.x", round_)
                    await reached(got, 2 * round_ + 2)
                assert sorted(got) == sorted([(t, r) for r in range(3) for t in ("group", "s.x")])

    _run(story())


# -- the connection is cut

CUTS = 20


class _Cutter:
    """Cuts every connection again and again, at moments that do not depend on the traffic."""

    def __init__(self, proxy: Proxy, states: Counter[str], *buses: qulo.Bus) -> None:
        """`states` counts what the buses say of themselves."""
        self._proxy, self._states, self._buses = proxy, states, buses
        self._dice = random.Random(1)
        self.cuts = 0

    async def run(self) -> None:
        while self.cuts < CUTS:
            await until(lambda: all(bus.connected for bus in self._buses))
            for _ in range(self._dice.randrange(10)):
                await asyncio.sleep(0)
            noticed = self._states["disconnected"] + len(self._buses)
            self._proxy.cut()
            self.cuts += 1
            # By count: one may be back before another has noticed.
            await until(partial(self._have_noticed, noticed))

    def _have_noticed(self, times: int) -> bool:
        return self._states["disconnected"] >= times


@contextlib.asynccontextmanager
async def cut_again_and_again(site: Site) -> AsyncIterator[tuple[qulo.Bus, qulo.Bus, asyncio.Task[None]]]:
    """Two programs whose connections are cut while the story runs; it awaits the cutting."""
    states: Counter[str] = Counter()

    def count(state: str) -> None:
        states[state] += 1

    async with (
        behind_proxy(site) as proxy,
        qulo.connect(proxy.url, on_state=count) as here,
        qulo.connect(proxy.url, on_state=count) as there,
    ):
        cutting = asyncio.create_task(_Cutter(proxy, states, here, there).run())
        try:
            yield here, there, cutting
        finally:
            cutting.cancel()
            await asyncio.wait([cutting])


@pytest.mark.parametrize("pattern", ["t.>", "t.*", "*.x"])
def test_cuts_lose_no_message_and_repeat_none(pattern: str) -> None:
    async def story() -> None:
        async with (
            Site() as site,
            cut_again_and_again(site) as (here, there, cutting),
            there.subscribe(pattern) as sub,
        ):
            number = 0
            while not cutting.done() or number < 10_000:
                for _ in range(100):
                    await here.publish("t.x", number)
                    number += 1
                await asyncio.sleep(0.001)
            await cutting
            await here.flush()
            await here.publish("t.x", "end")
            assert await drain(sub, "end") == [*range(number), "end"]

    _run(story(), timeout=60)


def test_cuts_carry_out_every_request_once() -> None:
    async def story() -> None:
        done: Counter[int] = Counter()

        def answer(message: qulo.Message) -> Any:
            done[message.body] += 1
            return message.body

        async with Site() as site, cut_again_and_again(site) as (here, there, cutting):
            number = 0
            async with there.respond("r", answer):
                while not cutting.done() or number < 10_000:
                    batch = range(number, number + 200)
                    assert await asyncio.gather(*(here.request("r", n, timeout=20) for n in batch)) == list(batch)
                    number += 200
                await cutting
                assert done == Counter(range(number))

    _run(story(), timeout=60)


def test_cuts_give_every_group_message_to_one_member_once() -> None:
    async def story() -> None:
        got: list[int] = []
        async with (
            Site() as site,
            cut_again_and_again(site) as (here, there, cutting),
            there.subscribe("w.>", lambda m: got.append(m.body), group="g"),
            here.subscribe("w.>", lambda m: got.append(m.body), group="g"),
        ):
            number = 0
            while not cutting.done() or number < 10_000:
                for _ in range(100):
                    await here.publish("w.x", number)
                    number += 1
                await asyncio.sleep(0.001)
            await cutting
            await here.flush()
            await until(lambda: len(got) >= number)
            assert sorted(got) == list(range(number))

    _run(story(), timeout=60)


def test_subscribing_while_the_connection_is_cut_is_confirmed_in_the_end() -> None:
    async def story() -> None:
        async with Site() as site, cut_again_and_again(site) as (here, there, cutting):
            while not cutting.done():
                async with there.subscribe("t.x") as sub, there.subscribe("t.*") as other:
                    await here.publish("t.x", "end")
                    for each in (sub, other):
                        assert await drain(each, "end") == ["end"]

    _run(story(), timeout=60)


# -- the network fails in silence


def test_a_half_open_connection_is_noticed_and_what_was_missed_is_repaired() -> None:
    async def story() -> None:
        async with (
            Site() as site,
            behind_proxy(site) as proxy,
            qulo.connect(proxy.url) as there,
            site.bus("m") as here,
            there.subscribe("t.>") as sub,
            there.subscribe("*.x") as other,
        ):
            for number in range(100):
                await here.publish("t.x", number)
            for each in (sub, other):
                assert await drain(each, 99) == list(range(100))
            proxy.swallow()
            begin = time.monotonic()
            for number in range(100):
                await here.publish("t.x", number)
            await there.publish("t.x", "into nothing")
            await until(lambda: not there.connected)
            # Silence counts from the last sign of life and is looked at once per heartbeat.
            assert time.monotonic() - begin < (3 + 1) * BEAT + 1.0
            await until(lambda: there.connected)
            await there.flush()
            await here.publish("t.x", "end")
            for each in (sub, other):
                assert await drain(each, "end") == [*range(100), "into nothing", "end"]
                assert each.gaps == 0

    _run(story())


def test_a_pause_shorter_than_three_heartbeats_is_no_loss_of_connection() -> None:
    async def story() -> None:
        async with (
            Site() as site,
            behind_proxy(site, heartbeat="1s") as proxy,
            qulo.connect(proxy.url) as there,
            site.bus("m") as here,
            there.subscribe("t") as sub,
        ):
            proxy.pause()
            for number in range(1000):
                await here.publish("t", number)
            with pytest.raises(qulo.DeadlineExceeded):
                await sub.next(1.2)
            proxy.resume()
            assert await drain(sub, 999) == list(range(1000))
            assert proxy.accepted == 2  # the DEALER's and the SUB's, once

    _run(story())


def test_a_hub_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Site() as site, behind_proxy(site) as proxy:
            proxy.pause()
            monkeypatch.setenv("QULO_URL", f"{proxy.url},{site.url('m')}")
            monkeypatch.setattr("qulo.net.link.GREETING", 0.2)
            async with qulo.connect() as bus:
                assert bus.url == site.url("m")

    _run(story())


def test_a_session_that_expired_begins_anew_with_a_gap_at_most() -> None:
    async def story() -> None:
        async with (
            Site() as site,
            behind_proxy(site, session_timeout="700ms") as proxy,
            qulo.connect(proxy.url) as there,
            site.bus("m") as here,
            there.subscribe("t") as sub,
        ):
            proxy.pause()
            proxy.cut()
            await until(lambda: len(site.services["m"].hub.sessions) == 1)
            await here.publish("t", "missed")
            await here.flush()
            proxy.resume()
            # Connected is not yet subscribed: what is published in between is in the gap, too.
            await until(lambda: any(session.subscriptions for session in site.services["m"].hub.sessions.values()))
            await here.publish("t", "end")
            got = await drain(sub, "end")
            assert [item for item in got if isinstance(item, str)] in (["missed", "end"], ["end"])
            assert ("missed" in got) != any(isinstance(item, qulo.Gap) for item in got)

    _run(story())


def test_an_agents_way_up_is_cut_and_nothing_is_lost_or_doubled() -> None:
    async def story() -> None:
        async with Site() as site, behind_proxy(site) as proxy:
            site._addresses["way"] = {"listen": proxy.url}
            await site.start("a", "way")
            async with (
                site.bus("m") as up,
                site.bus("a") as down,
                up.subscribe("u.>") as above,
                down.subscribe("d.>") as below,
            ):
                number = 0
                for _ in range(5):
                    for _ in range(500):
                        await down.publish("u.x", number)
                        await up.publish("d.x", number)
                        number += 1
                    await asyncio.sleep(0)
                    proxy.cut()
                    await until(lambda: not site.services["a"].connected)
                    await until(lambda: site.services["a"].connected)
                await down.publish("u.x", "end")
                await up.publish("d.x", "end")
                assert await drain(above, "end") == [*range(number), "end"]
                assert await drain(below, "end") == [*range(number), "end"]

    _run(story())


def test_a_link_that_cannot_make_a_socket_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = open_socket, [3]

    def fail_thrice(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise zmq.ZMQError(errno.EMFILE)
        return real(*arguments)

    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            monkeypatch.setattr(link, "open_socket", fail_thrice)
            async with site.bus("m", timeout=10) as bus:
                await bus.flush()
            assert not left[0]

    _run(story())


@pytest.mark.parametrize("number", range(2, 6))
def test_whichever_of_its_sockets_cannot_be_made_it_tries_again(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = open_socket, [0]

    def fail_once(*arguments: Any) -> Any:
        made[0] += 1
        if made[0] == number:
            raise zmq.ZMQError(errno.EMFILE)
        return real(*arguments)

    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            monkeypatch.setattr(link, "open_socket", fail_once)
            async with site.bus("m", timeout=10) as bus, bus.subscribe("t") as sub:
                await bus.publish("t", 1)
                await sub.next(5)

    _run(story())


def test_a_monitors_address_is_never_used_twice() -> None:
    assert len({monitor_address() for _ in range(1000)}) == 1000
