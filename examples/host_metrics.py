"""Publish this host's load, memory, processor and network use once per second, on host.metrics.<host>.

    python examples/subscribe.py 'host.metrics.*' &
    python examples/host_metrics.py --count 5

Everything is read from /proc (see proc(5)); nothing has to be installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qulo

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Counters:
    """What only ever grows; the difference of two of them is the use between them."""

    at: float
    busy: int
    """Ticks of all processors that were not idle."""
    total: int
    received: int
    """Bytes, over all network devices but the loopback."""
    sent: int


def read_counters() -> Counters:
    """The counters as they are now."""
    ticks = [int(text) for text in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle, and waiting for disks
    received = sent = 0
    for line in (PROC / "net" / "dev").read_text().splitlines()[2:]:
        device, _, numbers = line.partition(":")
        if device.strip() != "lo":
            fields = numbers.split()
            received += int(fields[0])
            sent += int(fields[8])
    return Counters(time.monotonic(), sum(ticks) - idle, sum(ticks), received, sent)


def read_memory() -> dict[str, int]:
    """Total and available memory in bytes."""
    fields = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
    kib = {name: int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    return {"total": kib["MemTotal"] * 1024, "available": kib["MemAvailable"] * 1024}


def metrics(before: Counters, now: Counters) -> dict[str, Any]:
    """One message: the use between two readings, per second where it is a rate."""
    seconds = now.at - before.at
    return {
        "time": time.time(),
        "load": os.getloadavg()[0],
        "cpu_percent": round(100 * (now.busy - before.busy) / max(1, now.total - before.total), 1),
        "memory": read_memory(),
        "network": {
            "received_per_s": round((now.received - before.received) / seconds),
            "sent_per_s": round((now.sent - before.sent) / seconds),
        },
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description="publish what this host is doing")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two messages")
    parser.add_argument("--count", type=int, help="end after so many messages")
    options = parser.parse_args()

    # The short name, in the characters that a token of a topic may have.
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0]) or "localhost"
    before, sent = read_counters(), 0
    async with qulo.connect(options.url) as bus:
        while options.count is None or sent < options.count:
            await asyncio.sleep(options.interval)
            now = read_counters()
            await bus.publish(f"host.metrics.{host}", metrics(before, now))
            before, sent = now, sent + 1
    print(f"published {sent} messages on host.metrics.{host}")


if __name__ == "__main__":
    asyncio.run(main())
