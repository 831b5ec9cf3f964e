"""Play seeds of the simulation: `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.coverage import Coverage
from tests.simulation.run import MODES, SeedFailed, play

# Seeds that a process is given at a time.
PORTION = 100


def portion(mode: str, seeds: range) -> tuple[Coverage, list[str]]:
    """Play some seeds; what was reached, and what failed."""
    coverage, failed = Coverage(), []
    with coverage.watch():
        for seed in seeds:
            try:
                play(seed, mode, coverage)
            except SeedFailed as error:
                failed.append(str(error))
    return coverage, failed


def one(seed: int, mode: str, trace: bool) -> int:
    """One seed, with all that happens in it on request."""
    coverage = Coverage()
    try:
        with coverage.watch():
            world = play(seed, mode, coverage, print if trace else None)
    except SeedFailed as error:
        print(error)
        return 1
    print(f"seed {seed} is well: at rest {world.rested:g} s after {world.faults.happened} faults")
    return 0


def many(first: int, seeds: int, mode: str, jobs: int) -> int:
    """Many of them, in several processes; prints what failed and what was reached."""
    began = time.monotonic()
    portions = [range(at, min(at + PORTION, first + seeds)) for at in range(first, first + seeds, PORTION)]
    coverage, failures = Coverage(), 0
    pool = ProcessPoolExecutor(jobs) if jobs > 1 else None
    try:
        for reached, failed in (pool.map if pool is not None else map)(partial(portion, mode), portions):
            coverage.add(reached)
            failures += len(failed)
            for text in failed:
                print(text, flush=True)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    seconds = time.monotonic() - began
    print(coverage.table())
    print(f"{seeds} seeds, {failures} failed, {seconds:.1f} s, {seeds / seconds:.1f} seeds/s")
    return 1 if failures else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Plays a whole site in simulated time: the real core, and a network, disks and processes that "
        "break. One seed is one world, always the same. A seed that fails prints the command that replays it.",
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many seeds (default 1000)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, metavar="N", help="play this one only")
    parser.add_argument("--mode", choices=MODES, default="both", help="what to check (default both)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens, with its time")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes to play in (default 1)")
    options = parser.parse_args()
    if options.seed is not None:
        return one(options.seed, options.mode, options.trace)
    return many(options.first, options.seeds, options.mode, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
