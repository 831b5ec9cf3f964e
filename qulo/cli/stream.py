"""`qulo stream`: make, look at, change and remove the streams of a site, and copy the store they are in."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qulo.cli import admin, asking, body, exits, hub, restoring
from qulo.cli.asking import shown_duration, shown_size
from qulo.cli.options import Verb, count, duration, note, size, whole
from qulo.errors import NoStream, UsageError

if TYPE_CHECKING:
    from qulo.sync import Bus

_MANUAL = """\
A stream keeps on the hub's disk what is put (and published) on its topics;
each group of consumers gets all of it. Two streams cannot share a topic.

  add NAME TOPIC...     make one; change NAME [TOPIC...] what is given of it
  ls                    all streams, and how much is in them
  info NAME             all about one, and its groups
  topics NAME [PATTERN] what is in it, by topic
  get NAME              show its messages: all, from the number --seq on, those
                        of the last --since, or --last, the newest of each topic
  purge NAME            remove its messages; with --upto only the older ones
  rm NAME               remove it with its messages and groups
  group rm NAME GROUP   forget a group: what it has not acked, it never gets
  backup PATH           copy the store of this host's hub into a new file while
                        it works (as root or as the hub's own user)
  restore FILE          put such a copy in the place of the store of a hub that
                        is stopped, here; the old one is kept beside it

--keep work: a message goes when every group has acked it. --keep limits (the
default): only age, size and number make it go. A limit of 0 is none. Durations
are 10m, 12h or 7d, sizes 64K or 1G.

examples:
  qulo stream add ORDERS 'orders.>' --keep work
  qulo stream add STATE 'state.>' --per-topic 1     the last value of each topic
  qulo stream change ORDERS --max-age 7d --max-bytes 1G
  qulo stream get ORDERS --since 5m --topic 'orders.*.failed'
  qulo stream backup /var/backups/streams.db
"""

# What an action takes; the settings of a stream as the hub calls them.
_SETTINGS = {"keep", "max_age", "max_bytes", "max_msgs", "per_topic", "dedupe", "max_tries"}
_OPTIONS: dict[str, set[str]] = {
    "add": _SETTINGS,
    "change": _SETTINGS,
    "ls": {"json"},
    "info": {"json"},
    "topics": {"json"},
    "get": {"json", "seq", "since", "last", "topic", "count"},
    "purge": {"upto", "yes"},
    "rm": {"yes"},
    "group": {"yes"},
    "backup": set(),
    "restore": {"config", "program"},
}
_ALL = set().union(*_OPTIONS.values())

# Seconds for a backup without --timeout: it copies the store at the speed of the disk.
_BACKUP_TIMEOUT = 3600.0


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", metavar="ACTION", choices=tuple(_OPTIONS), help="one of those below")
    add("words", metavar="WORD", nargs="*", help="what it needs")
    settings = parser.add_argument_group("with add and change")
    add = settings.add_argument
    add("--keep", choices=("work", "limits"), help="what makes a message go")
    add("--max-age", metavar="TIME", type=duration(), help="how old a message gets")
    add("--max-bytes", metavar="SIZE", type=size, help="how much it keeps")
    add("--max-msgs", metavar="N", type=whole, help="how many it keeps")
    add("--per-topic", metavar="N", type=whole, help="how many of each topic")
    add("--dedupe", metavar="TIME", type=duration(), help="how long an --id of put is known; default 10m")
    add("--max-tries", metavar="N", type=whole, help="deliveries before a message is dead; default 10")
    add = parser.add_argument_group("with get").add_argument
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--seq", metavar="N", type=count, help="from this number on")
    where.add_argument("--since", metavar="TIME", type=duration(), help="of the last 5m, 2h, ...")
    where.add_argument("--last", action="store_true", help="the newest of each topic")
    add("--topic", metavar="PATTERN", help="only these topics")
    add("-C", "--count", metavar="N", type=count, help="end after N messages")
    add = parser.add_argument_group("with others").add_argument
    add("--upto", metavar="SEQ", type=count, help="purge: up to this number, and with it")
    add("-y", "--yes", action="store_true", help="purge, rm, group rm: do not ask")
    add("-c", "--config", metavar="FILE", help="restore: the daemon's configuration")
    add("--program", choices=("qmaster", "qulod"), help="restore: the daemon, if both could be meant")
    add("--json", action="store_true", help="one object per line")


def _run(arguments: argparse.Namespace) -> int:
    arguments.noun = "stream"
    asking.only(arguments, _OPTIONS[arguments.action], _ALL)
    return _ACTIONS[arguments.action](arguments)


def _define(arguments: argparse.Namespace) -> int:
    name, *patterns = asking.given(arguments, "NAME", many=True)
    settings: dict[str, Any] = {key: getattr(arguments, key) for key in _SETTINGS}
    argument: dict[str, Any] = {"name": name} | {key: each for key, each in settings.items() if each is not None}
    change = arguments.action == "change"
    if patterns:
        argument["topics"] = [asking.check_topic(each) for each in patterns]
    elif not change:
        raise UsageError("qulo stream add needs TOPIC: what it stores, such as 'orders.>'")
    elif len(argument) == 1:
        raise UsageError("qulo stream change needs what to change: TOPIC, --keep, --max-age and so on")
    with hub.connect(arguments) as bus:
        asking.ask(bus, arguments, "add", argument | ({"change": True} if change else {}))
    return exits.OK


def _list(arguments: argparse.Namespace) -> int:
    asking.given(arguments)
    with hub.connect(arguments) as bus:
        rows = asking.ask(bus, arguments, "ls", {})
    for row in rows:
        if arguments.json:
            admin.show_json(row)
        else:
            print(
                f"{row['name']:<20} {row['messages']:>9} messages {shown_size(row['bytes']):>9}  "
                f"{row['keep']:<6} groups {len(row['groups']):<3} {body.to_line(' '.join(row['topics']))}"
            )
    if not rows and not arguments.json:
        note("there are no streams; `qulo stream add NAME TOPIC...` makes one")
    return exits.OK


def _info(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "NAME")
    with hub.connect(arguments) as bus:
        row = asking.ask(bus, arguments, "info", {"stream": name})
    if arguments.json:
        admin.show_json(row)
        return exits.OK
    for key, value in row.items():
        if key != "groups":
            print(f"{key:<12} {_SHOWN.get(key, _plain)(value)}")
    for group in row["groups"]:
        counts = "  ".join(f"{key} {value}" for key, value in group.items() if key != "group")
        print(f"group        {body.to_line(group['group'])}: {counts}")
    return exits.OK


def _plain(value: Any) -> str:
    return body.to_line(str(value))


def _limit(value: float) -> str:
    return shown_duration(value) if value else "no limit"


def _bound(value: int) -> str:
    return str(value) if value else "no limit"


_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "topics": lambda value: body.to_line(" ".join(value)),
    "created": admin.when,
    "max_age": _limit,
    "dedupe": _limit,
    "max_bytes": lambda value: shown_size(value) if value else "no limit",
    "max_msgs": _bound,
    "per_topic": _bound,
    "max_tries": _bound,
    "bytes": shown_size,
}


def _topics(arguments: argparse.Namespace) -> int:
    name, *more = asking.given(arguments, "NAME", more="PATTERN")
    pattern = asking.check_topic(more[0]) if more else ">"
    after, found = "", 0
    with hub.connect(arguments) as bus:
        while rows := asking.ask(bus, arguments, "topics", {"stream": name, "topic": pattern, "after": after}):
            for topic, messages, amount in rows:
                if arguments.json:
                    admin.show_json({"topic": topic, "messages": messages, "bytes": amount})
                else:
                    print(f"{messages:>9} {shown_size(amount):>9}  {body.to_line(topic)}")
            after, found = rows[-1][0], found + len(rows)
    return exits.OK if found else exits.NOBODY


def _get(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "NAME")
    argument: dict[str, Any] = {"stream": name, "topic": asking.check_topic(arguments.topic or ">")}
    if arguments.seq is not None:
        argument["after"] = arguments.seq - 1
    if arguments.since is not None:
        argument["since"] = arguments.since
    if arguments.last:
        argument["last"] = True
    if arguments.count is not None:
        argument["count"] = min(arguments.count, _PAGE)
    shown = 0
    with hub.connect(arguments) as bus:
        for row in asking.read(bus, arguments, argument):
            sys.stdout.buffer.write(row.form(arguments.json))
            shown += 1
            if shown == arguments.count:
                break
    sys.stdout.buffer.flush()
    return exits.OK


# Messages that a page has at most: net.stream_requests.MOST.
_PAGE = 1000


def _purge(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "NAME")
    part = "all messages" if arguments.upto is None else f"the messages up to {arguments.upto}"
    with hub.connect(arguments) as bus:
        _sure(bus, arguments, name, f"remove {part} of {name}")
        answer = asking.ask(bus, arguments, "purge", {"stream": name, "upto": arguments.upto or 0})
    print(f"{answer['purged']} messages are removed")
    return exits.OK


def _remove(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "NAME")
    with hub.connect(arguments) as bus:
        _sure(bus, arguments, name, f"remove the stream {name} with all its messages and groups")
        asking.ask(bus, arguments, "rm", {"stream": name})
    return exits.OK


def _group(arguments: argparse.Namespace) -> int:
    if arguments.words[:1] != ["rm"]:
        raise UsageError("qulo stream group needs `rm NAME GROUP`; `qulo stream info NAME` lists its groups")
    arguments.action, arguments.words = "group rm", arguments.words[1:]
    name, group = asking.given(arguments, "NAME", "GROUP")
    with hub.connect(arguments) as bus:
        state = _sure(bus, arguments, name, f"forget the group {group} of {name}")
        if all(each["group"] != group for each in state["groups"]):
            raise NoStream(f"{name} has no group {group!r}; `qulo stream info {name}` lists them")
        asking.ask(bus, arguments, "group.rm", {"stream": name, "group": group})
    return exits.OK


def _sure(bus: Bus, arguments: argparse.Namespace, name: str, what: str) -> dict[str, Any]:
    """What the stream is; on a terminal the user has said that it is meant. Raises UsageError, NoStream."""
    state = asking.answer_map(asking.ask(bus, arguments, "info", {"stream": name}))
    if not arguments.yes and sys.stdin.isatty():
        sys.stderr.write(f"qulo: {what} ({state['messages']} messages, {shown_size(state['bytes'])})? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was done")
    return state


def _backup(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "PATH")
    path = os.path.abspath(name)  # of this program; the daemon works in /
    arguments.timeout = arguments.timeout or _BACKUP_TIMEOUT
    answer = admin.ask(arguments, "store.backup", {"path": path})
    copied = Path(answer["path"])
    print(f"{copied} has the store as it is now; `qulo stream restore {copied}` brings it back")
    return exits.OK


def _restore(arguments: argparse.Namespace) -> int:
    (name,) = asking.given(arguments, "FILE")
    done = restoring.restore(Path(name), arguments.program, arguments.config)
    print(f"{done.store} is what {name} was: {', '.join(done.what) or 'no streams'}")
    if done.kept is not None:
        print(f"the old one is {done.kept}: remove it when all is well")
    print(f"now start {' or '.join(done.programs)}")
    return exits.OK


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "add": _define,
    "change": _define,
    "ls": _list,
    "info": _info,
    "topics": _topics,
    "get": _get,
    "purge": _purge,
    "rm": _remove,
    "group": _group,
    "backup": _backup,
    "restore": _restore,
}

VERB = Verb("stream", "streams: make, list, show, change, remove", _MANUAL, _add_options, _run, exits.INTERRUPTED)
