"""`qulo pub`: publish a message, a file, or line after line of a stream."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from qulo.cli import body, exits, hub
from qulo.cli.options import Verb, count
from qulo.errors import UsageError

_MANUAL = """\
The command ends when the hub has everything. Whoever subscribes now gets it;
nobody is no error. Without BODY, -f, --stdin or -l the body is empty. With -l
every line is sent as soon as it is there, without its end of line; Ctrl-C
sends what was read and exits 130.

examples:
  qulo pub sensors.kitchen 21.5
  qulo pub sensors.kitchen --json '{"t": 21.5, "unit": "C"}'
  qulo pub backups.done -H host:web1 -H 'status: ok' 'took 12 s'
  qulo pub files.motd -f /etc/hostname
  date | qulo pub dates.now --stdin
  seq 1 1000 | qulo pub numbers.in.order --lines
  qulo pub load.test --count 1000 x
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("topic", metavar="TOPIC", help="where to")
    add("body", metavar="BODY", nargs="?", help="the body, as text")
    add("-f", "--file", metavar="FILE", help="the body is the file's content (with -l: each of its lines)")
    add("--stdin", action="store_true", help="the body is all of standard input")
    add("-l", "--lines", action="store_true", help="each line of standard input is a message")
    add("-H", "--header", metavar="K:V", action="append", default=[], help="a header; may be repeated")
    add("-C", "--count", metavar="N", type=count, default=1, help="publish it N times")
    add("--json", action="store_true", help="the body is JSON; it is sent as its value, in msgpack")


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    headers = dict(body.parse_header(each) for each in arguments.header) or None
    with _source(arguments) as source, hub.connect(arguments) as bus:
        try:
            for each in _bodies(arguments, source):
                bus.publish(arguments.topic, each, headers)
        finally:
            bus.flush(arguments.timeout or _FLUSH_TIMEOUT)
    return exits.OK


# Seconds for the hub to acknowledge everything, without --timeout.
_FLUSH_TIMEOUT = 30.0


def _check(arguments: argparse.Namespace) -> None:
    sources = {
        "BODY": arguments.body is not None,
        "--file": arguments.file is not None,
        "--stdin": arguments.stdin,
    }
    given = [name for name, there in sources.items() if there]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: a message has one body")
    if arguments.lines and given not in ([], ["--file"]):
        raise UsageError(f"--lines reads lines from standard input or --file, not from {given[0]}")
    if arguments.lines and arguments.count != 1:
        raise UsageError("--lines and --count exclude each other")


def _source(arguments: argparse.Namespace) -> BinaryIO:
    """Where bodies are read from. Raises UsageError when that cannot be opened, before anything is sent."""
    if arguments.file is None and (arguments.stdin or arguments.lines):
        return open(0, "rb", closefd=False)  # standard input is not ours to close
    if arguments.file is None:
        return io.BytesIO(os.fsencode(arguments.body or ""))
    try:
        return open(arguments.file, "rb")
    except OSError as error:
        raise UsageError(f"{arguments.file} cannot be read: {error.strerror}") from None


def _bodies(arguments: argparse.Namespace, source: BinaryIO) -> Iterator[Any]:
    for each in _texts(arguments, source):
        value = body.parse_json(each) if arguments.json else each
        for _ in range(arguments.count):
            yield value


def _texts(arguments: argparse.Namespace, source: BinaryIO) -> Iterable[bytes]:
    if arguments.lines:
        return (line.rstrip(b"\r\n") for line in source)
    return [source.read()]


VERB = Verb("pub", "publish messages", _MANUAL, _add_options, _run, exits.INTERRUPTED)
