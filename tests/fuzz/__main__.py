"""Options, and one process for each target; see the package's docstring. The exit status is 1 if anything was found."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import TARGETS

RUNS = 1_000_000
WHERE = Path("build/fuzz")

# Lines of a failed target that are shown.
TAIL = 60


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="feed every decoder with garbage")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"inputs for each target; default {RUNS:,}")
    parser.add_argument("--seconds", type=int, default=0, help="for each target at most; 0: as long as it takes")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: another one each time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at one time; default: one a core")
    parser.add_argument("--plain", action="store_true", help="without Atheris, also where it is installed")
    options = parser.parse_args(argv)
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return options


def _fuzz(target: str, options: argparse.Namespace, plain: bool) -> bool:
    """Run one target; True when nothing was found."""
    argv = [sys.executable, "-m", "tests.fuzz.run", target, str(options.runs), str(options.seconds), str(WHERE)]
    argv.append(str(options.seed))
    began = time.monotonic()
    done = subprocess.run(argv + ["plain"] * plain, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    runs = re.findall(r"Done (\d+) (?:runs|in)", said)
    line = f"{target:<14} {runs[-1] if runs else '?':>9} inputs, {time.monotonic() - began:.0f} s"
    if done.returncode == 0:
        print(line, flush=True)
        return True
    told = [text for text in said.splitlines() if not text.startswith(("#", "INFO:"))]  # libFuzzer's progress
    print(f"{line}: FOUND SOMETHING (exit {done.returncode})", *told[-TAIL:], sep="\n", flush=True)
    return False


def main(argv: Sequence[str]) -> int:
    """Fuzz what the options ask for; the exit status."""
    options = _options(argv)
    plain = options.plain or importlib.util.find_spec("atheris") is None
    print("with the plain mutator" if plain else "with Atheris", flush=True)
    WHERE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        good = list(pool.map(lambda target: _fuzz(target, options, plain), options.targets or TARGETS))
    print(f"{sum(good)} of {len(good)} targets found nothing")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
