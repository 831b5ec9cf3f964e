"""The tests' own tools: a deadline that does not fire would hide every hang."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.qulo.aio_tools import AsyncMock, _run


def test_run_returns_the_result() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert _run(answer()) == 42


def test_run_names_what_is_pending_at_its_deadline() -> None:
    async def hang() -> None:
        stuck = asyncio.create_task(asyncio.Event().wait(), name="stuck")
        await stuck

    with pytest.raises(AssertionError, match=r"not done after 0\.05 s; pending: stuck, the test"):
        _run(hang(), timeout=0.05)


def test_a_mock_records_returns_and_raises() -> None:
    async def use() -> None:
        mock = AsyncMock(7)
        assert await mock(1, key="x") == 7
        assert mock.calls == [((1,), {"key": "x"})]
        assert await AsyncMock(side_effect=lambda a: a + 1)(1) == 2
        with pytest.raises(ValueError, match="no"):
            await AsyncMock(side_effect=ValueError("no"))()

    _run(use())


def test_called_waits_for_calls_and_fails_without() -> None:
    async def use() -> None:
        mock = AsyncMock()
        calling = asyncio.create_task(mock())
        await mock.called(1)
        await calling
        with pytest.raises(AssertionError, match="called 1 times"):
            await mock.called(2, timeout=0.01)

    _run(use())
