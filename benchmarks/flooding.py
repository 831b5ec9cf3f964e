"""A peer that is accepted and sends a hub nothing but garbage: python -m benchmarks.flooding flooder JOB

It speaks with the driver as `benchmarks.peers` does: it floods from "go" on, says so a second later, and ends with
the next line, telling how many frames per second it got rid of.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

import zmq

from benchmarks.jobs import Job
from qulo.net.curve import load_key, load_public

# Looks like a frame until it is decoded.
_GARBAGE = b"\x93\x00\x00\x91\xc1" + bytes(100)

# How long the flood goes on before anything is measured beside it.
_AHEAD = 1.0

# On another host it would not take the others' time: it gets what they leave.
_NICE = 19


def _flood(job: Job, ended: threading.Event) -> float:
    """Frames per second that were sent."""
    endpoint = job.endpoint
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        if endpoint.key is not None and endpoint.server_key is not None:
            key = load_key(endpoint.key)
            dealer.set(zmq.CURVE_SERVERKEY, load_public(endpoint.server_key))
            dealer.set(zmq.CURVE_PUBLICKEY, key.public)
            dealer.set(zmq.CURVE_SECRETKEY, key.secret)
        dealer.connect(endpoint.url)
        sent, started = 0, time.monotonic()
        while not ended.is_set():
            if dealer.poll(100, zmq.POLLOUT):
                dealer.send(_GARBAGE)
                sent += 1
        return sent / (time.monotonic() - started)


async def _work(job: Job) -> None:
    os.nice(_NICE)
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ended = threading.Event()
    flooding = asyncio.create_task(asyncio.to_thread(_flood, job, ended))
    await asyncio.sleep(_AHEAD)
    print(json.dumps({"floods": True}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ended.set()
    print(json.dumps({"rate": await flooding}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_work(Job.from_json(sys.argv[2])))
