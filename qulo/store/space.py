"""The quota, the disk, and the reserve: producers are refused while there is still space for acknowledgements.

Beside the database lies a file of `reserve` bytes that holds nothing. Appends are refused while little else is free.
When that is used up too, by others on the disk, the file is removed: what acks need then comes out of it, a few pages
and a WAL that is used over and over. It is made again when there is space for it and to spare; until then nothing is
appended. What others write into the space that was set free cannot be helped.

What was appended before may make the files grow yet, at the next checkpoint; that is not counted as free. So we never
come near the reserve by what we append ourselves.

A number of bytes that can be appended is an estimate from below: a byte may be written twice, to the WAL and by the
checkpoint, and the B-tree takes its share.
"""

from __future__ import annotations

import contextlib
import os
import sys

from qulo.store.database import Database

_PRIVATE = 0o600

# Of the free space beyond the low-water mark, the part one batch may fill: WAL, database, B-tree.
_SHARE = 3

# With so much free nobody asks what the files may still grow by: a stat of the WAL between commits was measured to cost
# a tenth of each.
_PLENTY = 1024 * 1024 * 1024


class Space:
    """Looks at the disk once for each commit; a statvfs is a microsecond."""

    def __init__(self, path: str, reserve: int, max_store: int) -> None:
        """With `reserve` 0 the disk is not looked at; with `max_store` 0 there is no quota."""
        self.path = f"{path}.reserve"
        self.size = reserve
        self.max_store = max_store
        self._directory = os.path.dirname(os.path.abspath(path))
        self._low = reserve // 4
        """With less than this free nothing is appended; with half of it the reserve is released."""
        self.held = os.path.exists(self.path) and os.path.getsize(self.path) == reserve
        self.look()

    @property
    def free(self) -> int:
        """Bytes of the disk that we may fill."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def look(self) -> int:
        """Hold or release the reserve as the disk is; returns the free bytes then."""
        free = self.free
        if self.held and free < self._low // 2:
            self.held = False
            os.unlink(self.path)
            return self.free
        if self.size and not self.held and free > self.size + 2 * self._low:
            self._make()
            return self.free
        return free

    def _make(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        try:
            with contextlib.suppress(OSError):  # somebody else was faster, or the file system cannot: without, then
                os.posix_fallocate(fd, 0, self.size)
                os.ftruncate(fd, self.size)  # the setting may have been larger before
                self.held = True
        finally:
            os.close(fd)
        if not self.held:
            os.unlink(self.path)

    def room(self, db: Database) -> int:
        """Bytes that this commit may append; at most 0: none."""
        room = sys.maxsize
        if self.size:
            free = self.look()
            growth = db.growth() if free < _PLENTY else 0
            room = (free - growth - self._low) // _SHARE if self.held else 0
        if self.max_store:
            room = min(room, self.max_store - db.used())
        return room

    def last_room(self, db: Database) -> int:
        """Bytes that a dead letter may take: the reserve is for them too, but for half of the low-water mark."""
        room = sys.maxsize
        if self.size and not self.held:
            room = (self.free - self._low // 2) // _SHARE
        if self.max_store:
            room = min(room, self.max_store + self.size - db.used())
        return room
