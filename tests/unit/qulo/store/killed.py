"""A program that stores until it is killed: `python killed.py DATABASE SEED`.

Each batch puts messages of an agent into a work stream, acks some and trims; behind each commit a line says what is now
promised: the stream's last number and the group's floor. On StoreFailed it tries once more, says `failed`, and ends.
"""

from __future__ import annotations

import os
import random
import sys

from qulo.errors import StoreFailed
from qulo.protocol.spans import Span
from qulo.protocol.storage import (
    Ack,
    Append,
    GroupAdd,
    Numbers,
    Operation,
    Origin,
    Spool,
    SpoolRelease,
    Stream,
    StreamAdd,
    Trim,
)
from qulo.store.sqlite import SqliteStore

# Now and then one that fills the WAL quickly, so that kills meet checkpoints too.
SIZES = (0, 100, 100, 3000, 60_000)


def main(path: str, seed: int) -> None:
    """Until killed."""
    chance = random.Random(seed)
    store = SqliteStore(path, reserve=0)
    if not store.streams():
        store.commit([StreamAdd(Stream("S", ("t",), keep="work")), GroupAdd("S", "g")])
    last, floor = store.streams()[0].last, store.groups("S")[0].floor
    while True:
        count = chance.randint(1, 30)
        floor = chance.randint(floor, last)
        batch: list[Operation] = [
            Append("S", "t", 1, bytes(chance.choice(SIZES)), last + i, origin=Origin("a", last + i))
            for i in range(1, count + 1)
        ]
        batch += [Ack("S", "g", (Span(1, floor),)), Trim(0, 100), Numbers(1), Numbers(1)]
        try:
            *_, number = store.commit(batch)
            assert isinstance(number, int)
            store.commit([Spool(number, "t", 1, b"spooled", 0), SpoolRelease(number - 10)])
        except StoreFailed:
            refused_again(store)
            return
        last += count
        os.write(1, f"{last} {floor} {number}\n".encode())


def refused_again(store: SqliteStore) -> None:
    """A store that has failed refuses everything."""
    for call in (lambda: store.commit([]), store.streams, store.spool_state):
        try:
            call()
        except StoreFailed:
            continue
        os.write(1, b"0 0 0 not refused\n")
    os.write(1, b"failed\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
