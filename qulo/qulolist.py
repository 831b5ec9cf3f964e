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

from qulo import plain, sync
from qulo._version import __version__
from qulo.arguments import seconds
from qulo.daemon import exits
from qulo.errors import DeadlineExceeded, EndpointError, NoResponders, QuloError, UsageError
from qulo.protocol.report import LIST, LOCAL_LIST

_MANUAL = """\
Shows the site's hub: an agent forwards the question to its master. --local
asks the hub that this host's programs are connected to. Streams are the
site's; PENDING is what the group that is furthest behind has not acked.

states of a peer:
  up       it is heard
  slow     up, but it lags behind what is published and holds nobody up
  suspect  not heard for a while
  down     gone; listed for a while, last

FILTER is a shell pattern on the names of peers and streams, and on topics.

exit status:
  0  done                      64  wrong usage
  3  no answer in time         69  no hub; it says which addresses were tried
  4  FILTER matched nothing    77  denied

examples:
  qulolist
  qulolist --agents 'web*'
  qulolist --topics 'logs.*' --watch 1
  qulolist --streams
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
_STREAMS = (
    _Column("STREAM", lambda stream: stream["name"]),
    _Column("KEEP", lambda stream: stream["keep"]),
    _Column("TOPICS", lambda stream: " ".join(stream["topics"])),
    _Column("MESSAGES", lambda stream: f"{stream['messages']}", right=True),
    _Column("BYTES", lambda stream: f"{stream['bytes']}", right=True),
    _Column("LAST", lambda stream: f"{stream['last']}", right=True),
    _Column("GROUPS", lambda stream: f"{len(stream['groups'])}", right=True),
    _Column("PENDING", lambda stream: f"{max((g['pending'] for g in stream['groups']), default=0)}", right=True),
)

# docs/streams.md: what lists them.
_STREAM_LIST = "$qulo.stream.ls"


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
        print(f"qulolist: {plain.shown(str(error))}", file=sys.stderr)
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
    for name in ("agents", "clients", "topics", "streams"):
        add(f"--{name}", action="store_true", help=f"only {name} (and what else is selected)")
    add("--json", action="store_true", help='one object per line; "type" is hub, peer, topic, stream')
    add(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=_WATCH,
        help=f"look again, every {_WATCH:g} s by default, until Ctrl-C",
    )
    add(
        "--timeout",
        metavar="S",
        type=seconds,
        default=_TIMEOUT,
        help="seconds for the hub and for its answer",
    )
    add("--version", action="version", version=f"qulolist {__version__}")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.local and arguments.streams:
        raise UsageError("--streams are the site's, not the local hub's: without --local")
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
    answer["streams"] = _ask_streams(bus, arguments)
    return answer


def _ask_streams(bus: sync.Bus, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The site's streams, if they are wanted; an older hub has none, which matters to whoever asks for nothing else."""
    if arguments.local or not (arguments.streams or _is_everything(arguments)):
        return []
    try:
        streams: list[dict[str, Any]] = bus.request(_STREAM_LIST, {}, timeout=arguments.timeout)
    except QuloError:
        if arguments.streams:
            raise
        return []
    return streams


def _is_everything(arguments: argparse.Namespace) -> bool:
    return not any(getattr(arguments, name) for name in ("agents", "clients", "topics", "streams"))


def _show(report: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    kinds = {kind for option, kind in _KINDS.items() if getattr(arguments, option)}
    everything = _is_everything(arguments)
    peers = [
        peer for peer in report["peers"] if (everything or peer["kind"] in kinds) and _matches(peer["name"], arguments)
    ]
    topics = [
        topic for topic in report["topics"] if (everything or arguments.topics) and _matches(topic["topic"], arguments)
    ]
    streams = [stream for stream in report.get("streams", ()) if _matches(stream["name"], arguments)]
    if arguments.json:
        _print_json(report["hub"], peers=peers, topics=topics, streams=streams)
    else:
        _print_tables(report["hub"], ((_PEERS, _ordered(peers)), (_TOPICS, topics), (_STREAMS, streams)), arguments)
    sys.stdout.flush()
    if arguments.filter is not None and not (peers or topics or streams):
        print(f"qulolist: nothing matches {arguments.filter!r}", file=sys.stderr)
        return _NOTHING_MATCHED
    return exits.OK


def _matches(name: str, arguments: argparse.Namespace) -> bool:
    return arguments.filter is None or fnmatch.fnmatchcase(name, arguments.filter)


def _print_json(hub: Mapping[str, Any], **sections: Iterable[Mapping[str, Any]]) -> None:
    """One object a line; its type is the section's name without the plural's s."""
    entries = [("hub", hub), *((name[:-1], entry) for name, section in sections.items() for entry in section)]
    for kind, entry in entries:
        print(json.dumps({"type": kind, **entry}, separators=(",", ":"), default=str))


def _ordered(peers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(peers, key=lambda peer: (peer["kind"], peer["state"] == "down", peer["name"]))


def _print_tables(
    hub: Mapping[str, Any],
    sections: Iterable[tuple[Sequence[_Column], Sequence[Mapping[str, Any]]]],
    arguments: argparse.Namespace,
) -> None:
    terminal = sys.stdout.isatty()
    colours = _COLOURS if terminal and not os.environ.get("NO_COLOR") else {}
    if arguments.watch is not None and terminal:
        sys.stdout.write(_CLEAR)
    print(_headline(hub))
    for columns, entries in sections:
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
        f"{plain.shown(hub['name'])}: qulo {plain.shown(hub['version'])}, {role}{blocked};"
        f" {hub['peers']} connected, {hub['topics']} topics"
    )


def _print_table(columns: Sequence[_Column], entries: Iterable[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    rows = [[_Cell(column.title, "head") for column in columns]]
    for entry in entries:
        texts = [plain.shown(str(column.show(entry))) for column in columns]
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


if __name__ == "__main__":
    raise SystemExit(main())
