"""`qulo consume`: take messages out of a stream as a member of a group, and show them or run a command for each.

A message is acknowledged when it was printed, or when its command has ended with 0; never before. What is not done at
the end is given back, which counts as no try.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from qulo.cli import admin, asking, body, commands, exits, hub
from qulo.cli.options import Verb, count, duration, note
from qulo.errors import DeadlineExceeded, QuloError, UsageError

if TYPE_CHECKING:
    from qulo.sync import Bus, Consumer, Delivery

_MANUAL = """\
Each message goes to one member of each group; the first member makes a group.
Without --command a line is number, topic and body, and the message is done
when it was printed. With it the command is run for each message, its body on
standard input, and in the environment QULO_TOPIC, QULO_STREAM, QULO_SEQ,
QULO_TRIES and QULO_REDELIVERED (0 or 1: it may have been delivered before).
No shell runs it: no pipes, no variables. What its exit status means:

  0    done
  75   not now: again after a while, the longer the more tries there were
  else failed: again at once, and to the dead letters (`qulo dead ls`) after
       the stream's --max-tries; the last line of its stderr is shown

While it runs its message stays ours; when this program dies others get it
within --lease. Ctrl-C (or SIGTERM) is the usual end: commands that run are
ended, and what is not done is given back; exit 0.

--timeout: end with 3 when nothing has come for so long.

examples:
  qulo consume ORDERS --group billing --command ./bill.sh --concurrency 4
  qulo consume ORDERS --group audit --json
  qulo consume ORDERS --group look --start new --count 10
"""

# Exit status of a command that wants its message again later: EX_TEMPFAIL of sysexits.h.
_LATER = 75

# Seconds until then: doubled with every try, so that what is down is not asked all the time, and a minute at most, so
# that it is noticed soon that it is back.
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0

# Messages held without a command and --prefetch: the client's own default.
_PREFETCH = 100

# Seconds for a look whether it is time to end.
_LOOK = 0.2

# How often in a lease it is extended while a command runs: two that get lost do no harm.
_EXTENSIONS = 3

# Characters of a reason that go to the dead letters with a message.
_REASON = 200

# Commands at once at most: each is a process and a thread.
_MOST_COMMANDS = 256

# A lease is never shorter: it could not be extended in time over a busy network. A day is longer than anybody waits.
_SHORTEST, _LONGEST = 1.0, 86_400.0


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stream", metavar="STREAM", help="`qulo stream ls` lists them")
    add("--group", metavar="S", required=True, help="each message goes to one of a group")
    add("-C", "--count", metavar="N", type=count, help="end after N messages")
    add("--prefetch", metavar="N", type=count, help="hold so many (100; with --command as many as run)")
    add("--lease", metavar="TIME", type=duration(_SHORTEST, _LONGEST), default=30.0, help="default 30s")
    add("--start", choices=("first", "new"), default="first", help="where a new group begins")
    add("--command", metavar="CMD", help="run this for each message")
    add("--concurrency", metavar="N", type=count, help="how many commands at once; default 1")
    add("--json", action="store_true", help="one object per message")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command is None and arguments.concurrency is not None:
        raise UsageError("--concurrency says how many commands run at once: it needs --command")
    if arguments.command is not None and arguments.json:
        raise UsageError("--json and --command exclude each other: the command gets the message")
    if (arguments.concurrency or 1) > _MOST_COMMANDS:
        raise UsageError(f"--concurrency is {_MOST_COMMANDS} at most")
    argv = None if arguments.command is None else commands.split(arguments.command)
    concurrency = arguments.concurrency or 1
    prefetch = arguments.prefetch or (_PREFETCH if argv is None else concurrency)
    with _interrupted_by_term(), hub.connect(arguments) as bus, _joined(bus, arguments, prefetch) as work:
        if argv is None:
            _print_each(work, arguments)
        else:
            _Workers(work, arguments, argv, _max_tries(bus, arguments)).work(concurrency)
    return exits.OK


@contextlib.contextmanager
def _interrupted_by_term() -> Iterator[None]:
    """SIGTERM is like Ctrl-C: whoever supervises us wants no message to wait for its lease."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _joined(bus: Bus, arguments: argparse.Namespace, prefetch: int) -> Consumer:
    if arguments.count is not None:
        prefetch = min(prefetch, arguments.count)
    return bus.consume(
        arguments.stream, group=arguments.group, prefetch=prefetch, lease=arguments.lease, start=arguments.start
    )


def _max_tries(bus: Bus, arguments: argparse.Namespace) -> int:
    """After how many tries the hub gives up, so that the last one can say why; 0 when it may not be known."""
    try:
        return int(asking.ask(bus, arguments, "info", {"stream": arguments.stream})["max_tries"])
    except QuloError:
        return 0


