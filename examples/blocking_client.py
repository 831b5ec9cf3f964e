"""The blocking client, for programs that have no event loop: the same verbs, in plain threads.

    python examples/blocking_client.py

Handlers run in worker threads, so they may block. Everything that waits has a deadline.
"""

from __future__ import annotations

import argparse
import time

import qulo
import qulo.sync


def slow_square(message: qulo.Message) -> int:
    """A responder that takes its time; others are answered meanwhile."""
    time.sleep(0.01)
    return int(message.body) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description="use qulo without asyncio")
    parser.add_argument("--url", help="the hub's address")
    options = parser.parse_args()

    with qulo.sync.connect(options.url) as bus:
        bus.respond("math.square", slow_square)
        print("7 squared is", bus.request("math.square", 7, timeout=2.0))

        with bus.subscribe("blocking.>") as subscription:
            bus.publish("blocking.first", "one")
            bus.publish("blocking.second", "two")
            print(subscription.next(timeout=2.0))
            for item in subscription:  # waits for more; so we leave when we have enough
                print(item)
                break
            try:
                subscription.next(timeout=0.1)
            except qulo.DeadlineExceeded as error:
                print(error)


if __name__ == "__main__":
    main()
