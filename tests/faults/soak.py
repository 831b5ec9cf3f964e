"""The same load for a long time, a fault a minute: memory, files and the WAL are flat at the end.

A fault that restarts a daemon begins its curve anew: what is looked at is its longest life, in the second and in the
last third of it: then the caches are full.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.campaign import Campaign, table
from tests.faults.site import DAEMONS, Site, sweep

# Seconds between two looks, between two faults, and after a start that are not looked at.
LOOK, FAULT, WARM = 2.0, 60.0, 30.0

# Flat is: the median of the last third is at most so much above that of the second, or so many.
FACTOR, LEAST = 1.25, {"rss": 16e6, "files": 20.0, "wal": 20e6}

# Only what does not end the daemon that is watched, but for the kills: each life is long enough to say something.
FAULTS = (
    "storm",
    "kill client",
    "stop client",
    "stop daemon",
    "bad reload",
    "log rotation",
    "clock",
    "loss",
    "partition",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one daemon."""

    name: str
    pid: int
    t: float
    rss: float
    files: float
    wal: float


def look(site: Site, t: float) -> list[Sample]:
    """All daemons."""
    found = []
    for name in DAEMONS:
        pid = site.daemons[name].pid
        try:
            rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
        wal = sum(path.stat().st_size for path in (site.place / name).glob("*-wal"))
        found.append(Sample(name, pid, t, rss, files, wal))
    return found


def growth(samples: list[Sample]) -> dict[str, dict[str, tuple[float, float]]]:
    """By daemon and resource: medians of the second and of the last third of its longest life."""
    result: dict[str, dict[str, tuple[float, float]]] = {}
    for name in DAEMONS:
        lives: dict[int, list[Sample]] = {}
        for sample in samples:
            if sample.name == name:
                lives.setdefault(sample.pid, []).append(sample)
        life = [s for s in max(lives.values(), key=len) if s.t - min(x.t for x in lives[s.pid]) > WARM]
        third = max(1, len(life) // 3)
        result[name] = {
            what: (
                statistics.median(getattr(sample, what) for sample in life[third : 2 * third] or life),
                statistics.median(getattr(sample, what) for sample in life[-third:]),
            )
            for what in LEAST
        }
    return result


def run(seed: int, minutes: float) -> int:
    """Print a table; 0: flat, and every promise held."""
    sweep()
    site = Site()
    samples: list[Sample] = []
    try:
        campaign = Campaign(site, seed)
        campaign.begin()
        faults = [name for name in FAULTS if name in campaign.nemesis.faults]
        started = time.monotonic()
        struck = 0
        while time.monotonic() - started < 60 * minutes:
            samples += look(site, time.monotonic() - started)
            if time.monotonic() - started > FAULT * (struck + 1):
                name = faults[struck % len(faults)]
                struck += 1
                campaign.strike(name)
                print(f"{time.monotonic() - started:7.0f} s  {name}", file=sys.stderr, flush=True)
            time.sleep(LOOK)
        grown = growth(samples)
        result = campaign.end()
    finally:
        site.close()
    bad = 0
    print(f"{'daemon':<8} {'what':<6} {'second third':>14} {'last third':>14}")
    for name, resources in grown.items():
        for what, (before, last) in resources.items():
            flat = last <= max(before * FACTOR, before + LEAST[what])
            bad += not flat
            print(f"{name:<8} {what:<6} {before:>14,.0f} {last:>14,.0f}  {'flat' if flat else 'GROWS'}")
    result.seconds = 60 * minutes
    print(table(result))
    return 1 if bad or result.violations else 0
