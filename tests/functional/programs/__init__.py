"""The programs that stories run on hosts. Each travels as a text: a host has qulo installed, and not these tests."""

from __future__ import annotations

from pathlib import Path

from tests.functional.cluster import Cluster, Running

HERE = Path(__file__).parent


def start(cluster: Cluster, host: str, name: str, *argv: str) -> Running:
    """Start one of them on a host; it has said that it is ready when this returns."""
    program = cluster.start(host, "python3", "-c", (HERE / f"{name}.py").read_text(), *argv)
    assert program.line() == "ready"
    return program
