"""A command that is run for a message: `--command` of the verbs, and `consume`'s way of running it.

It must never be run by a shell: what strangers send is data. A command has a process group of its own, so that ending
it ends what it started, and Ctrl-C reaches it only as we say.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from qulo.errors import UsageError

# Seconds that a command which is told to end may take before it is killed.
_GRACE = 2.0


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """As subprocess has it: negative for a signal."""
    stderr: bytes


def split(command: str) -> list[str]:
    """The words of a command, as a shell would split them. Raises UsageError."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command!r}: {error}") from None
    if not argv:
        raise UsageError("--command is empty")
    return argv


def last_line(stderr: bytes) -> str:
    """What a command said last, behind a colon."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""


class Running:
    """Commands that run now, in several threads; all of them can be ended at once."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ending = False

    def run(
        self, argv: list[str], data: bytes, environ: Mapping[str, str], every: float, still: Callable[[], None]
    ) -> Ended | None:
        """Run one to its end, with `data` on its standard input; `still` is called every so many seconds meanwhile.

        None: it was ended by `end`, or was not begun. Raises OSError when it cannot be run.
        """
        with self._lock:
            if self._ending:
                return None
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, and no shell
                argv,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environ},
                process_group=0,
            )
            self._processes.add(process)
        return self._wait(process, data, every, still)

    def _wait(
        self, process: subprocess.Popen[bytes], data: bytes, every: float, still: Callable[[], None]
    ) -> Ended | None:
        given: bytes | None = data
        try:
            while True:
                try:
                    _out, err = process.communicate(given, timeout=every)
                except subprocess.TimeoutExpired:
                    given = None  # it goes on with what it was given
                    still()
                else:
                    break
        finally:
            with self._lock:
                self._processes.discard(process)
                ended = self._ending
        return None if ended else Ended(process.returncode, err)

    def end(self) -> None:
        """End all that run, and begin none any more."""
        with self._lock:
            self._ending = True
            running = list(self._processes)
        _signal(running, signal.SIGTERM)
        killer = threading.Timer(_GRACE, _signal, (running, signal.SIGKILL))
        killer.daemon = True
        killer.start()


def _signal(processes: Iterable[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.returncode is None:  # else its number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
