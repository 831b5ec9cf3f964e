"""Memory that a crowd has left behind goes back to the system.

glibc keeps what was freed between blocks that are still in use: a thousand connections that had come and gone left a
hub at 121 MB that needs 43. Elsewhere than on glibc this does nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# Connections that have ended since memory was given back last; so many leave some megabytes.
CROWD = 100


def _find() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


_trim = _find()


class Keeper:
    """Looks at how many sessions there are, now and then."""

    def __init__(self) -> None:
        self._most = 0

    def look(self, sessions: int) -> None:
        """There are so many now. Takes some milliseconds after a crowd, else nothing."""
        self._most = max(self._most, sessions)
        if self._most - sessions >= CROWD:
            self._most = sessions
            if _trim is not None:
                _trim(0)
