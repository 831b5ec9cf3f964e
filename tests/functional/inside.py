"""What `docker.py` has done inside of a container, at the cost of one `docker exec`.

    python3 -I -S -c SOURCE holder PIDFILE         prints the PID that holds the lock, or nothing
    python3 -I -S -c SOURCE signal PIDFILE NUMBER  to that one, if there is one: exit status 3 if not
    python3 -I -S -c SOURCE read FILE              prints it; nothing if it is missing
    python3 -I -S -c SOURCE write                  stdin: {FILE: [TEXT, MODE]}, each whole or not at all
    python3 -I -S -c SOURCE reset                  everything ends and goes; then as write

It travels as text, so it must never import anything but the standard library, nor do anything at import but its job.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

# struct flock: what qulo.daemon.pidfile asks, without the time that importing it takes.
_FLOCK = struct.Struct("@hhqqi4x")

# What the daemons make by themselves, and what was mounted and can only be emptied.
_MADE, _MOUNTED = ("/run/qulo", "/var/log/qulo"), ("/etc/qulo", "/var/lib/qulo", "/tmp", "/root")

_SYSLOG = "/var/log/syslog"

# The container's own: its init, and the syslog daemon.
_INIT = 1

# Seconds: a killed process is gone at once, unless the machine is very busy.
_PATIENCE = 10.0


def holder(path: str) -> int:
    """Who holds the lock of a PID file; 0: nobody."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    os.close(fd)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def write(files: dict[str, tuple[str, int | None]]) -> None:
    """Write files; a mode of None is 0644, or what the file has."""
    for name, (text, mode) in files.items():
        path, new = Path(name), Path(f"{name}.new")
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.stat().st_mode & 0o777 if path.exists() else 0o644
        new.write_text(text, encoding="utf-8")
        new.chmod(before if mode is None else mode)
        new.replace(path)


def reset() -> None:
    """End all processes but the container's own, and remove what they left."""
    deadline = time.monotonic() + _PATIENCE
    while found := _others():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            sys.exit(f"still there: {found}")
        time.sleep(0.005)
    for name in _MADE:
        shutil.rmtree(name, ignore_errors=True)
    for name in _MOUNTED:
        for path in Path(name).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    os.chmod("/var/lib/qulo", 0o700)
    if os.path.exists(_SYSLOG):
        os.truncate(_SYSLOG, 0)


def _others() -> list[int]:
    """Whoever lives here and does not belong."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid() and _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        # PID (NAME) STATE PARENT …; the name may hold anything.
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, parent = rest.split()[:2]
    return state not in "ZX" and pid != _INIT and not (name in {"busybox", "syslogd"} and int(parent) == _INIT)


def main(what: str, *argv: str) -> int:
    """Do one of them."""
    if what == "holder":
        sys.stdout.write(f"{holder(argv[0])}\n")
    elif what == "signal":
        pid = holder(argv[0])
        if not pid:
            return 3
        os.kill(pid, int(argv[1]))
    elif what == "read":
        with contextlib.suppress(FileNotFoundError), open(argv[0], "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        files = json.load(sys.stdin)
        if what == "reset":
            reset()
        write(files)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
