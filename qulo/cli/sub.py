"""`qulo sub`: show what is published, as it comes, and what was missed."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from qulo.cli import asking, body, exits, hub
from qulo.cli.options import Verb, count, duration, note
from qulo.errors import DeadlineExceeded, NoStream, UsageError

if TYPE_CHECKING:
    from qulo.client import Message
    from qulo.protocol.tracker import Gap
    from qulo.sync import Bus

_MANUAL = """\
A line is the topic and the body; what a terminal would obey is shown escaped.
A body that is a value (of `pub --json`, or another program's) is shown as
JSON. Ctrl-C is the usual end: exit 0.

Messages that were missed for good are never passed over: a line on stderr
says so, with --json an object {"gap": …} in their place.

--since 5m and --last begin with what the stream that stores PATTERN has (of
the last 5 minutes; the newest of each topic) and go on with what it stores:
each message once, in its order, none left out. It takes one PATTERN then.

--timeout: end with 3 when nothing has come for so long (without it: wait for
ever).

examples:
  qulo sub 'sensors.>'
  qulo sub 'sensors.*.temperature' 'alarms.>' --json
  qulo sub --count 1 --timeout 10 backups.done && echo done
  qulo sub --raw 'logs.>' | grep -i error
  qulo sub --last 'state.>'
  qulo sub jobs.resize --group resizers     each message goes to one of a group
"""


# Seconds until a stream is looked at again without news: a message with a delay, or one that was published a moment
# before it was stored, has none.
_LOOK = 1.0


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("patterns", metavar="PATTERN", nargs="+", help="topics; * is one token, > the rest")
    add("-C", "--count", metavar="N", type=count, help="end after N messages")
    add("--group", metavar="S", help="be one of a group, of which one member gets each message")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--since", metavar="TIME", type=duration(), help="begin with the last 5m, 2h, ... of its stream")
    where.add_argument("--last", action="store_true", help="begin with the newest of each topic in its stream")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="only the bodies, as they are, each on a line")
    form.add_argument("--json", action="store_true", help='one object per line: {"topic", "body", "headers"}')


def _run(arguments: argparse.Namespace) -> int:
    screen = _Screen(arguments)
    if arguments.since is not None or arguments.last:
        return _follow(screen, arguments)
    with hub.connect(arguments) as bus:
        for pattern in dict.fromkeys(arguments.patterns):
            bus.subscribe(pattern, screen.show, group=arguments.group, on_gap=screen.show_gap)
        screen.wait()
    return exits.OK


def _follow(screen: _Screen, arguments: argparse.Namespace) -> int:
    patterns = list(dict.fromkeys(arguments.patterns))
    if len(patterns) > 1:
        raise UsageError("--since and --last take one PATTERN: streams have an order each")
    if arguments.group is not None:
        raise UsageError("a group has its own place in the stream: `qulo consume STREAM --group S`")
    pattern = asking.check_topic(patterns[0])
    with hub.connect(arguments) as bus:
        follower = _Follower(bus, arguments, pattern, screen)
        with bus.subscribe(pattern, follower.wake, on_gap=follower.wake):
            follower.follow()
    return exits.OK


class _Follower:
    """Shows a stream by its numbers, and is only woken up by what is published: nothing is missed or comes twice."""

    def __init__(self, bus: Bus, arguments: argparse.Namespace, pattern: str, screen: _Screen) -> None:
        self._bus = bus
        self._arguments = arguments
        self._screen = screen
        self._pattern = pattern
        self._stream = self._find()
        self._news = threading.Event()

    def _find(self) -> str:
        for row in asking.ask(self._bus, self._arguments, "ls", {}):
            if any(asking.covers(stored, self._pattern) for stored in row["topics"]):
                return str(row["name"])
        raise NoStream(f"no stream that you may read stores all of {self._pattern}: `qulo stream ls` lists them")

    def wake(self, _item: Message | Gap) -> None:
        """There may be more."""
        self._news.set()

    def follow(self) -> None:
        """Until there were enough. Raises DeadlineExceeded, or what writing failed with."""
        argument: dict[str, Any] = {"stream": self._stream, "topic": self._pattern}
        if self._arguments.last:
            # What comes while these are read has a higher number, and comes below.
            upto = asking.ask(self._bus, self._arguments, "info", {"stream": self._stream})["last"]
            for row in asking.read(self._bus, self._arguments, argument | {"last": True}):
                if row.seq <= upto:
                    self._screen.show(row.message())
            argument["after"] = upto
        else:
            argument["since"] = self._arguments.since
        while not self._screen.ended:
            self._news.clear()
            for row in asking.read(self._bus, self._arguments, argument):
                self._screen.show(row.message())
            self._screen.check()
            self._news.wait(_LOOK)
        self._screen.wait()


class _Screen:
    """Shows what comes, in the subscriptions' own threads.

    When nobody reads our output they wait, the subscriptions' buffers fill, and what does not fit is a gap.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._left: int | None = arguments.count
        self._latest = time.monotonic()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: OSError | None = None

    def show(self, message: Message) -> None:
        """A message has come."""
        self._write(_form(message, self._arguments), 1)

    def show_gap(self, gap: Gap) -> None:
        """Messages were missed."""
        if self._arguments.json:
            fields = {name: getattr(gap, name) for name in ("pattern", "first", "last", "reason")}
            self._write(f"{body.to_json({'gap': fields})}\n".encode(), 0)
        else:
            note(f"messages on {gap.pattern} were missed ({gap.reason})")

    @property
    def ended(self) -> bool:
        """There were enough, or nobody reads any more."""
        return self._done.is_set()

    def check(self) -> None:
        """Raises DeadlineExceeded when nothing has come for too long."""
        timeout = self._arguments.timeout
        if timeout is not None and not self.ended and time.monotonic() - self._latest >= timeout:
            raise DeadlineExceeded(f"nothing came on {' '.join(self._arguments.patterns)} for {timeout:g} s")

    def wait(self) -> None:
        """Until there were enough. Raises DeadlineExceeded, or what writing failed with."""
        timeout = self._arguments.timeout
        while not self._done.wait(None if timeout is None else self._latest + timeout - time.monotonic()):
            self.check()
        if self._error is not None:
            raise self._error

    def _write(self, line: bytes, messages: int) -> None:
        with self._lock:
            if self._done.is_set():
                return
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()  # whoever reads wants it now
            except OSError as error:
                self._error = error
                self._done.set()
            self._latest = time.monotonic()
            if self._left is not None:
                self._left -= messages
                if self._left <= 0:
                    self._done.set()


def _form(message: Message, arguments: argparse.Namespace) -> bytes:
    if arguments.raw:
        return body.to_bytes(message.body) + b"\n"
    if arguments.json:
        fields: dict[str, Any] = {"topic": message.topic, "body": message.body}
        if message.headers:
            fields["headers"] = dict(message.headers)
        return f"{body.to_json(fields)}\n".encode()
    return f"{body.to_line(message.topic)} {body.to_line(message.body)}\n".encode()


VERB = Verb("sub", "show what is published", _MANUAL, _add_options, _run, exits.OK)
