"""A program that serves the site: answers requests and does its share of a group's work.

    worker.py NAME

Answers service.where with NAME, and refuses service.refuse. Says "ready" when that is known at the master, and that
it is one of the group `workers` on jobs.>. Publishes the body of each job that it gets on done.NAME. It ends by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import qulo


def refuse(message: qulo.Message) -> None:
    """An exception of a responder, for the asker."""
    raise ValueError(f"no {message.body.decode()} here")


async def main(name: str) -> None:
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)
    async with qulo.connect(name=f"worker.{name}") as bus:
        await bus.respond("service.where", lambda _: name)
        await bus.respond("service.refuse", refuse)

        async def work(message: qulo.Message) -> None:
            await bus.publish(f"done.{name}", message.body)

        await bus.subscribe("jobs.>", work, group="workers")
        print("ready", flush=True)
        await enough.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
