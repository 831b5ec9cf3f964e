"""`qulo join`: this user's programs get in, over TCP, without an agent on their host."""

from __future__ import annotations

import argparse
import sys

from qulo.cli import exits
from qulo.cli.options import Verb

_MANUAL = """\
Makes a key for this user's programs, has it accepted by the hub that made
TOKEN (`qulo token new`, see `qulo token --help`), and keeps where that hub is.
From then on `qulo` and programs that use `qulo.connect()` find it without an
address, after this host's own agent, where there is one. TOKEN may be - to
read it from standard input.

Kept in $XDG_DATA_HOME/qulo (~/.local/share/qulo; root: /var/lib/qulo):
client.key, client.pub and client.json. Joining again takes another hub.

examples:
  qulo join qulo1_k5GyLi4u
  ssh master sudo qulo token new | qulo join -
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("token", metavar="TOKEN", help="the token, or - to read it from standard input")
    add("--name", metavar="NAME", help="the name to ask for, where the token fixes none; default USER.HOST")


def _run(arguments: argparse.Namespace) -> int:
    from qulo.client import joined  # noqa: PLC0415 - ZeroMQ is loaded by what talks to a hub only

    token = sys.stdin.readline().strip() if arguments.token == "-" else arguments.token  # noqa: S105
    name, addresses = joined.join(token, arguments.name)
    print(f"joined as {name}: {', '.join(addresses)}")
    return exits.OK


VERB = Verb("join", "let this user's programs in, with a token", _MANUAL, _add_options, _run, exits.INTERRUPTED)
