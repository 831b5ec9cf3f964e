"""A daemon that can be made to die at a named point, and whose wall clock can be set: patched from outside.

    QULO_FAILPOINT=after-commit:5 QULO_CLOCK=FILE python -m tests.faults.failing qmaster -f -c FILE

At the fifth time that it comes to `after-commit` it kills itself as kill -9 would. QULO_CLOCK names a file with the
seconds by which the clock is wrong.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from qulo.net.hub import HubServer
from qulo.protocol.journal import Journal
from qulo.store.sqlite import SqliteStore

# Where it can die: the object, its method, and whether before the method is called or after it has returned.
POINTS: dict[str, tuple[type, str, bool]] = {
    "before-commit": (SqliteStore, "commit", True),
    "after-commit": (SqliteStore, "commit", False),  # on disk, and nobody knows
    "before-answer": (Journal, "done", True),  # the loop knows, nobody is told
    "after-answer": (Journal, "done", False),  # decided, not sent
    "before-send": (HubServer, "_send", True),
    "after-send": (HubServer, "_send", False),
}

# Looking at the file costs a microsecond; a program looks at the clock thousands of times a second.
_LOOK_EVERY = 0.05


def _die_at(point: str, times: int) -> None:
    owner, name, before = POINTS[point]
    method: Callable[..., Any] = getattr(owner, name)
    left = times

    @wraps(method)
    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if before and left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, failing)


def _follow_clock(path: Path) -> None:
    real, steady = time.time, time.monotonic
    wrong, looked = 0.0, -1.0

    def clock() -> float:
        nonlocal wrong, looked
        now = steady()
        if now - looked > _LOOK_EVERY:
            looked = now
            wrong = float(path.read_text() or 0) if path.exists() else 0.0
        return real() + wrong

    time.time = clock


def main() -> int:
    """The daemon named first, with the rest of the command line."""
    point, _, times = os.environ.get("QULO_FAILPOINT", "").partition(":")
    if point:
        _die_at(point, int(times or 1))
    if clock := os.environ.get("QULO_CLOCK"):
        _follow_clock(Path(clock))
    name = sys.argv.pop(1)
    result: int = importlib.import_module(f"qulo.{name}").main()
    return result


if __name__ == "__main__":
    raise SystemExit(main())
