"""`qulo token`: one string that lets a new host in."""

from __future__ import annotations

import argparse
import sys

from qulo.cli import admin, exits
from qulo.cli.options import Verb, count, duration, note
from qulo.errors import UsageError

_MANUAL = """\
`qulo token new`, on the master's host as root (or as the master's own user),
prints one string. On the new host `qagent --join TOKEN` has that host's key
accepted and starts its agent; `qulo join TOKEN` does the same for a user's
programs, without an agent. The token holds the master's addresses, its public
key, and a key that can do nothing but this, --uses times until it --expires.
Whoever reads it before it was used can use it: hand it over in private.

--name fixes the name that the new host gets; without it, it is the host's own
choice. --address says how other hosts reach this one, when what the master
listens on does not (all interfaces become this host's full name).

  new       make a token
  ls        list the tokens that can still be used
  rm ID     make a token worthless

examples:
  qulo token new
  qulo token new --name web1 --expires 10m
  qulo token new --uses 100 --expires 1h --address tcp://master.example.net:7370
  qulo token ls --json
"""

_ALONE = (
    "this token's address reaches this host only. For others let the master listen on an address of the network "
    "(`listen:` and `publish:`, such as tcp://0.0.0.0:7370), or give one that reaches it with --address"
)

_ACTIONS = ("new", "ls", "rm")
_HOUR = 3600.0
_MOST = 30 * 24 * _HOUR  # net.administration has the reason


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", metavar="ACTION", choices=_ACTIONS, help="new, ls or rm")
    add("id", metavar="ID", nargs="?", help="with rm: which token")
    add("--name", metavar="NAME", help="the name that the new host gets")
    add(
        "--expires",
        metavar="TIME",
        type=duration(1, _MOST),
        default=_HOUR,
        help="how long it is good, 10m or 2h; default 1h",
    )
    add("--uses", metavar="N", type=count, default=1, help="for how many keys it is good; default 1")
    add("--address", metavar="URL", action="append", help="how other hosts reach this one; may be given several times")
    add("--json", action="store_true", help="one object per line")


def _run(arguments: argparse.Namespace) -> int:
    arguments.noun = "token"
    if arguments.action != "rm" and arguments.id is not None:
        raise UsageError(f"qulo token {arguments.action} takes no {arguments.id!r}")
    return {"new": _new, "ls": _list, "rm": _remove}[arguments.action](arguments)


def _new(arguments: argparse.Namespace) -> int:
    question = {
        "name": arguments.name,
        "expires": arguments.expires,
        "uses": arguments.uses,
        "addresses": arguments.address or [],
    }
    answer = admin.ask(arguments, "token.new", question)
    if arguments.json:
        admin.show_json(answer)
        return exits.OK
    print(answer["token"], flush=True)
    if answer["alone"]:
        note(_ALONE)
    if sys.stdout.isatty():
        where = ", ".join(answer["addresses"])
        note(f"good until {admin.when(answer['expires'])}, for hosts that reach {where}: qagent --join TOKEN")
    return exits.OK


def _list(arguments: argparse.Namespace) -> int:
    for row in admin.ask(arguments, "token.ls")["tokens"]:
        if arguments.json:
            admin.show_json(row)
        else:
            print(f"{row['id']}  {row['name'] or '*':<20} uses {row['uses']:<5} until {admin.when(row['expires'])}")
    return exits.OK


def _remove(arguments: argparse.Namespace) -> int:
    admin.needs(arguments, "ID")
    admin.ask(arguments, "token.rm", {"id": arguments.id})
    return exits.OK


VERB = Verb("token", "let new hosts in: make, list and remove tokens", _MANUAL, _add_options, _run, exits.INTERRUPTED)
