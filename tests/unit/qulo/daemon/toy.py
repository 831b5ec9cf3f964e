"""A daemon for tests, run as a real one: `python -m tests.unit.qulo.daemon.toy`.

TOY says how it behaves, TOY_TRACE is a file that gets one JSON line per event, TOY_SYSLOG is its /dev/log.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from qulo.config import Settings, places
from qulo.daemon import logs, runner, supervisor
from qulo.daemon.control import Control, Event
from qulo.errors import EndpointError, QuloError

BEHAVIOUR = os.environ.get("TOY", "")
TRACE = Path(os.environ["TOY_TRACE"])


async def serve(settings: Settings, control: Control) -> None:
    """Ready at once and obedient, unless TOY says otherwise."""
    trace(Event("reload", settings))
    await _before_ready(control)
    control.ready({"listen": "tcp://127.0.0.1:4711", "local": settings.local})
    if BEHAVIOUR == "deaf":
        await asyncio.Event().wait()
    async for event in control:
        trace(event)
        if event.kind == "dump" and BEHAVIOUR == "dies":
            raise RuntimeError("a bug\nwith two lines")
        if event.kind == "stop" or (event.kind == "drain" and BEHAVIOUR != "stubborn"):
            return


async def _before_ready(control: Control) -> None:
    if BEHAVIOUR == "beside":
        raise EndpointError(str(control.beside))
    if BEHAVIOUR == "endpoint":
        async with asyncio.TaskGroup():
            raise EndpointError("tcp://127.0.0.1:4711 is taken")
    if BEHAVIOUR == "bug":
        raise ValueError("a bug")
    if BEHAVIOUR == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while BEHAVIOUR.startswith("/") and not os.path.exists(BEHAVIOUR):  # noqa: ASYNC110, ASYNC240 - a file is all there is
        await asyncio.sleep(0.01)


def beside() -> object:
    """What is made before privileges are dropped; it fails when TOY says so."""
    if BEHAVIOUR == "beside-fails":
        raise QuloError("nothing beside it")
    return f"made by user {os.getuid()}"


def trace(event: Event) -> None:
    """What the test gets to see."""
    level = event.settings.log_level if event.settings else None
    with TRACE.open("a") as file:
        file.write(json.dumps([event.kind, level, [str(change) for change in event.changes]]) + "\n")


if __name__ == "__main__":
    logs.DEV_LOG = os.environ["TOY_SYSLOG"]
    supervisor.STOP_GRACE = 0.2
    places.ACCOUNT = os.environ.get("TOY_ACCOUNT", places.ACCOUNT)
    sys.exit(runner.main(runner.Program("qmaster", "the hub of a site", serve, beside=beside)))
