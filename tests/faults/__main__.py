"""The long run, by hand: `make faults KILLS=500`, or `make soak MINUTES=30`."""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import time

from tests.faults import soak
from tests.faults.campaign import Campaign, Result, table
from tests.faults.site import Site, sweep

# Faults between two calm times: those are for what can only be judged when nothing breaks.
CALM_EVERY = 25


def run(seed: int, kills: int, acked_for: float, keep: bool) -> Result:
    """Faults until so many were killed and so many seconds have passed."""
    sweep()
    site = Site()
    started = time.monotonic()
    try:
        campaign = Campaign(site, seed)
        campaign.begin()
        for number in itertools.count(1):
            if site.kills >= kills and time.monotonic() - started >= acked_for:
                break
            if number % CALM_EVERY == 0:
                campaign.calm_down()
            struck = campaign.strike()
            print(f"{time.monotonic() - started:7.1f} s  {site.kills:5} kills  {struck}", file=sys.stderr, flush=True)
        result = campaign.end()
        result.seconds = time.monotonic() - started
    except BaseException:
        if not keep:
            site.close()
        raise
    if keep:
        print(f"everything is in {site.place}; end it with kill", file=sys.stderr)
    else:
        site.close()
    return result


def main() -> int:
    """0: every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="break things, and see what is lost")
    parser.add_argument("--kills", type=int, default=500, help="until so many processes were killed")
    parser.add_argument("--minutes", type=float, default=0, help="and for so long at least")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument(
        "--soak", type=float, default=0, metavar="MINUTES", help="a fault a minute, looking at resources"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything as it is at the end")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything is ended and removed
    seed = options.seed or random.SystemRandom().randrange(1, 2**31)
    print(f"seed {seed}", file=sys.stderr)
    if options.soak:
        return soak.run(seed, options.soak)
    result = run(seed, options.kills, 60 * options.minutes, options.keep)
    print(table(result))
    return 1 if result.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
