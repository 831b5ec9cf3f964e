"""qagent: one per host. Programs on the host connect to it over ipc://, it connects to its master."""

from __future__ import annotations

from qulo._version import __version__
from qulo.config import Settings
from qulo.daemon import runner
from qulo.net.service import Service


async def serve(settings: Settings, control: runner.Control) -> None:
    """Bind, dial the master, say ready (with or without it), and do what the operator asks until the end."""
    service = Service(settings, __version__)
    try:
        service.listen()
        if control.token is not None:
            control.settings = await service.join(control.token)
        service.dial()
        control.ready(service.addresses)
        async for event in control:
            if not await service.obey(event.kind, event.settings):
                return
    finally:
        await service.close()


PROGRAM = runner.Program("qagent", "the hub of one host, connected to its master", serve, joins=True)


def main() -> int:
    """The executable."""
    return runner.main(PROGRAM)


if __name__ == "__main__":
    raise SystemExit(main())
