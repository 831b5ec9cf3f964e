"""`qulo dead`: what no consumer would take, why, and what becomes of it.

It must never purge or requeue more than was there when it was asked: what comes back dead meanwhile stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qulo.cli import admin, asking, body, exits, hub
from qulo.cli.options import Verb, count, note
from qulo.errors import NoResponders, UsageError

if TYPE_CHECKING:
    from qulo.sync import Bus

_MANUAL = """\
A message is dead when it was rejected, or had been delivered --max-tries
times (`qulo stream add --help`) without an ack. It stays here until somebody
decides.

  ls            list them: number, stream, group, message, tries, when, why
  show N        all about one, with its body
  requeue N...  give it back to the group that would not take it, as a new
                message at the end of its stream
  purge N...    forget it
  --all         instead of N: every one; with --stream and --group of those

--agent: those of this host's agent: what it had taken while its master was
away (`qulo put` said "at agent"), and the master would not take.

exit status:
  4  none is listed; otherwise as `qulo --help` says

examples:
  qulo dead ls --stream ORDERS
  qulo dead show 3
  qulo dead requeue --all --stream ORDERS --group billing
  qulo dead purge 3 4 5
"""

# docs/streams.md; not imported from where they are answered, which loads what a command line without a hub does not
# need.
_SITE, _AGENT = f"{asking.STREAM}.dead", "$qulo.local.dead"


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", metavar="ACTION", choices=tuple(_ACTIONS), help=", ".join(_ACTIONS))
    add("numbers", metavar="N", nargs="*", type=count, help="which")
    add("--all", action="store_true", help="with requeue and purge: every one")
    add("--stream", metavar="NAME", help="with ls and --all: only of this stream")
    add("--group", metavar="S", help="with ls and --all: only of this group")
    add("--agent", action="store_true", help="those of this host's agent")
    add("--raw", action="store_true", help="with show: only the body, as it is")
    add("--json", action="store_true", help="one object per line")


def _run(arguments: argparse.Namespace) -> int:
    arguments.noun = "dead"
    _check(arguments)
    with hub.connect(arguments) as bus:
        return _ACTIONS[arguments.action](bus, arguments)


def _check(arguments: argparse.Namespace) -> None:
    action, numbers = arguments.action, arguments.numbers
    filtered = arguments.stream is not None or arguments.group is not None
    if arguments.raw and (action != "show" or arguments.json):
        raise UsageError("--raw is for `qulo dead show N`, without --json")
    if action == "ls" and numbers:
        raise UsageError(f"qulo dead ls takes no {numbers[0]}; `qulo dead show {numbers[0]}`?")
    if action == "show" and len(numbers) != 1:
        raise UsageError("qulo dead show needs one N; `qulo dead ls` lists them")
    if action in ("ls", "show") and arguments.all:
        raise UsageError(f"qulo dead {action} takes no --all")
    if action in ("requeue", "purge") and bool(numbers) == arguments.all:
        raise UsageError(f"qulo dead {action} needs either N or --all")
    if filtered and action != "ls" and not arguments.all:
        raise UsageError("--stream and --group choose among all: with ls or --all")


def _ask(bus: Bus, arguments: argparse.Namespace, verb: str, argument: Mapping[str, Any]) -> dict[str, Any]:
    topic = f"{_AGENT if arguments.agent else _SITE}.{verb}"
    try:
        return asking.answer_map(asking.ask(bus, arguments, topic, argument))
    except NoResponders:
        if not arguments.agent:
            raise
        raise NoResponders(f"{bus.url} is no agent's, and has no dead letters of its own: without --agent") from None


def _letters(bus: Bus, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = _ask(bus, arguments, "ls", {"after": after})
        for letter in page["letters"]:
            if arguments.stream in (None, letter["stream"]) and arguments.group in (None, letter["group"]):
                yield letter
        after = page["next"]
        if page["end"]:
            return


def _list(bus: Bus, arguments: argparse.Namespace) -> int:
    found = False
    for letter in _letters(bus, arguments):
        found = True
        if arguments.json:
            print(body.to_json(letter))
            continue
        whose = f"{letter['stream']} {letter['seq']} {letter['group']}" if letter["stream"] else "spool"
        print(
            f"{letter['number']:>6}  {body.to_line(f'{whose:<24}')} {body.to_line(letter['topic']):<24} "
            f"tries {letter['tries']:<3} {admin.when(letter['dead_ms'] / 1000)}  {body.to_line(letter['reason'])}"
        )
    return exits.OK if found else exits.NOBODY


def _show(bus: Bus, arguments: argparse.Namespace) -> int:
    letter = _ask(bus, arguments, "show", {"number": arguments.numbers[0]})
    row = asking.Row(letter["seq"], letter["topic"], letter.pop("kind"), letter.pop("body"), letter["time_ms"] / 1000)
    message = row.message()
    if arguments.raw:
        sys.stdout.buffer.write(body.to_bytes(message.body))
        return exits.OK
    letter |= {"headers": dict(message.headers), "body": message.body}
    if arguments.json:
        print(body.to_json(letter))
        return exits.OK
    for name, value in letter.items():
        if value not in ("", None, {}):
            shown = admin.when(value / 1000) if name.endswith("_ms") else value
            print(f"{name.removesuffix('_ms'):<8} {body.to_line(shown)}")
    return exits.OK


def _each(verb: str, done: str) -> Callable[[Bus, argparse.Namespace], int]:
    def carry_out(bus: Bus, arguments: argparse.Namespace) -> int:
        numbers = arguments.numbers or [letter["number"] for letter in _letters(bus, arguments)]
        for number in numbers:
            answer = _ask(bus, arguments, verb, {"number": number})
            if arguments.json:
                admin.show_json({"number": number} | answer)
        if not numbers:
            return exits.NOBODY
        if not arguments.json:
            note(f"{len(numbers)} {done}")
        return exits.OK

    return carry_out


_ACTIONS: dict[str, Callable[[Any, argparse.Namespace], int]] = {
    "ls": _list,
    "show": _show,
    "requeue": _each("requeue", "given back"),
    "purge": _each("purge", "forgotten"),
}

VERB = Verb("dead", "messages that nobody would take", _MANUAL, _add_options, _run, exits.INTERRUPTED)
