"""Coroutines in plain tests: `_run` with a hard deadline, and an awaitable fake that records its calls."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# A loop that a callback blocks cannot keep its own deadline; the alarm comes this many seconds after it.
_ALARM_AFTER = 5.0


def _run(coro: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
    """Run `coro` on a fresh loop; fail after `timeout` seconds with the names of the tasks still pending."""
    before = signal.signal(signal.SIGALRM, _blocked)
    signal.setitimer(signal.ITIMER_REAL, timeout + _ALARM_AFTER)
    try:
        return asyncio.run(_bounded(coro, timeout))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def _bounded(coro: Coroutine[Any, Any, T], timeout: float) -> T:
    task = asyncio.create_task(coro, name="the test")
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done:
        pending = sorted(each.get_name() for each in asyncio.all_tasks() - {asyncio.current_task()})
        raise AssertionError(f"not done after {timeout:g} s; pending: {', '.join(pending)}")
    return task.result()


def _blocked(_number: int, _frame: FrameType | None) -> None:
    raise AssertionError("the loop is blocked: its own deadline did not fire")


class AsyncMock:
    """An async callable that records its calls.

    `side_effect` is an exception to raise, or a function of the arguments whose result is returned;
    otherwise `return_value` is.
    """

    def __init__(
        self,
        return_value: object = None,
        *,
        side_effect: BaseException | Callable[..., object] | None = None,
    ) -> None:
        self.return_value = return_value
        self.side_effect = side_effect
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._more = asyncio.Condition()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        async with self._more:
            self.calls.append((args, kwargs))
            self._more.notify_all()
        if isinstance(self.side_effect, BaseException):
            raise self.side_effect
        if self.side_effect is not None:
            return self.side_effect(*args, **kwargs)
        return self.return_value

    async def called(self, n: int = 1, timeout: float = 5.0) -> None:
        """Wait until there were `n` calls at least; fail after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(lambda: len(self.calls) >= n)
        except TimeoutError:
            raise AssertionError(f"called {len(self.calls)} times in {timeout:g} s, not {n}") from None
