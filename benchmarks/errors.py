"""The one error of the benchmarks."""

from __future__ import annotations


class MeasureFailed(Exception):
    """A measurement came to nothing; the text says which process failed, and how."""
