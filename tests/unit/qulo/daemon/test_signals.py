"""Signals are enqueued, in a process of their own; those that come too early wait."""

from __future__ import annotations

from tests.unit.qulo.daemon.conftest import python


def test_signals_that_came_before_the_loop_are_not_lost() -> None:
    code = """
import asyncio, os, signal
from qulo.daemon import signals
signals.hold()
for number in signals.HANDLED:
    os.kill(os.getpid(), number)
async def main():
    with signals.listen() as queue:
        found = {await queue.get() for _ in signals.HANDLED}
        assert found == signals.HANDLED, found
        os.kill(os.getpid(), signals.STOP)
        assert await queue.get() == signal.SIGINT
    os.kill(os.getpid(), signals.DRAIN)  # on the way out: kept waiting, not deadly
asyncio.run(main())
print("alive")
"""
    done = python(code)
    assert (done.stdout, done.stderr) == ("alive\n", "")


def test_a_flood_of_one_signal_delays_no_other() -> None:
    code = """
import asyncio
from qulo.daemon import signals
async def main():
    inbox = signals.Inbox()
    for _ in range(1000):
        inbox.put(signals.RELOAD)
    for number in (signals.REOPEN, signals.DRAIN, signals.DRAIN):
        inbox.put(number)
    assert await inbox.get() == signals.RELOAD
    inbox.put(signals.RELOAD)  # while the first is acted on: news
    found = [await inbox.get() for _ in range(4)]
    assert found == [signals.REOPEN, signals.DRAIN, signals.DRAIN, signals.RELOAD], found
asyncio.run(main())
print("alive")
"""
    done = python(code)
    assert (done.stdout, done.stderr) == ("alive\n", "")
