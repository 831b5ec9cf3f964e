"""The agent's handle on its executor: against the real one, and against ends that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgpack
import pytest

from qulo.errors import (
    DeadlineExceeded,
    Disconnected,
    HandlerError,
    Overloaded,
    ProtocolError,
    QuloError,
    TooLarge,
    UsageError,
)
from qulo.fleet import handle
from qulo.fleet.executor import LIMIT
from qulo.fleet.handle import LOST, MOST_WAITING, OK, Executor
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.site import until

# Seconds; pings in these tests come as fast as they are answered.
EVERY, PATIENCE = 0.01, 20.0


@contextlib.asynccontextmanager
async def running(patience: float = PATIENCE) -> AsyncIterator[Executor]:
    """A real executor, attached."""
    executor = Executor.start()
    try:
        await executor.attach(EVERY, patience)
        yield executor
    finally:
        await executor.close()


@contextlib.asynccontextmanager
async def fake() -> AsyncIterator[tuple[Executor, socket.socket]]:
    """A handle whose executor is the test itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs, subprocess.Popen(["true"]) as process:  # noqa: ASYNC220 - as the handle does, before the loop
        executor = Executor(ours, process)
        asyncio.get_running_loop().add_reader(ours, executor._readable)
        try:
            yield executor, theirs
        finally:
            await executor.close()


async def outcome(question: Awaitable[Any]) -> str:
    """Its error."""
    with pytest.raises(QuloError) as caught:
        await question
    return str(caught.value)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What reaches the syslog."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- the real one


def test_it_answers_and_ends_with_its_agent() -> None:
    async def story() -> None:
        async with running() as executor:
            assert executor.state == OK
            answers = await asyncio.gather(*(executor.ask("ping") for _ in range(MOST_WAITING)))
            assert {answer["pid"] for answer in answers} == {executor.pid}
            assert (executor.uid, answers[0]["dropped"]) == (os.getuid(), 0)
            with pytest.raises(ProtocolError, match="there is no verb 'run'"):
                await executor.ask("run", {"command": "id"})
            with pytest.raises(ProtocolError, match="ping has no argument"):
                await executor.ask("ping", [])
        assert executor._process.returncode == 0
        with pytest.raises(Disconnected):
            await executor.ask("ping")
        await executor.close()

    _run(story())


def test_when_it_is_killed_whoever_waits_is_told_and_one_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with running() as executor:
            changes: list[str] = []
            executor.changed = lambda: changes.append(executor.state)
            os.kill(executor.pid, signal.SIGSTOP)
            waiting = [asyncio.create_task(executor.ask("ping")) for _ in range(5)]
            await until(lambda: len(executor._waiting) >= 5)
            os.kill(executor.pid, signal.SIGKILL)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [str(each) for each in results] == ["the executor is gone; the outcome is unknown"] * 5
            assert {type(each) for each in results} == {Disconnected}
            assert (changes, executor.state) == ([LOST], LOST)
            await until(lambda: errors(caplog))
            with pytest.raises(Disconnected):
                await executor.ask("ping")
        expected = "is gone (killed by signal 9): no job can run until this agent is restarted; messaging goes on"
        assert errors(caplog) == [f"the executor, PID {executor.pid}, {expected}"]

    _run(story())


def test_one_that_hangs_is_lost_until_it_answers_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def story() -> None:
        async with running(patience=0.3) as executor:
            changes: list[str] = []
            executor.changed = lambda: changes.append(executor.state)
            os.kill(executor.pid, signal.SIGSTOP)
            try:
                await until(lambda: changes == [LOST])
            finally:
                os.kill(executor.pid, signal.SIGCONT)
            await until(lambda: changes == [LOST, OK])
        assert errors(caplog) == [
            "the executor did not answer ping within 0.3 s: no job can run until it does; messaging goes on"
        ]
        assert caplog.records[-1].getMessage() == "the executor answers again"

    _run(story())


@pytest.mark.parametrize(
    ("program", "text"),
    [("/bin/false", r"does not start \(exit code 1\); `/bin/false -I -m qulo.fleet.executor` may say more"),
     ("/no/python", "cannot be started: .*/no/python")],
)  # fmt: skip
def test_one_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch, program: str, text: str) -> None:
    monkeypatch.setattr(sys, "executable", program)

    async def story() -> None:
        executor = Executor.start()
        try:
            await executor.attach(EVERY, PATIENCE)
        finally:
            await executor.close()

    with pytest.raises(QuloError, match=text):
        _run(story())


def test_one_that_starts_and_says_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "START_TIMEOUT", 0.05)

    async def story() -> None:
        async with fake() as (executor, _):
            with pytest.raises(DeadlineExceeded, match=r"did not answer ping within 0\.05 s"):
                await executor.attach(EVERY, PATIENCE)

    _run(story())


# -- ends that do not behave


def test_no_more_than_so_many_questions_are_under_way() -> None:
    async def story() -> None:
        async with fake() as (executor, theirs):
            tasks = [asyncio.create_task(executor.ask("ping")) for _ in range(MOST_WAITING)]
            await until(lambda: len(executor._waiting) == MOST_WAITING)
            with pytest.raises(Overloaded):
                await executor.ask("ping")
            for _ in range(MOST_WAITING):
                number, verb, argument = msgpack.unpackb(theirs.recv(LIMIT))
                theirs.send(msgpack.packb([number, "", [verb, argument]]))
            assert await asyncio.gather(*tasks) == [["ping", None]] * MOST_WAITING
            assert not executor._waiting

    _run(story())


def test_an_executor_that_does_not_read_is_overloaded_and_does_not_stop_the_loop() -> None:
    async def story() -> None:
        async with fake() as (executor, _):
            outcomes = [await outcome(executor.ask("ping", b"x" * 60_000, timeout=0)) for _ in range(100)]
            full = outcomes.index("the executor does not read its questions")
            assert full > 0
            assert set(outcomes[:full]) == {"the executor did not answer ping within 0 s"}
            assert set(outcomes[full:]) == {"the executor does not read its questions"}

    _run(story())


@pytest.mark.parametrize(
    ("argument", "error"), [(object(), UsageError), (2**64, UsageError), (b"x" * LIMIT, TooLarge)], ids=repr
)
def test_what_cannot_be_asked_is_said_and_nothing_is_sent(argument: Any, error: type[QuloError]) -> None:
    async def story() -> None:
        async with fake() as (executor, theirs):
            with pytest.raises(error):
                await executor.ask("ping", argument)
            assert not executor._waiting
            with pytest.raises(BlockingIOError):
                theirs.recv(1)

    _run(story())


def test_an_answer_that_comes_too_late_or_twice_is_nobodys() -> None:
    async def story() -> None:
        async with fake() as (executor, theirs):
            with pytest.raises(DeadlineExceeded):
                await executor.ask("ping", timeout=0.01)
            late = msgpack.unpackb(theirs.recv(LIMIT))[0]
            task = asyncio.create_task(executor.ask("ping"))
            await until(lambda: executor._waiting)
            number = msgpack.unpackb(theirs.recv(LIMIT))[0]
            assert number != late
            for message in ([late, "", "late"], [number, "handler", "it failed"], [number, "", "twice"]):
                theirs.send(msgpack.packb(message))
            with pytest.raises(HandlerError, match="it failed"):
                await task

    _run(story())


def test_questions_fail_at_once_when_the_other_end_closes_while_they_are_sent() -> None:
    async def story() -> None:
        async with fake() as (executor, theirs):
            theirs.close()
            with pytest.raises(Disconnected):
                await executor.ask("ping")
            assert executor.state == LOST

    _run(story())
