"""What a run has reached: faults, verbs of the protocol, and the codes that things ended with.

`watch` counts the verbs: each record is held against the table before it means anything, and that is where it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qulo.errors import QuloError
from qulo.protocol import wire


class Coverage:
    """Counters; add those of one world to those of a run."""

    def __init__(self) -> None:
        self.seeds = 0
        self.faults: Counter[str] = Counter()
        self.verbs: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def fault(self, name: str) -> None:
        """One fault has happened."""
        self.faults[name] += 1

    def code(self, what: str, code: str) -> None:
        """Something ended with a code; "" is good."""
        self.codes[f"{what}: {code or 'ok'}"] += 1

    def error(self, error: QuloError) -> None:
        """A connection was lost, or refused."""
        self.codes[f"connection: {error.code}"] += 1

    def add(self, other: Coverage) -> None:
        """What another run has reached as well."""
        self.seeds += other.seeds
        self.faults += other.faults
        self.verbs += other.verbs
        self.codes += other.codes

    def table(self) -> str:
        """To be read."""
        lines = []
        for title, counter in (("faults", self.faults), ("verbs", self.verbs), ("ends", self.codes)):
            lines.append(f"{title}:")
            lines += [f"  {count:>9,}  {name}" for name, count in sorted(counter.items())]
        return "\n".join(lines)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count the verbs of all records that are checked meanwhile."""
        original = wire.check
        counts: Counter[int] = Counter()

        def check(record: Any, direction: str) -> int:
            verb = original(record, direction)
            counts[verb] += 1
            return verb

        wire.check = check
        try:
            yield
        finally:
            wire.check = original
            for verb, count in counts.items():
                self.verbs[wire.VERBS[verb].name] += count
