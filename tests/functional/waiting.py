"""Waiting for something to become true, with a deadline. It must never wait for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Every wait of these tests ends here unless it says otherwise: a shared machine may be slow, a hang is worse.
PATIENCE = 20.0

# Between two looks; a look into a container costs more than that.
_PAUSE = 0.05


def until(what: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Ask until the answer is true, and return it; fail with the last answer when that takes too long."""
    deadline = time.monotonic() + timeout
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s; the last answer was {answer!r}"
        time.sleep(_PAUSE)
    return answer
