"""One target in this process: python -m tests.fuzz.run TARGET RUNS SECONDS WHERE SEED [plain]

With Atheris, which guides its mutations by what they reach, unless `plain` is said; WHERE is the directory for what it
finds. A failure is a traceback, a file with the input, and an exit status that is not 0.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import mutate

CORPUS = Path(__file__).parent / "corpus"

# An input that takes longer (seconds), or makes the process this large (MB), is a finding too.
SLOW, LARGE = 10, 1024

# Whose branches guide the search. All of ruamel.yaml would take ten seconds to prepare.
_GUIDES = ["qulo"]
_MORE_GUIDES = {"config_text": ["ruamel.yaml.scanner", "ruamel.yaml.parser"]}

Check = Callable[[bytes], None]


def load(target: str) -> Check:
    """The target's check."""
    found: Check = importlib.import_module(f"tests.fuzz.{target}").check
    return found


def seeds(target: str) -> list[bytes]:
    """The target's corpus."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def with_atheris(target: str, runs: int, seconds: int, where: Path, seed: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris  # noqa: PLC0415 - is not there where only the mutator is wanted

    with atheris.instrument_imports(include=_GUIDES + _MORE_GUIDES.get(target, [])):
        check = load(target)
    found = where / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    argv = [target, f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={SLOW}", f"-rss_limit_mb={LARGE}"]
    argv += [
        f"-max_len={mutate.LONGEST}",
        f"-artifact_prefix={where}/{target}-",
        "-print_final_stats=1",
        f"-seed={seed}",
    ]
    atheris.Setup([*argv, str(found), str(CORPUS / target)], check)
    atheris.Fuzz()


def plainly(target: str, runs: int, seconds: int, where: Path) -> int:
    """The mutator; the number of inputs that were tried."""
    check = load(target)
    end = time.monotonic() + seconds if seconds else float("inf")
    done = 0
    for data in mutate.inputs(seeds(target), runs, seed=1):
        try:
            check(data)
        except BaseException:
            where.mkdir(parents=True, exist_ok=True)
            path = where / f"{target}-crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
            path.write_bytes(data)
            print(f"{target}: the input is in {path}", file=sys.stderr)
            raise
        done += 1
        if time.monotonic() >= end:
            break
    return done


if __name__ == "__main__":
    logging.disable()  # what is wrong with an input is no news
    name, count, limit, place = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    if "plain" in sys.argv[6:]:
        print(f"Done {plainly(name, count, limit, place)} runs")
    else:
        with_atheris(name, count, limit, place, int(sys.argv[5]))
