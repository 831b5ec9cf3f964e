"""qmaster: the hub of a site. Agents and clients connect with DEALER and SUB; it binds ROUTER and PUB."""

from __future__ import annotations

from functools import partial

from qulo._version import __version__
from qulo.config import Settings
from qulo.daemon import runner
from qulo.net.service import Service
from qulo.store import open_store


async def serve(settings: Settings, control: runner.Control) -> None:
    """Bind, say ready, and do what the operator asks until the end."""
    service = Service(settings, __version__, partial(open_store, settings), control.fail)
    try:
        await service.keep()
        service.listen()
        control.ready(service.addresses)
        async for event in control:
            if not await service.obey(event.kind, event.settings):
                return
    finally:
        await service.close()


PROGRAM = runner.Program("qmaster", "the hub of a site: agents and clients connect to it", serve)


def main() -> int:
    """The executable."""
    return runner.main(PROGRAM)


if __name__ == "__main__":
    raise SystemExit(main())
