"""qagent: one per host. Programs on the host connect to it over ipc://, it connects to its master.

It is two processes: this one has the sockets and no privileges, its executor (`fleet.executor`) has the privileges and
one socket, to this one.
"""

from __future__ import annotations

import contextlib
from functools import partial

from qulo._version import __version__
from qulo.config import Settings
from qulo.daemon import runner
from qulo.errors import FileError
from qulo.fleet.handle import OK, Executor
from qulo.net.service import Service
from qulo.store import open_store

# Heartbeats between two pings of the executor: its end is noticed at once, this is for one that hangs.
PING_BEATS = 3


async def serve(settings: Settings, control: runner.Control) -> None:
    """Bind, dial the master, say ready (with or without it), and do what the operator asks until the end."""
    service = Service(settings, __version__, partial(open_store, settings), control.fail)
    executor: Executor = control.beside

    def show() -> dict[str, str]:
        """Let everybody who asks this agent see the executor's state; the same for `-s status`."""
        service.hub.executor = executor.state
        mine = f"PID {executor.pid}, user {executor.uid}" if executor.state == OK else executor.state
        return service.addresses | {"executor": mine}

    def changed() -> None:
        with contextlib.suppress(FileError):  # a full disk: the log and `qulo ping` tell all the same
            control.ready(show())

    try:
        await executor.attach(PING_BEATS * settings.heartbeat, settings.session_timeout)
        if control.token is not None:
            control.settings = await service.join(control.token)
        await service.keep()
        # In one turn: a program that came in between would be served by a hub that knows of no master.
        service.listen()
        service.dial()
        addresses = show()
        control.ready(addresses)
        executor.changed = changed
        async for event in control:
            if not await service.obey(event.kind, event.settings):
                return
    finally:
        await service.close()
        await executor.close()


PROGRAM = runner.Program(
    "qagent", "the hub of one host, connected to its master", serve, joins=True, beside=Executor.start
)


def main() -> int:
    """The executable."""
    return runner.main(PROGRAM)


if __name__ == "__main__":
    raise SystemExit(main())
