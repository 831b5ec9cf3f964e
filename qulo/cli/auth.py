"""`qulo auth`: which rule of the hub's permissions decides."""

from __future__ import annotations

import argparse

from qulo.cli import admin, exits
from qulo.cli.options import Verb

_MANUAL = """\
`qulo auth explain NAME VERB TOPIC` asks the hub of this host (as root or as
the hub's own user) whether NAME may VERB on TOPIC, and which rule of its
`permissions:` says so. NAME is the name of a key; the programs of its host are
NAME/local. VERB is publish, subscribe, request, respond, stream or fleet.
TOPIC may be a pattern.

exit status:
  0  it may       77  it may not

examples:
  qulo auth explain web1/local publish metrics.load
  qulo auth explain db1 subscribe '>' || echo 'not everything'
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", metavar="ACTION", choices=("explain",), help="explain")
    add("name", metavar="NAME", help="who")
    add("verb_", metavar="VERB", help="what")
    add("topic", metavar="TOPIC", help="a topic or pattern")
    add("--json", action="store_true", help="one object")


def _run(arguments: argparse.Namespace) -> int:
    question = {"name": arguments.name, "verb": arguments.verb_, "topic": arguments.topic}
    answer = admin.ask(arguments, "auth.explain", question)
    if arguments.json:
        admin.show_json(question | answer)
    else:
        print(f"{'yes' if answer['allowed'] else 'no'}: {answer['rule']}")
    return exits.OK if answer["allowed"] else exits.DENIED


VERB = Verb("auth", "who may do what, and which rule says so", _MANUAL, _add_options, _run, exits.INTERRUPTED)
