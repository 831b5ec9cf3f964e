"""Options, the order of measurements, and the output; see the package's docstring.

The exit status is 1 if a measurement failed or a message was missing, else 0, also where a target was not
met: the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import zmq

from benchmarks.cases import BODY, CASES, Case, Side, quick
from benchmarks.driver import Outcome, measure
from benchmarks.errors import MeasureFailed
from benchmarks.servers import program
from benchmarks.table import CaseResult, as_data, render, unmet
from qulo._version import __version__

_REPEAT = 3  # enough for a median that one disturbance does not move

# More would only wear the machine: the spread shows whether the median can be trusted.
_MOST_REPEATS = 100

_VERSION_WITHIN = 10.0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="qulo beside NATS, in a table")
    names = [case.name for case in CASES]
    known = ", ".join(names)
    parser.add_argument("--quick", action="store_true", help="few messages: shows that everything works")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=known)
    parser.add_argument("--repeat", type=_repeats, metavar="N", help=f"default {_REPEAT}, 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    options = parser.parse_args(argv)
    options.repeat = options.repeat or (1 if options.quick else _REPEAT)
    return options


def _repeats(text: str) -> int:
    if not 1 <= int(text) <= _MOST_REPEATS:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_REPEATS}")
    return int(text)


def _environment(repeat: int) -> dict[str, str]:
    """What the figures depend on."""
    argv = [program("nats-server"), "--version"]
    server = subprocess.check_output(argv, text=True, timeout=_VERSION_WITHIN).strip().replace(": v", " ")
    libraries = f"pyzmq {version('pyzmq')}, libzmq {zmq.zmq_version()}, msgpack {version('msgpack')}"
    return {
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before",
        "Python": f"{platform.python_version()} at both ends, the event loop of asyncio on both sides",
        "qulo": f"{__version__} ({libraries})",
        "NATS": f"{server}, nats-py {version('nats-py')}: callbacks, no pending limits, flush per burst",
        "figures": f"bodies of {len(BODY)} bytes, median (min–max) of {repeat}, qulo and NATS in turns",
    }


async def _measure_all(cases: Sequence[Case], repeat: int) -> list[CaseResult]:
    task = asyncio.current_task()
    assert task
    # Ended from outside: the servers and peers must end too, as they do on an interrupt.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return [await _measure_case(case, repeat) for case in cases]


async def _measure_case(case: Case, repeat: int) -> CaseResult:
    """All repeats of one case; the sides take turns, so that a drift of the machine meets both."""
    outcomes: dict[Side, list[Outcome]] = {side: [] for side in case.sides}
    failures = []
    for turn in range(repeat):
        for side in case.sides:
            print(f"{case.name} {turn + 1}/{repeat} {side}", file=sys.stderr, flush=True)
            try:
                outcomes[side].append(await measure(case.work, side))
            except MeasureFailed as error:
                failures.append(f"{side}: {error}")
                print(f"{case.name} {side} failed: {error}", file=sys.stderr, flush=True)
    return CaseResult(case, outcomes, failures)


def _report(environment: dict[str, str], results: Sequence[CaseResult]) -> str:
    heading = [f"{key + ':':<9}{value}" for key, value in environment.items()]
    missed = unmet(results)
    closing = [f"TARGETS NOT MET: {'; '.join(missed)}"] if missed else []
    return "\n".join([*heading, "", render(results), *closing])


def main(argv: Sequence[str]) -> int:
    """Measure what the options ask for; returns the exit status."""
    options = _options(argv)
    cases = [case for case in CASES if case.name in options.only]
    if options.quick:
        cases = [Case(case.name, quick(case.work), case.rows) for case in cases]
    try:
        environment = _environment(options.repeat)
        results = asyncio.run(_measure_all(cases, options.repeat))
    except MeasureFailed as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped before the end: no table", file=sys.stderr)
        return 1
    print(_report(environment, results))
    if options.json:
        everything = {"environment": environment, "rows": as_data(results)}
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    return 0 if all(result.complete for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
