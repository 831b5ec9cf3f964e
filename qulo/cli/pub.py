"""`qulo pub`: publish a message, a file, or line after line of a stream."""

from __future__ import annotations

import argparse

from qulo.cli import body, exits, hub, source
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
    source.add_options(parser)
    add("-C", "--count", metavar="N", type=count, default=1, help="publish it N times")
    add("--json", action="store_true", help="the body is JSON; it is sent as its value, in msgpack")


def _run(arguments: argparse.Namespace) -> int:
    source.check(arguments)
    if arguments.lines and arguments.count != 1:
        raise UsageError("--lines and --count exclude each other")
    headers = source.headers(arguments)
    with source.opened(arguments) as file, hub.connect(arguments) as bus:
        try:
            for text in source.texts(arguments, file):
                each = body.parse_json(text) if arguments.json else text
                for _ in range(arguments.count):
                    bus.publish(arguments.topic, each, headers)
        finally:
            bus.flush(arguments.timeout or _FLUSH_TIMEOUT)
    return exits.OK


# Seconds for the hub to acknowledge everything, without --timeout.
_FLUSH_TIMEOUT = 30.0


VERB = Verb("pub", "publish messages", _MANUAL, _add_options, _run, exits.INTERRUPTED)
