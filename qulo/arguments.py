"""What the command lines of several programs share: types of options. It must never load more than argparse."""

from __future__ import annotations

import argparse


def seconds(text: str) -> float:
    """A number of seconds above zero, as an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
