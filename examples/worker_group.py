"""A group of workers: each message goes to one of them, and it does not matter which.

    python examples/worker_group.py --workers 3 --jobs 12

Usually each worker is a program of its own, on any host; starting one more shares the work with it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections import Counter

import qulo


async def main() -> None:
    parser = argparse.ArgumentParser(description="share jobs between workers")
    parser.add_argument("--url", help="the hub's address")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=12)
    options = parser.parse_args()

    done: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def work(worker: int, message: qulo.Message) -> None:
        """One job: the digest of a text, in a thread because it keeps a processor busy."""
        digest = await asyncio.to_thread(hashlib.sha256, message.body.encode())
        await done.put((worker, digest.hexdigest()))

    def handler(worker: int) -> qulo.client.Handler:
        async def handle(message: qulo.Message) -> None:
            await work(worker, message)

        return handle

    async with qulo.connect(options.url) as bus:
        for worker in range(options.workers):
            await bus.subscribe("jobs.digest", handler(worker), group="digesters")
        for job in range(options.jobs):
            await bus.publish("jobs.digest", f"text number {job}")
        shares = Counter([(await done.get())[0] for _ in range(options.jobs)])
    for worker, jobs in sorted(shares.items()):
        print(f"worker {worker} did {jobs} jobs")


if __name__ == "__main__":
    asyncio.run(main())
