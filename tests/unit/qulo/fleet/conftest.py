"""An executor as an agent starts it, and the other end of its socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgpack
import pytest

from qulo.fleet.handle import Executor

# Every wait ends here; a shared machine may be slow, a test that hangs is worse.
PATIENCE = 10.0


# The id of questions that nobody else asks.
_MARK = 2**32 - 1


@dataclass(slots=True)
class Peer:
    """What a network process, or somebody who has taken it over, can do with its end."""

    socket: socket.socket
    process: Popen[bytes]

    def send(self, question: object) -> None:
        self.socket.send(msgpack.packb(question))

    def receive(self) -> Any:
        return msgpack.unpackb(self.socket.recv(1 << 20))

    def ask(self, *question: object) -> Any:
        self.send(list(question))
        return self.receive()

    def dropped(self) -> int:
        """How many messages it has not answered, by its own count."""
        self.send([_MARK, "ping", None])
        while (answer := self.receive())[0] != _MARK:
            pass  # of something that was asked before
        return int(answer[2]["dropped"])

    def proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")

    def files(self) -> dict[str, str]:
        """What it has open."""
        return {fd.name: str(fd.readlink()) for fd in self.proc("fd").iterdir()}


@pytest.fixture
def peer() -> Iterator[Peer]:
    executor = Executor.start()
    executor._socket.settimeout(PATIENCE)
    peer = Peer(executor._socket, executor._process)
    assert peer.dropped() == 0  # it runs
    yield peer
    peer.socket.close()
    assert peer.process.wait(PATIENCE) == 0
