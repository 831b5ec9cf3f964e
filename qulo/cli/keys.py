"""`qulo keys`: whose keys a hub accepts, which wait to be accepted, and which never will be."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from qulo.cli import admin, exits
from qulo.cli.colour import red
from qulo.cli.options import Verb
from qulo.errors import UsageError

_MANUAL = """\
Asks the hub of this host, as root or as the hub's own user. KEY is a name, or
the beginning of a fingerprint (8 characters or more).

  ls            list keys: accepted, pending (knocked, and was denied until
                now), refused
  show KEY      all about one key
  accept KEY --name NAME
                let a key in that is pending or refused. Compare the
                fingerprint with what the host itself says, in its log
  reject KEY    refuse a key that is pending, for good
  revoke KEY    an accepted key counts no more, at once
  delete KEY    forget a key: if it knocks again it is pending
  rotate        change the hub's own key: makes the next one and tells it to
                everybody who is connected, or comes while this lasts
  rotate --status | --finish | --abort
                who does not know it yet; go over to it (with --force even if
                somebody does not know it: they have to join again); think
                better of it

A host gets in without any of this by a token: `qulo token --help`.

exit status:
  4  no key is listed; otherwise as `qulo --help` says

examples:
  qulo keys ls
  qulo keys accept 3f9a2b7c --name web1
  qulo keys revoke web1
"""

_ACTIONS = ("ls", "show", "accept", "reject", "revoke", "delete", "rotate")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", metavar="ACTION", choices=_ACTIONS, help=", ".join(_ACTIONS))
    add("key", metavar="KEY", nargs="?", help="a name, or the beginning of a fingerprint")
    add("--name", metavar="NAME", help="with accept: the name that its owner has from now on")
    step = parser.add_mutually_exclusive_group()
    for name in ("status", "finish", "abort"):
        step.add_argument(f"--{name}", dest="step", action="store_const", const=name, help=f"with rotate: {name} it")
    add("--force", action="store_true", help="with rotate --finish: although not everybody knows the new key")
    add("--json", action="store_true", help="one object per line")


def _run(arguments: argparse.Namespace) -> int:
    arguments.noun = "keys"
    if arguments.action == "ls":
        if arguments.key is not None:
            raise UsageError(f"qulo keys ls takes no {arguments.key!r}; `qulo keys show {arguments.key}`?")
        return _list(arguments)
    if arguments.action == "rotate":
        return _rotate(arguments)
    admin.needs(arguments, "KEY")
    if arguments.action == "accept":
        admin.needs(arguments, "NAME")
        admin.ask(arguments, "keys.accept", {"key": arguments.key, "name": arguments.name})
        return exits.OK
    answer = admin.ask(arguments, f"keys.{arguments.action}", {"key": arguments.key})
    if arguments.action == "show":
        _show(answer, arguments)
    return exits.OK


def _list(arguments: argparse.Namespace) -> int:
    rows = admin.ask(arguments, "keys.ls")["keys"]
    for row in rows:
        if arguments.json:
            admin.show_json(row)
            continue
        state = f"{row['state']:<9}"
        seen = f"from {row['address']}, seen {admin.when(row['seen'])}" if row["state"] == "pending" else ""
        print(f"{red(state) if seen else state} {row['fingerprint']}  {row['name']:<20} {seen}".rstrip())
    return exits.OK if rows else exits.NOBODY


def _rotate(arguments: argparse.Namespace) -> int:
    if arguments.key is not None:
        raise UsageError(f"qulo keys rotate takes no {arguments.key!r}")
    step = arguments.step or "begin"
    answer = admin.ask(arguments, "keys.rotate", {"step": step, "force": arguments.force})
    if arguments.json:
        admin.show_json(answer)
    elif answer["next"] is not None:
        known = answer["accepted"] - len(answer["missing"])
        print(f"the next key is {answer['next']}; {known} of {answer['accepted']} know it")
        for name in answer["missing"]:
            print(f"missing: {name}")
    return exits.OK


def _show(row: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        admin.show_json(row)
        return
    for name, value in row.items():
        print(f"{name:<12} {admin.when(value) if name in ('first', 'seen') else value}")


VERB = Verb("keys", "whose keys are accepted", _MANUAL, _add_options, _run, exits.INTERRUPTED)
