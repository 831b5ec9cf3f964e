"""The end of an agent: what it has acknowledged to its programs goes up first, or the log says how much did not."""

from __future__ import annotations

import time

import pytest

from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import Site, until


def test_draining_waits_until_the_master_has_everything() -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            agent = await site.start("a", under="m")
            await site.stop("m")
            await until(lambda: not agent.connected)
            async with site.bus("a") as bus:
                for number in range(100):
                    await bus.publish("late", number)
                await bus.flush()
            await site.start("m")
            async with site.bus("m") as above, above.subscribe("late") as sub:
                assert await agent.obey("drain", None) is False
                await site.stop("a")
                assert [(await sub.next(5)).body for _ in range(100)] == list(range(100))  # type: ignore[union-attr]

    _run(story())


def test_what_did_not_get_through_is_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            await site.start("m")
            agent = await site.start("a", under="m", drain_timeout="200ms")
            await site.stop("m")
            await until(lambda: not agent.connected)
            async with site.bus("a") as bus:
                for number in range(7):
                    await bus.publish("lost", number)
                await bus.flush()
            started = time.monotonic()
            assert await agent.obey("drain", None) is False
            assert 0.2 <= time.monotonic() - started < 2
            await site.stop("a")

    _run(story())
    assert "stopped with 7 messages that the master has not acknowledged" in caplog.text
