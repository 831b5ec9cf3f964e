"""A hub that takes keys, for the verbs that administer it; the command line runs in the test's own process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import qulo.sync
from qulo import cli
from qulo.errors import Denied
from qulo.net import curve
from tests.unit.qulo.conftest import Hub, running_qulod


class Done(NamedTuple):
    """What became of a command line."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture(scope="session")
def keyed_hub() -> Iterator[Hub]:
    """One hub with `curve: on` for all tests."""
    place = Path(tempfile.mkdtemp(prefix="qulo-", dir="/tmp"))
    rules = (
        '[{allow: [publish], names: ["web*"], topics: ["metrics.>"]}, {deny: [publish], names: [web2], topics: [">"]}]'
    )
    try:
        with (
            running_qulod(place, curve="on", name="hub", permissions=rules) as (process, addresses),
            qulo.sync.connect(addresses["local"], name="tests") as bus,
        ):
            yield Hub(place, process.pid, addresses, bus)
    finally:
        shutil.rmtree(place)


@pytest.fixture
def keyed(keyed_hub: Hub) -> Iterator[Hub]:
    """The hub, which has forgotten every key and token when the test ends."""
    yield keyed_hub
    admin = "$qulo.local.admin"
    for row in keyed_hub.bus.request(f"{admin}.keys.ls")["keys"]:
        keyed_hub.bus.request(f"{admin}.keys.delete", {"key": row["fingerprint"]})
    for row in keyed_hub.bus.request(f"{admin}.token.ls")["tokens"]:
        keyed_hub.bus.request(f"{admin}.token.rm", {"id": row["id"]})


@pytest.fixture
def run(keyed: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Carry out a command line on that hub."""
    monkeypatch.setenv("QULO_URL", keyed.url)

    def call(*argv: str) -> Done:
        capsys.readouterr()
        try:
            code = cli.main(argv)
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def knock(keyed: Hub, tmp_path: Path) -> Callable[[], str]:
    """A stranger's key tries to come in; its fingerprint."""
    numbers = iter(range(100))

    def knocks() -> str:
        path = tmp_path / f"stranger{next(numbers)}.key"
        key = curve.make_key(path)
        with pytest.raises(Denied):
            qulo.sync.connect(keyed.addresses["listen"], server_key=keyed.place / "data" / "master.pub", key=path)
        return curve.fingerprint(key.public)

    return knocks


@pytest.fixture
def typed(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Carry out a command line on the session's hub, which keeps streams."""
    monkeypatch.setenv("QULO_URL", hub.url)

    def call(*argv: str) -> Done:
        capsys.readouterr()
        try:
            code = cli.main(argv)
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def orders(hub: Hub) -> Iterator[str]:
    """A stream of that hub, for orders.>, which gives up after two tries; all streams and dead letters go again."""
    stream = "$qulo.stream"
    hub.bus.request(f"{stream}.add", {"name": "ORDERS", "topics": ["orders.>"], "max_tries": 2})
    yield "ORDERS"
    for row in hub.bus.request(f"{stream}.ls", {}):
        hub.bus.request(f"{stream}.rm", {"stream": row["name"]})
    for letter in hub.bus.request(f"{stream}.dead.ls", {})["letters"]:
        hub.bus.request(f"{stream}.dead.purge", {"number": letter["number"]})
