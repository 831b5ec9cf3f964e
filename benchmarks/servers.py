"""The servers under test, as shipped, each in a temporary directory and gone with it.

Only processes started here are ever ended, by their own handle. Ports are the kernel's choice, on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.errors import MeasureFailed
from benchmarks.jobs import Endpoint
from qulo.net.curve import make_key, public_path

# Both servers start in well under a second; a shared machine may need much longer.
_START_WITHIN = 15.0
_STOP_WITHIN = 10.0
_POLL = 0.02

_ANY_PORT = "tcp://127.0.0.1:0"

# How much of a log explains a failed start.
_LOG_TAIL = 2_000


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and how to reach it."""

    pid: int
    endpoint: Endpoint


def program(name: str) -> str:
    """The program that is installed beside this Python. Raises MeasureFailed where there is none."""
    # Not resolved: in a virtual environment python is a link to elsewhere.
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise MeasureFailed(f"{name} is not installed beside this Python: pip install 'qulo[bench]'")
    return str(path)


@asynccontextmanager
async def nats_server(*, tls: bool = False) -> AsyncIterator[Server]:
    """nats-server with its defaults: no JetStream; TLS with a certificate made for this run, or none."""
    with new_directory() as directory:
        where = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory)]
        certificate = None
        if tls:
            certificate, key = await _certificate(directory)
            where += ["--tls", "--tlscert", certificate, "--tlskey", key]
        async with _running([program("nats-server"), *where], directory) as process:
            ports = await _json_file(process, directory, lambda: next(directory.glob("*.ports"), None))
            url = next(iter(ports["nats"])).replace("tls://", "nats://")
            yield Server(process.pid, Endpoint("nats", url, server_key=certificate))


@asynccontextmanager
async def jetstream_server(*, fsync: bool) -> AsyncIterator[Server]:
    """nats-server with JetStream on disk: as it comes it syncs every two minutes, with `fsync` before each ack."""
    with new_directory() as directory:
        config = directory / "nats.conf"
        always = "sync_interval: always" if fsync else ""
        config.write_text(f'jetstream {{ store_dir: "{directory}/js"\n{always}\n}}\n')
        where = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory), "-c", str(config)]
        async with _running([program("nats-server"), *where], directory) as process:
            ports = await _json_file(process, directory, lambda: next(directory.glob("*.ports"), None))
            yield Server(process.pid, Endpoint("nats", next(iter(ports["nats"])), fsync=fsync))


