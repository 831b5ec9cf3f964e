"""The PID file: its lock says that a daemon runs, the number in it is for people.

The lock is a POSIX record lock. It belongs to the process, ends with it however it ends, and does not pass
to a forked child. Therefore, and this is binding for the whole daemon: the file is opened ONCE per process.
Opening and closing it again anywhere in the process that holds the lock gives the lock up without a word.
It is also never unlinked: a second daemon could otherwise lock a new file of the same name beside the first.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass

from qulo.errors import EndpointError, FileError

# struct flock as the kernel lays it out: type, whence, start, length, pid; 4 bytes more for its padding.
_FLOCK = struct.Struct("@hhqqi4x")

# Anybody may ask who runs; only the owner may lock, or a reader could keep the daemon from starting.
_MODE = 0o644


@dataclass(frozen=True, slots=True)
class PidFile:
    """A locked PID file. There is no way to close it: the process's end does."""

    path: str
    fd: int

    @classmethod
    def lock(cls, path: str) -> PidFile:
        """Lock `path` for this process and write its PID; to be called after the last fork.

        Raises EndpointError when another process holds the lock, FileError when there can be no such file.
        """
        fd = _open(path)
        try:
            os.lockf(fd, os.F_TLOCK, 0)
        except OSError as error:
            pid = _holder(fd)
            os.close(fd)  # this process holds no lock that closing could give up
            if pid is None:
                raise FileError(f"{path} cannot be locked: {error.strerror}") from error
            raise EndpointError(f"already running: {_who(pid)} holds the lock of {path}") from error
        # Only now, with the lock: before, this would have emptied a running daemon's file.
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(path, fd)


def holder(path: str) -> int | None:
    """The PID that holds the lock of `path`, None when nobody does, 0 when it is in another PID namespace.

    It asks the lock, so a stale file or a recycled PID cannot deceive it, and it takes nothing, so it cannot
    keep a daemon from starting. NEVER call it in the daemon itself: see above.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _holder(fd)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # No O_TRUNC, the lock comes first; no following of a link that somebody left in a shared directory. The directory
    # may be that of the user the daemon becomes: root must not change another file of that user's choice.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, _MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(fd)
            raise FileError(f"{path} is not a file with one name: remove it")
        if stat.S_IMODE(found.st_mode) != _MODE:  # root without its capabilities may do this to its own files only
            os.fchmod(fd, _MODE)  # the daemon's umask is stricter
    except OSError as error:
        raise FileError(f"{path} cannot be made: {error.strerror}") from error
    return fd


def _holder(fd: int) -> int | None:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _whence, _start, _length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def _who(pid: int) -> str:
    return f"PID {pid}" if pid else "a process outside of this container"
