"""qulolist: what a hub knows, as a table or as JSON. A plain client: no daemon, no privileges.

It shows what other programs say of themselves; nothing of that may reach the terminal as more than text.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from qulo import sync
from qulo._version import __version__
from qulo.daemon import exits
from qulo.errors import DeadlineExceeded, EndpointError, NoResponders, QuloError
from qulo.protocol.report import LIST, LOCAL_LIST

_MANUAL = """\
Shows the site's hub: an agent forwards the question to its master. --local
asks the hub that this host's programs are connected to.

states of a peer:
  up       it is heard
  slow     up, but it lags behind what is published and holds nobody up
  suspect  not heard for a while
  down     gone; listed for a while, last

FILTER is a shell pattern on the names of peers and on topics.

exit status:
  0  done                      64  wrong usage
  3  no answer in time         69  no hub; it says which addresses were tried
  4  FILTER matched nothing    77  denied

examples:
  qulolist
  qulolist --agents 'web*'
  qulolist --topics 'logs.*' --watch 1
  qulolist --json --clients | grep '"slow":true'
  qulolist -u tcp://master.example.net:7370 --server-key master.pub --key me.key
"""

# Seconds for the hub, and then for its answer, without --timeout.
_TIMEOUT = 2.0

# Seconds between two looks of --watch: rates are counted per second.
_WATCH = 2.0

_NOTHING_MATCHED = 4
_TIMED_OUT = 3

# ANSI colours, and how to clear a terminal without losing what has scrolled by.
_COLOURS = {"up": "\33[32m", "slow": "\33[33m", "suspect": "\33[33m", "down": "\33[31m", "head": "\33[1m"}
_PLAIN = "\33[0m"
_CLEAR = "\33[H\33[2J"

_KINDS = {"agents": "agent", "clients": "client"}
_HINT = "start one with `qulod`, or name another with --url (`qulo --help` says how addresses are found)"


@dataclass(frozen=True, slots=True)
class _Cell:
    """What stands in one place of a table."""

    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its title, and what of an entry it shows. Numbers stand at the right."""

    title: str
    show: Callable[[Mapping[str, Any]], str]
    right: bool = False


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _state(peer: Mapping[str, Any]) -> str:
    return "slow" if peer["slow"] and peer["state"] == "up" else str(peer["state"])