async def _certificate(directory: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that signs itself, and its key; made by openssl, as an operator would."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MeasureFailed("openssl is not installed: NATS with TLS needs a certificate")
    certificate, key = f"{directory}/server.pem", f"{directory}/server.key"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    argv = [openssl, "req", "-x509", *curve, *subject, "-keyout", key, "-out", certificate]
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    if await asyncio.wait_for(process.wait(), _START_WITHIN) != 0:
        raise MeasureFailed("openssl made no certificate")
    return certificate, key


@asynccontextmanager
async def qulod(*, curve: bool) -> AsyncIterator[Server]:
    """qulod with its defaults, with or without CURVE on its TCP listener."""
    with new_directory() as directory:
        settings = {"listen": _ANY_PORT, "publish": _ANY_PORT, "local": f"ipc://{directory}/hub.sock"}
        settings["curve"] = "on" if curve else "off"
        key = str(_accepted_key(directory)) if curve else None
        server_key = f"{directory}/data/master.pub" if curve else None
        async with _daemon("qulod", directory, settings) as (process, state):
            yield Server(process.pid, Endpoint("qulo", state["addresses"]["listen"], server_key, key))


@dataclass(slots=True)
class Restartable:
    """A qulod that is stopped and started again on the same ports."""

    place: Path
    url: str = ""
    _settings: dict[str, str] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Start it; returns when it is ready."""
        (self.place / "daemon.state").unlink(missing_ok=True)
        _, state = await self._stack.enter_async_context(_daemon("qulod", self.place, self._settings))
        self.url = state["addresses"]["listen"]
        self._settings |= {"listen": self.url, "publish": state["addresses"]["publish"]}

    async def stop(self) -> None:
        """Stop it; returns when it is gone."""
        await self._stack.aclose()


@asynccontextmanager
async def restartable_qulod(place: Path) -> AsyncIterator[Restartable]:
    """qulod with CURVE, in a directory that has the accepted keys already."""
    settings = {"listen": _ANY_PORT, "publish": _ANY_PORT, "local": f"ipc://{place}/hub.sock", "curve": "on"}
    hub = Restartable(place, _settings=settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def enrolled(place: Path, count: int) -> None:
    """Make so many keys, `keys/NUMBER.key`, all of which the hub accepts from its start on."""
    accepted = place / "data" / "accepted"
    accepted.mkdir(mode=0o700, parents=True)
    for number in range(count):
        key = place / "keys" / f"{number}.key"
        make_key(key)
        shutil.copy(public_path(key), accepted / f"link-{number}.pub")


@asynccontextmanager
async def qagent(master: Server) -> AsyncIterator[Server]:
    """A qagent of `master`, which must run without CURVE."""
    with new_directory() as directory:
        local = f"ipc://{directory}/agent.sock"
        settings = {"master": master.endpoint.url, "local": local, "curve": "off"}
        async with _daemon("qagent", directory, settings) as (process, _state):
            yield Server(process.pid, Endpoint("qulo", local))


@asynccontextmanager
async def _daemon(
    name: str, directory: Path, settings: Mapping[str, str]
) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """A daemon of ours in the foreground, and the state file it writes once it is ready."""
    files = {"data_dir": "data", "pid_file": "daemon.pid", "log_file": "daemon.log"}
    lines = {**settings, **{key: f"{directory}/{file}" for key, file in files.items()}}
    if os.geteuid() == 0:
        lines["user"] = "root"  # the default, qulo where that account exists, could not enter the directory
    config = directory / "config.yaml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    async with _running([program(name), "-f", "-c", str(config)], directory) as process:
        state = directory / "daemon.state"
        yield process, await _json_file(process, directory, lambda: state if state.exists() else None)


def _accepted_key(directory: Path) -> Path:
    """Make client keys that the hub accepts from its start on: the measured peers', and beside it the flooder's."""
    key, accepted = directory / "bench.key", directory / "data" / "accepted"
    accepted.mkdir(mode=0o700, parents=True)
    for each in (key, flooders_key(key)):
        make_key(each)
        shutil.copy(public_path(each), accepted)
    return key


def flooders_key(key: Path) -> Path:
    """A hub cuts a flooder off by its key: it must not be the others'."""
    return key.with_name("flooder.key")


@contextmanager
def new_directory() -> Iterator[Path]:
    """A directory with a short name: an ipc address has 107 bytes at most."""
    with TemporaryDirectory(prefix="qb") as name:
        yield Path(name)


@asynccontextmanager
async def _running(argv: Sequence[str], directory: Path) -> AsyncIterator[Process]:
    """A server process; its output goes to a file, and it is stopped at the end."""
    with (directory / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        await stop(process, _STOP_WITHIN)


async def stop(process: Process, within: float) -> None:
    """Ask the process to end, and make it end after `within` seconds."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), within)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _json_file(process: Process, directory: Path, find: Callable[[], Path | None]) -> dict[str, Any]:
    """What the server writes once it is ready. Raises MeasureFailed with its output if that does not come."""
    for _ in range(int(_START_WITHIN / _POLL)):
        path = find()
        text = path.read_text() if path else ""
        if text.rstrip().endswith("}"):  # else it is still being written
            fields: dict[str, Any] = json.loads(text)
            return fields
        if process.returncode is not None:
            break
        await asyncio.sleep(_POLL)
    output = (directory / "output").read_text(errors="replace")[-_LOG_TAIL:]
    raise MeasureFailed(f"the server was not ready within {_START_WITHIN:g} s:\n{output}")
