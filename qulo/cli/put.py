"""`qulo put`: store a message, a file, or line after line, and say where. `putting` does it."""

from __future__ import annotations

import argparse

from qulo.cli import exits, source
from qulo.cli.options import Verb, duration
from qulo.errors import UsageError

_MANUAL = """\
The command ends when the hub has it on disk, and prints the stream and the
number there; "(duplicate)" behind it: it was stored before, by its --id. When
no stream stores TOPIC the exit status is 4. "at agent": the master is away,
and the message is on this host's disk until it is back; --require master
refuses that (69). When the outcome is unknown (69, or 3 after --timeout, 30 s)
put it again with the same --id: it is stored once.

Without BODY, -f, --stdin or -l the body is empty. With -l every line is sent
as soon as it is there, without its end of line, many under way at once; the
first that is refused ends it. Ctrl-C waits for what was sent, and exits 130.

examples:
  qulo stream add ORDERS 'orders.>' --keep work
  qulo put orders.new '{"id": 17}' --id 17
  qulo put orders.check 'was it paid?' --delay 5m --ttl 1h
  seq 1 1000 | qulo put orders.many --lines --json | tail -1
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("topic", metavar="TOPIC", help="where to; a stream has to store it")
    source.add_options(parser)
    add("--id", metavar="ID", help="what it is known by: the same again is stored once")
    add("--delay", metavar="TIME", type=duration(), help="deliver it not before 10s, 5m, ...")
    add("--ttl", metavar="TIME", type=duration(), help="it is gone after 1h, 7d, ...")
    add("--require", choices=("master",), help="do not leave it on this host's disk")
    add("--json", action="store_true", help="BODY is JSON, sent as its value; so is what is printed")


def _run(arguments: argparse.Namespace) -> int:
    source.check(arguments)
    if arguments.lines and arguments.id is not None:
        raise UsageError("--lines and --id exclude each other: an id is one message's")
    from qulo.cli import putting  # noqa: PLC0415 - asyncio is loaded by what talks to a hub only

    putting.put(arguments, source.headers(arguments))
    return exits.OK


VERB = Verb("put", "store messages in a stream", _MANUAL, _add_options, _run, exits.INTERRUPTED)
