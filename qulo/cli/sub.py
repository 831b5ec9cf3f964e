"""`qulo sub`: show what is published, as it comes, and what was missed."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from qulo.cli import body, exits, hub
from qulo.cli.options import Verb, count, note
from qulo.errors import DeadlineExceeded

if TYPE_CHECKING:
    from qulo.client import Message
    from qulo.protocol.tracker import Gap

_MANUAL = """\
A line is the topic and the body; what a terminal would obey is shown escaped.
A body that is a value (of `pub --json`, or another program's) is shown as
JSON. Ctrl-C is the usual end: exit 0.

Messages that were missed for good are never passed over: a line on stderr
says so, with --json an object {"gap": …} in their place.

--timeout: end with 3 when nothing has come for so long (without it: wait for
ever).

examples:
  qulo sub 'sensors.>'
  qulo sub 'sensors.*.temperature' 'alarms.>' --json
  qulo sub --count 1 --timeout 10 backups.done && echo done
  qulo sub --raw 'logs.>' | grep -i error
  qulo sub jobs.resize --group resizers     each message goes to one of a group
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("patterns", metavar="PATTERN", nargs="+", help="topics; * is one token, > the rest")
    add("-C", "--count", metavar="N", type=count, help="end after N messages")
    add("--group", metavar="S", help="be one of a group, of which one member gets each message")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="only the bodies, as they are, each on a line")
    form.add_argument("--json", action="store_true", help='one object per line: {"topic", "body", "headers"}')


def _run(arguments: argparse.Namespace) -> int:
    screen = _Screen(arguments)
    with hub.connect(arguments) as bus:
        for pattern in dict.fromkeys(arguments.patterns):
            bus.subscribe(pattern, screen.show, group=arguments.group, on_gap=screen.show_gap)
        screen.wait()
    return exits.OK


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

    def wait(self) -> None:
        """Until there were enough. Raises DeadlineExceeded, or what writing failed with."""
        timeout = self._arguments.timeout
        while not self._done.wait(None if timeout is None else self._latest + timeout - time.monotonic()):
            if time.monotonic() - self._latest >= timeout:
                raise DeadlineExceeded(f"nothing came on {' '.join(self._arguments.patterns)} for {timeout:g} s")
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
    return f"{message.topic} {body.to_line(message.body)}\n".encode()


VERB = Verb("sub", "show what is published", _MANUAL, _add_options, _run, exits.OK)