def _print_each(work: Consumer, arguments: argparse.Namespace) -> None:
    left = arguments.count
    latest = time.monotonic()
    while left is None or left > 0:
        batch = work.fetch(_PREFETCH if left is None else min(left, _PREFETCH), _LOOK)
        if not batch:
            _check_silence(latest, arguments)
            continue
        for message in batch:
            sys.stdout.buffer.write(_form(message, arguments))
        sys.stdout.buffer.flush()  # fails where nobody reads: then nothing of it is acknowledged
        for message in batch:
            message.ack()
        left = None if left is None else left - len(batch)
        latest = time.monotonic()
    work.flush()


def _check_silence(latest: float, arguments: argparse.Namespace) -> None:
    timeout = arguments.timeout
    if timeout is not None and time.monotonic() - latest >= timeout:
        raise DeadlineExceeded(f"nothing came from {arguments.stream} for {timeout:g} s")


def _form(message: Delivery, arguments: argparse.Namespace) -> bytes:
    if not arguments.json:
        again = " (again)" if message.redelivered else ""
        return f"{message.seq}{again} {message.topic} {body.to_line(message.body)}\n".encode()
    fields: dict[str, Any] = {"stream": message.stream, "seq": message.seq, "topic": message.topic}
    fields["body"] = message.body
    if message.headers:
        fields["headers"] = dict(message.headers)
    fields |= {"time": admin.when(message.time), "tries": message.tries, "redelivered": message.redelivered}
    return f"{body.to_json(fields)}\n".encode()


class _Workers:
    """Threads that run the command, one message at a time each."""

    def __init__(self, work: Consumer, arguments: argparse.Namespace, argv: list[str], max_tries: int) -> None:
        self._work = work
        self._max_tries = max_tries
        self._arguments = arguments
        self._argv = argv
        self._left: int | None = arguments.count
        self._running = commands.Running()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._latest = time.monotonic()
        self._busy = 0
        self._error: BaseException | None = None

    def work(self, concurrency: int) -> None:
        """Until there were enough, or Ctrl-C. Raises what a worker met."""
        threads = [threading.Thread(target=self._live, name=f"command {n}") for n in range(concurrency)]
        for thread in threads:
            thread.start()
        try:
            while not self._stop.wait(_LOOK) and any(thread.is_alive() for thread in threads):
                with self._lock:
                    latest = time.monotonic() if self._busy else self._latest
                _check_silence(latest, self._arguments)
        finally:
            self._stop.set()
            self._running.end()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error
        self._work.flush()

    def _live(self) -> None:
        try:
            while self._claim():
                batch = self._wait()
                if not batch:
                    return
                self._carry_out(batch[0])
                with self._lock:
                    self._busy -= 1
                    self._latest = time.monotonic()
        except (QuloError, OSError) as error:
            self._error = error
            self._stop.set()

    def _claim(self) -> bool:
        """One of the messages that there may be."""
        with self._lock:
            if self._stop.is_set() or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def _wait(self) -> list[Delivery]:
        while not self._stop.is_set():
            batch = self._work.fetch(1, _LOOK)
            if batch:
                with self._lock:
                    self._busy += 1
                return batch
        return []

    def _carry_out(self, message: Delivery) -> None:
        environ = {
            "QULO_TOPIC": message.topic,
            "QULO_STREAM": message.stream,
            "QULO_SEQ": str(message.seq),
            "QULO_TRIES": str(message.tries),
            "QULO_REDELIVERED": str(int(message.redelivered)),
        }
        every = self._arguments.lease / _EXTENSIONS
        try:
            ended = self._running.run(self._argv, body.to_bytes(message.body), environ, every, message.extend)
        except OSError as error:
            self._stop.set()  # the next one could not be run either; what is held is given back
            raise UsageError(f"--command: {self._argv[0]} cannot be run: {error.strerror}") from None
        if ended is None:
            return  # given back
        if ended.code == 0:
            message.ack()
            return
        how = f"ended with {ended.code}" if ended.code > 0 else f"was killed by signal {-ended.code}"
        reason = f"{self._argv[0]} {how}{body.to_line(commands.last_line(ended.stderr))}"
        if 0 < self._max_tries <= message.tries:
            message.reject(reason[:_REASON])  # what the hub would do now, but it could not say why
            then = "no more: `qulo dead ls` has it"
        elif ended.code == _LATER:
            delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(message.tries - 1, 10))
            message.nak(delay)
            then = f"again in {delay:g} s"
        else:
            message.nak()
            then = "again"
        note(f"{message.stream} {message.seq} (try {message.tries}): {reason}; {then}")


VERB = Verb("consume", "take messages out of a stream", _MANUAL, _add_options, _run, exits.OK)
