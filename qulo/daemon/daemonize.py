"""Going into the background without anything failing out of sight.

    parent ── fork ──▶ child: setsid ── fork ──▶ grandchild: the daemon
       ▲                                             │
       └────────── readiness pipe: one Outcome ──────┘

The parent waits for the daemon's own word, prints what went wrong and exits with the daemon's exit code; the
end of the pipe without a word is a failure too. Nothing that must be made after the last fork (context, loop,
threads, database, the PID file's lock) may be made before `launch`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from qulo.errors import QuloError

# Everything a daemon makes is its owner's alone, unless the place that makes it says otherwise.
UMASK = 0o077


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start ended: an exit code, and the lines for whoever started the daemon."""

    code: int
    lines: tuple[str, ...] = ()


Tell = Callable[[Outcome], None]
"""What the daemon calls once, when it is ready or knows that it will not be."""


def launch(run: Callable[[Tell], int]) -> Outcome:
    """Run `run(tell)` in a daemon and return, in the parent only, the Outcome that it told.

    The grandchild never comes back from here: it ends with the code that `run` returns.
    """
    reader, writer = os.pipe()  # both are O_CLOEXEC: no program the daemon starts can hold the pipe open
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_daemon(run, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        return Outcome(1, ("died before it was ready, without a word; see its log",))
    outcome = json.loads(told)
    return Outcome(outcome["code"], tuple(outcome["lines"]))


def _become_daemon(run: Callable[[Tell], int], writer: int) -> None:
    """The child's and the grandchild's side. Never returns: a copy of the caller's stack must not run on."""
    pipe = _Pipe(writer)
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)  # the pipe stays open in the grandchild, which is nobody's session leader
        _detach(writer)
        code = run(pipe.tell)
    except BaseException as error:  # noqa: BLE001 - nothing above this could tell anybody
        with contextlib.suppress(OSError, QuloError):  # the parent may be gone, and is the only one to tell
            pipe.tell(Outcome(1, (f"{type(error).__name__}: {error}",)))
    finally:
        os._exit(code)


def _detach(writer: int) -> None:
    os.chdir("/")  # whatever directory it was started in can be unmounted
    os.umask(UMASK)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    # What the caller's shell left open (the lock of a cron job, say) must not live as long as the daemon.
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != writer:
            with contextlib.suppress(OSError):  # the descriptor that listed the directory is closed already
                os.close(int(name))


class _Pipe:
    """The daemon's end of the readiness pipe; only the first word counts."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def tell(self, outcome: Outcome) -> None:
        """Raises QuloError when the parent is gone: a daemon that nobody waited for must not stay."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.write(fd, json.dumps(asdict(outcome)).encode())
        except BrokenPipeError:
            raise QuloError("whoever started it went away before it was ready") from None
        finally:
            os.close(fd)
