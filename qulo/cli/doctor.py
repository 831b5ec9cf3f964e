"""`qulo doctor`: is the store whole, is there space, and has it all that clients were told is in it.

It must never change anything, and says what to do about each thing that is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qulo.cli import asking, body, exits, hub, restoring
from qulo.cli.colour import red
from qulo.cli.options import Verb
from qulo.errors import NoResponders, QuloError

if TYPE_CHECKING:
    from qulo.sync import Bus

_MANUAL = """\
On the hub's host, as root or as the hub's own user. It reads the whole store,
while the hub works: is every page and every count right; how full are quota
and disk. Then it asks all agents for the highest number of each stream that
they have seen acknowledged: a store that ends below that has lost something,
or was restored from a backup. On an agent's host it looks at its spool.

--offline DIR does the first half for a daemon that is stopped; DIR is its
data_dir.

exit status:
  0  all is well     1  something is not; it says what, and what to do

examples:
  qulo doctor
  qulo doctor --json
  qulo doctor --offline /var/lib/qulo
"""

_PING = "$qulo.ping"

# Seconds for the check without --timeout: it reads everything, some 200 MB a second.
_CHECK_TIMEOUT = 600.0

# Seconds for the agents' answers: a host that is well takes milliseconds.
_PING_TIMEOUT = 2.0

# Of the quota: who is told now can still do something about it.
_FULL = 0.9


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--offline", metavar="DIR", help="the data_dir of a daemon that is stopped")
    add("--json", action="store_true", help="one object")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.offline is not None:
        report, seen = restoring.check(Path(arguments.offline)), {}
    else:
        with hub.connect(arguments, hubs=("master", "agent")) as bus:
            report, seen = _check(bus, arguments), _seen(bus)
    wrong = find_wrong(report, seen)
    if arguments.json:
        print(body.to_json(report | {"seen": seen, "wrong": wrong}))
    else:
        _show(report, wrong)
    return exits.FAILED if wrong else exits.OK


def _check(bus: Bus, arguments: argparse.Namespace) -> dict[str, Any]:
    arguments.timeout = arguments.timeout or _CHECK_TIMEOUT
    try:
        return asking.answer_map(bus.request("$qulo.local.admin.store.check", {}, timeout=arguments.timeout))
    except NoResponders:
        raise QuloError(f"the hub at {bus.url} keeps no store, or is of an older version") from None


def _seen(bus: Bus) -> dict[str, dict[str, int]]:
    """Agent → stream → the highest number that was acknowledged through it; an older agent does not say."""
    found: dict[str, dict[str, int]] = {}
    try:
        for answer in bus.request_many(_PING, None, timeout=_PING_TIMEOUT):
            if isinstance(answer, dict) and isinstance(answer.get("seen"), dict):
                found[str(answer.get("name"))] = {
                    str(stream): seq for stream, seq in answer["seen"].items() if type(seq) is int
                }
    except NoResponders:
        pass
    return found


def find_wrong(report: Mapping[str, Any], seen: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is wrong, each with what to do."""
    wrong = [
        f"the store is damaged: {body.to_line(problem)}. Stop the daemon, keep its data_dir, and bring a backup back: "
        "`qulo stream restore FILE`"
        for problem in report["problems"]
    ]
    if report["max_store"] and report["used"] >= _FULL * report["max_store"]:
        wrong.append(
            f"the quota is nearly used: {asking.shown_size(report['used'])} of "
            f"{asking.shown_size(report['max_store'])}. Producers are refused there: raise max_store, or give the "
            "streams limits (`qulo stream change`), consumers (`qulo stream info`), or a purge"
        )
    if "reserve" in report and not report["reserve"] and not report.get("offline"):
        wrong.append(
            f"the disk is full: {asking.shown_size(report['free'])} free, and the reserve is given up for acks. "
            "Producers are refused: make space; they go on by themselves"
        )
    for agent, streams in sorted(seen.items()):
        for stream, seq in sorted(streams.items()):
            last = report["last"].get(stream)
            if last is not None and last < seq:
                wrong.append(
                    f"{body.to_line(stream)} ends with {last}, but {seq} was acknowledged through "
                    f"{body.to_line(agent)}: {seq - last} lost, or a backup was restored. What was put "
                    "since has to be put again"
                )
    return wrong


def _show(report: Mapping[str, Any], wrong: list[str]) -> None:
    quota = f" of {asking.shown_size(report['max_store'])}" if report["max_store"] else ", no quota"
    print(f"store    {report['engine']}, tables of version {report['schema']}")
    print(
        f"space    {asking.shown_size(report['used'])} used{quota}; {asking.shown_size(report['on_disk'])} on disk, "
        f"{asking.shown_size(report['free'])} free"
    )
    for stream, last in report["last"].items():
        print(f"stream   {body.to_line(stream)} up to {last}")
    for line in wrong:
        print(f"{red('wrong')}    {line}")
    if not wrong:
        print("all is well")


VERB = Verb("doctor", "is the store whole, and is there space", _MANUAL, _add_options, _run, exits.INTERRUPTED)