_PEERS = (
    _Column("NAME", lambda peer: peer["name"]),
    _Column("KIND", lambda peer: peer["kind"]),
    _Column("STATE", _state),
    _Column("SEEN", lambda peer: _ago(peer["seen"]), right=True),
    _Column("VERSION", lambda peer: peer["version"] or "-"),
    _Column("ADDRESS", lambda peer: peer["address"]),
    _Column("RTT", lambda peer: f"{peer['rtt']:.2f} ms" if peer["rtt"] else "-", right=True),
    _Column("LAG", lambda peer: f"{peer['lag']}", right=True),
)
_TOPICS = (
    _Column("TOPIC", lambda topic: topic["topic"]),
    _Column("RATE", lambda topic: f"{topic['rate']:.1f}/s", right=True),
    _Column("MESSAGES", lambda topic: f"{topic['messages']}", right=True),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, f"qulolist: {message} (`qulolist --help` says more)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The executable; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return exits.OK if arguments.watch else 130
    except BrokenPipeError:
        # What Python would flush at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except (QuloError, OSError) as error:
        print(f"qulolist: {_clean(str(error))}", file=sys.stderr)
        if isinstance(error, EndpointError):
            print(f"qulolist: {_HINT}", file=sys.stderr)
        return _TIMED_OUT if isinstance(error, DeadlineExceeded) else exits.code_of(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="qulolist",
        description="qulolist - what a hub knows: agents, clients and topics",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a script's --t must not change its meaning with the next option
    )
    add = parser.add_argument
    add("filter", metavar="FILTER", nargs="?", help="show only the names and topics that match")
    add("-u", "--url", metavar="URL", help="the hub's address")
    add("--server-key", metavar="FILE", help="the hub's public key, for curve")
    add("--key", metavar="FILE", help="your secret key, for curve")
    add("--local", action="store_true", help="the hub of this host, not the site's")
    for name in ("agents", "clients", "topics"):
        add(f"--{name}", action="store_true", help=f"only {name} (and what else is selected)")
    add("--json", action="store_true", help='one object per line; "type" is hub, peer or topic')
    add(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=_WATCH,
        help=f"look again, every {_WATCH:g} s by default, until Ctrl-C",
    )
    add(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=_TIMEOUT,
        help="seconds for the hub and for its answer",
    )
    add("--version", action="version", version=f"qulolist {__version__}")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _run(arguments: argparse.Namespace) -> int:
    with sync.connect(
        arguments.url, timeout=arguments.timeout, server_key=arguments.server_key, key=arguments.key
    ) as bus:
        while True:
            code = _show(_ask(bus, arguments), arguments)
            if arguments.watch is None:
                return code
            time.sleep(arguments.watch)


def _ask(bus: sync.Bus, arguments: argparse.Namespace) -> dict[str, Any]:
    topic = LOCAL_LIST if arguments.local else LIST
    try:
        answer: dict[str, Any] = bus.request(topic, {}, timeout=arguments.timeout)
    except NoResponders:
        raise EndpointError(f"{bus.url} does not answer {topic}") from None
    return answer


def _show(report: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    kinds = {kind for option, kind in _KINDS.items() if getattr(arguments, option)}
    everything = not (kinds or arguments.topics)
    peers = [
        peer for peer in report["peers"] if (everything or peer["kind"] in kinds) and _matches(peer["name"], arguments)
    ]
    topics = [
        topic for topic in report["topics"] if (everything or arguments.topics) and _matches(topic["topic"], arguments)
    ]
    if arguments.json:
        _print_json(report["hub"], peers, topics)
    else:
        _print_tables(report["hub"], peers, topics, arguments)
    sys.stdout.flush()
    if arguments.filter is not None and not (peers or topics):
        print(f"qulolist: nothing matches {arguments.filter!r}", file=sys.stderr)
        return _NOTHING_MATCHED
    return exits.OK


def _matches(name: str, arguments: argparse.Namespace) -> bool:
    return arguments.filter is None or fnmatch.fnmatchcase(name, arguments.filter)


def _print_json(
    hub: Mapping[str, Any], peers: Iterable[Mapping[str, Any]], topics: Iterable[Mapping[str, Any]]
) -> None:
    entries = [("hub", hub), *(("peer", peer) for peer in peers), *(("topic", topic) for topic in topics)]
    for kind, entry in entries:
        print(json.dumps({"type": kind, **entry}, separators=(",", ":"), default=str))


def _print_tables(
    hub: Mapping[str, Any],
    peers: Sequence[Mapping[str, Any]],
    topics: Sequence[Mapping[str, Any]],
    arguments: argparse.Namespace,
) -> None:
    terminal = sys.stdout.isatty()
    colours = _COLOURS if terminal and not os.environ.get("NO_COLOR") else {}
    if arguments.watch is not None and terminal:
        sys.stdout.write(_CLEAR)
    print(_headline(hub))
    ordered = sorted(peers, key=lambda peer: (peer["kind"], peer["state"] == "down", peer["name"]))
    for columns, entries in ((_PEERS, ordered), (_TOPICS, topics)):
        if entries:
            print()
            _print_table(columns, entries, colours)


def _headline(hub: Mapping[str, Any]) -> str:
    role = "the site's hub" if hub["authority"] else "an agent, its master is "
    if not hub["authority"]:
        role += "connected" if hub["upstream"] else "away"
    blocked = ", holding publishers back" if hub["blocked"] else ""
    if hub.get("executor") == "lost":  # a hub of another version may not say
        blocked += ", its executor is lost"
    return (
        f"{_clean(hub['name'])}: qulo {_clean(hub['version'])}, {role}{blocked};"
        f" {hub['peers']} connected, {hub['topics']} topics"
    )


def _print_table(columns: Sequence[_Column], entries: Iterable[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    rows = [[_Cell(column.title, "head") for column in columns]]
    for entry in entries:
        texts = [_clean(column.show(entry)) for column in columns]
        rows.append(
            [_Cell(text, text if column.title == "STATE" else "") for column, text in zip(columns, texts, strict=True)]
        )
    widths = [max(len(row[i].text) for row in rows) for i in range(len(columns))]
    for row in rows:
        cells = [
            _painted(cell, width, column, colours) for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _painted(cell: _Cell, width: int, column: _Column, colours: Mapping[str, str]) -> str:
    text = cell.text.rjust(width) if column.right else cell.text.ljust(width)
    colour = colours.get(cell.colour)
    return f"{colour}{text}{_PLAIN}" if colour else text


def _clean(text: object) -> str:
    """Text that another program chose, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


if __name__ == "__main__":
    raise SystemExit(main())
