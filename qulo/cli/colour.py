"""Colour, for terminals only, and not where NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
import sys

_RED, _PLAIN = "\33[31m", "\33[0m"


def red(text: str) -> str:
    """What has to be seen."""
    return f"{_RED}{text}{_PLAIN}" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
