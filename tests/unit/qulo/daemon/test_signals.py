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
