"""`-s`: what is said to the running daemon from outside. It asks the lock of the PID file who that is.

It must never run in the daemon's own process: looking at the lock from there gives it up.
"""

from __future__ import annotations

import os
import sys
import time

from qulo import plain
from qulo.daemon import exits, pidfile, signals, state
from qulo.daemon.supervisor import STOP_GRACE

_SIGNALS = {
    "reload": signals.RELOAD,
    "reopen": signals.REOPEN,
    "drain": signals.DRAIN,
    "stop": signals.STOP,
}

# What the daemon allows itself once it is told to stop (grace, cancel, grace), and some for a slow machine.
_STOP_BOUND = 2 * STOP_GRACE + 2.0
_LOOK_AGAIN = 0.05  # nobody notices a twentieth of a second, and it costs two system calls


def run(program: str, command: str, pid_file: str, drain_timeout: float) -> int:
    """Carry out one of `options.COMMANDS`; the exit code. Raises PermissionError when it may not."""
    pid = pidfile.holder(pid_file)
    if pid is None:
        print(f"{program}: not running (nobody holds the lock of {pid_file})")
        return exits.NOT_RUNNING
    if command == "status":
        return _status(program, pid_file, pid)
    if pid == 0:
        # kill(0) would be this process's own group.
        print(f"{program}: runs in another PID namespace: use -s there", file=sys.stderr)
        return exits.FAILED
    try:
        os.kill(pid, _SIGNALS[command])
    except PermissionError:
        raise PermissionError(f"PID {pid} belongs to somebody else: not permitted to {command} it") from None
    except ProcessLookupError:
        print(f"{program}: PID {pid} ended by itself just now")
        return exits.NOT_RUNNING
    if command in ("reload", "reopen"):
        print(f"{program}: told PID {pid} to {command}; its log says how that went")
        return exits.OK
    return _wait(program, pid_file, pid, _STOP_BOUND + (drain_timeout if command == "drain" else 0.0))


def _status(program: str, pid_file: str, pid: int) -> int:
    addresses = state.read(pid_file, pid)
    how = "starting" if addresses is None else "running"
    print(f"{program}: {how}, PID {pid or 'not visible from here'}")
    for name, address in (addresses or {}).items():
        print(f"  {plain.shown(name)}: {plain.shown(address)}")
    return exits.OK


def _wait(program: str, pid_file: str, pid: int, bound: float) -> int:
    deadline = time.monotonic() + bound
    while pidfile.holder(pid_file) == pid:  # another PID is the next daemon: ours is gone
        if time.monotonic() > deadline:
            print(f"{program}: PID {pid} still runs after {bound:g} s; see its log", file=sys.stderr)
            return exits.FAILED
        time.sleep(_LOOK_AGAIN)
    print(f"{program}: PID {pid} has stopped")
    return exits.OK
