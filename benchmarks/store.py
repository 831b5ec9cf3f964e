"""The store of durable streams alone, without sockets: rows a second on disk, and what millions of them cost.

    python -m benchmarks.store [--quick] [--messages N] [--place DIRECTORY]

Bodies of 100 bytes, the shipped settings (WAL, synchronous=FULL, a reserve), medians of three. The batches are made
beforehand: what is measured is `commit`. The large store is made once in a temporary directory of `--place` and
removed. It is opened in fresh processes, once whole and once as a crash left it, its pages in the system's cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from qulo.protocol.spans import Span
from qulo.protocol.storage import Ack, Append, GroupAdd, Operation, Stream, StreamAdd, Trim
from qulo.store.sqlite import SqliteStore

_BODY = os.urandom(100)

_HUNDRED = 100  # messages in a batch: what many publishers together have under way

_REPEAT = 3

# Targets of the project: rows a second in hundreds; seconds to open and resident MB with ten million messages.
_ROWS, _OPEN, _RESIDENT = 200_000, 2.0, 150.0

# Run in a fresh interpreter: opens a store, reads from it, stores in it; says what that took.
_OPENING = """
import os, sys, time
from qulo.protocol.storage import Append
from qulo.store.sqlite import SqliteStore
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
bare = peak()
begin = time.perf_counter()
store = SqliteStore(sys.argv[1])
opened = time.perf_counter() - begin
(state,) = [state for state in store.streams() if state.stream.name == "S"]
for after in range(0, state.last, state.last // 1000):
    store.read("S", after, 100, 1 << 20, 0)
store.at("S", state.last // 2)
for _ in range(1000):
    store.commit([Append("S", "t.0", 1, bytes(100), state.last)] * 100)
print(opened, state.messages, peak(), bare, flush=True)
os._exit(0)
"""


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(_REPEAT))


def _rate(store: SqliteStore, batches: Iterator[list[Operation]], total: int, each: int) -> float:
    """Things a second, `each` in a batch."""
    made = [next(batches) for _ in range(total // each)]
    begin = time.perf_counter()
    for batch in made:
        store.commit(batch)
    return len(made) * each / (time.perf_counter() - begin)


def _appends(size: int, topics: int) -> Iterator[list[Operation]]:
    names = [f"t.{topic}" for topic in range(topics)]
    for number in count():
        first = number * size
        yield [Append("S", names[(first + i) % topics], 1, _BODY, first) for i in range(size)]


def _named() -> Iterator[list[Operation]]:
    for number in count():
        yield [Append("I", "i", 1, _BODY, number, f"{time.monotonic_ns()}-{i}") for i in range(_HUNDRED)]


def _work() -> Iterator[list[Operation]]:
    """Each message is put, acked and removed: three rows changed for each, in hundreds."""
    for number in count():
        span = Span(number * _HUNDRED + 1, (number + 1) * _HUNDRED)
        puts = [Append("W", "w", 1, _BODY, number) for _ in range(_HUNDRED)]
        yield [*puts, Ack("W", "g", (span,)), Trim(number, _HUNDRED)]


def _speeds(place: Path, total: int) -> None:
    store = SqliteStore(str(place / "speed.db"))
    store.commit([StreamAdd(Stream("S", ("t.>",))), StreamAdd(Stream("I", ("i",), dedupe_ms=600_000))])
    store.commit([StreamAdd(Stream("W", ("w",), keep="work")), GroupAdd("W", "g")])
    work = _work()
    rows = [
        ("rows/s, hundreds, one topic", lambda: _rate(store, _appends(_HUNDRED, 1), total, _HUNDRED)),
        ("rows/s, hundreds, 50 topics", lambda: _rate(store, _appends(_HUNDRED, 50), total, _HUNDRED)),
        ("rows/s, hundreds, each with an id", lambda: _rate(store, _named(), total // 4, _HUNDRED)),
        ("put, acked and removed/s, hundreds", lambda: _rate(store, work, total // 4, _HUNDRED)),
        ("commits/s one by one", lambda: _rate(store, _appends(1, 1), total // 50, 1)),
    ]
    for name, measure in rows:
        target = f"   (target {_ROWS:,})" if name == rows[0][0] else ""
        print(f"{name:<40}{_median(measure):>12,.0f}{target}", flush=True)
    begin = time.perf_counter()
    read = sum(len(store.read("S", after, 1000, 1 << 20, 0).messages) for after in range(0, total, 1000))
    print(f"{'read/s, thousands':<40}{read / (time.perf_counter() - begin):>12,.0f}")
    store.close()


def _large(place: Path, messages: int) -> None:
    path = str(place / "large.db")
    store = SqliteStore(path)
    store.commit([StreamAdd(Stream("S", ("t.>",)))])
    batches = _appends(1000, 50)
    begin = time.perf_counter()
    for _ in range(messages // 1000):
        store.commit(next(batches))
    made = time.perf_counter() - begin
    store.close()
    size = os.path.getsize(path) / 1e6
    print(f"{messages:,} messages: made in {made:.0f} s, {size:,.0f} MB on disk")
    expected = messages
    for how in ("whole", "after a crash"):
        output = subprocess.check_output([sys.executable, "-c", _OPENING, path], text=True)
        opened, found, resident, bare = (float(word) for word in output.split())
        assert found == expected
        expected += 1000 * _HUNDRED  # what the process stored after opening
        print(f"{f'  open {how}, s':<40}{opened:>12.3f}   (target {_OPEN})")
        used = f"(target {_RESIDENT:.0f}; {bare / 1024:.0f} before opening)"
        print(f"{'  MB at most, reading and storing':<40}{resident / 1024:>12.0f}   {used}")


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description="the store alone, on disk")
    parser.add_argument("--quick", action="store_true", help="few messages: shows that everything works")
    parser.add_argument("--messages", type=int, default=10_000_000, metavar="N", help="in the large store")
    parser.add_argument("--place", type=Path, help="a directory on the disk to be measured; default: the temporary one")
    options = parser.parse_args(argv)
    total, messages = (20_000, 100_000) if options.quick else (500_000, options.messages)
    with tempfile.TemporaryDirectory(prefix="qulo-store-", dir=options.place) as place:
        _speeds(Path(place), total)
        if messages:
            _large(Path(place), messages)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
