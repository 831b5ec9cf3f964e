"""What the tests of the stores share: making one, reopening it, and short ways to say things."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qulo.errors import QuloError
from qulo.protocol.spans import Span
from qulo.protocol.storage import Append, Operation, Origin, Removed, Result, Store, Stored, Stream, Trim
from qulo.store.memory import MemoryStore
from qulo.store.sqlite import SqliteStore

# Larger than anything in these tests: reads are then bounded by their count alone.
PLENTY = 1 << 40


@dataclass
class Shop:
    """A store under test, and how it is opened again."""

    kind: str
    path: Path
    options: dict[str, int] = field(default_factory=dict)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = self._open()

    def _open(self) -> Store:
        if self.kind == "memory":
            return MemoryStore(**self.options)  # type: ignore[arg-type]
        return SqliteStore(str(self.path / "store.db"), reserve=0, **self.options)

    def reopen(self) -> None:
        """Close and open; what is in memory only has no restart."""
        if self.kind != "memory":
            self.store.close()
            self.store = self._open()

    def commit(self, *operations: Operation) -> list[Result]:
        """One batch, in which nothing was refused."""
        results = self.store.commit(operations)
        refused = [result for result in results if isinstance(result, QuloError)]
        assert not refused
        return results

    def do(self, operation: Operation) -> Any:
        """One operation; its result, which may be an error."""
        (result,) = self.store.commit([operation])
        return result

    def trim(self, now_ms: int = 0, limit: int = 1000) -> int:
        """Trim until there is no more; how many messages went."""
        total = 0
        for _ in range(10_000):
            removed = self.do(Trim(now_ms, limit))
            assert isinstance(removed, Removed)
            total += removed.gone
            if not removed.more:
                return total
        raise AssertionError("a trim without an end")

    def seqs(self, stream: str = "S") -> list[int]:
        """The numbers of all messages in a stream."""
        return [message.seq for message in self.all(stream)]

    def all(self, stream: str = "S") -> list[Stored]:
        """All messages in a stream, delayed ones too."""
        return self.store.fetch(stream, range(1, 1000))


def stream(name: str = "S", **limits: Any) -> Stream:
    """A definition."""
    return Stream(name, ("t.>",), **limits)


def put(body: str = "", topic: str = "t.a", *, to: str = "S", at: int = 0, **more: Any) -> Append:
    """An Append."""
    origin = more.pop("origin", None)
    return Append(to, topic, 1, body.encode(), at, origin=Origin(*origin) if origin else None, **more)


def span(first: int, last: int | None = None) -> Span:
    """A Span, of one number if only one is given."""
    return Span(first, last or first)
