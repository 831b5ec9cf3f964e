"""`qulo request`: ask, and show the answer or answers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qulo.cli import body, exits, hub
from qulo.cli.options import Verb, count
from qulo.errors import UsageError

if TYPE_CHECKING:
    from qulo.sync import Bus

# Seconds for an answer without --timeout: one answer is waited for; many end by themselves when all have
# answered, and whoever has not by then is not waited for longer.
_TIMEOUT = 5.0
_MANY_TIMEOUT = 1.0

_MANUAL = """\
The answer goes to stdout, line by line, with an end to the last one; what else
a terminal would obey is shown escaped. A failure goes to stderr. Exit 1: the
responder failed, with what it said; 3: no answer in time (5 s without
--timeout); 4: there is nobody to ask, which is known at once.

--many asks every responder, and ends when all have answered, after --count
answers or after --timeout (1 s).

examples:
  qulo reply greet --command 'sed s/^/hello-/' & sleep 1    # someone to ask
  qulo request greet Ada
  qulo request greet Ada --many --timeout 2
  qulo request '$qulo.local.list' --json         # what the hub itself answers
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("topic", metavar="TOPIC", help="what to ask")
    add("body", metavar="BODY", nargs="?", default="", help="the body, as text")
    add("--many", action="store_true", help="ask every responder")
    add("-C", "--count", metavar="N", type=count, help="with --many: end after N answers")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="BODY and answers are JSON, sent as values")
    form.add_argument("--raw", action="store_true", help="the answer as it is, with nothing added")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.count is not None and not arguments.many:
        raise UsageError("--count is for --many: one request has one answer")
    text = os.fsencode(arguments.body)
    question = body.parse_json(text) if arguments.json and text else text
    with hub.connect(arguments) as bus:
        for answer in _answers(bus, question, arguments):
            sys.stdout.buffer.write(_form(answer, arguments))
            sys.stdout.buffer.flush()  # with --many the next may take a while
    return exits.OK


def _answers(bus: Bus, question: Any, arguments: argparse.Namespace) -> Iterator[Any]:
    if arguments.many:
        timeout = arguments.timeout or _MANY_TIMEOUT
        return bus.request_many(arguments.topic, question, timeout=timeout, count=arguments.count)
    return iter([bus.request(arguments.topic, question, timeout=arguments.timeout or _TIMEOUT)])


def _form(answer: Any, arguments: argparse.Namespace) -> bytes:
    if arguments.raw:
        return body.to_bytes(answer) + (b"\n" if arguments.many else b"")
    return (f"{body.to_json(answer)}\n" if arguments.json else body.to_lines(answer)).encode()


VERB = Verb("request", "ask, and show the answer", _MANUAL, _add_options, _run, exits.INTERRUPTED)
