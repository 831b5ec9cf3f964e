"""Show what comes on some patterns, and say when it would.

    listener.py [--server-key FILE --key FILE] COUNT PATTERN...

Says "ready" when the hub has confirmed all PATTERNs, then prints a JSON line for each message, [TOPIC, BODY], and for
each gap, {"gap": REASON}. It ends after COUNT messages, or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal

import qulo


def shown(body: object) -> object:
    """A body as JSON: bytes are text here."""
    return body.decode() if isinstance(body, bytes) else body


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("patterns", nargs="+")
    parser.add_argument("--server-key")
    parser.add_argument("--key")
    options = parser.parse_args()
    left = options.count
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)

    def show(message: qulo.Message) -> None:
        nonlocal left
        if left > 0:
            print(json.dumps([message.topic, shown(message.body)]), flush=True)
        left -= 1
        if left <= 0:
            enough.set()

    async with qulo.connect(name="listener", server_key=options.server_key, key=options.key) as bus:
        for pattern in options.patterns:
            await bus.subscribe(pattern, show, on_gap=lambda gap: print(json.dumps({"gap": gap.reason}), flush=True))
        print("ready", flush=True)
        await enough.wait()


if __name__ == "__main__":
    asyncio.run(main())
