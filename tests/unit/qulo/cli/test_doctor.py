"""`qulo doctor`: a store that is well, and each thing that can be wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qulo.cli.doctor import find_wrong
from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import Hub, running_qulod


def report(**values: Any) -> dict[str, Any]:
    well: dict[str, Any] = {"problems": [], "used": 10, "max_store": 0, "free": 10, "reserve": 1, "last": {"S": 7}}
    return well | values


def test_a_store_that_is_well_is_0(typed: Cli, hub: Hub, orders: str) -> None:
    hub.bus.put("orders.a", b"x")
    done = typed("doctor")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[0].startswith("store    SQLite 3.")
    assert "no quota" in lines[1]
    assert lines[2:] == ["stream   ORDERS up to 1", "all is well"]
    shown = json.loads(typed("doctor", "--json").out)
    assert (shown["problems"], shown["wrong"], shown["last"]) == ([], [], {"ORDERS": 1})


def test_a_store_whose_daemon_is_stopped_is_checked_offline(typed: Cli, short_place: Path) -> None:
    data = short_place / "data"
    with running_qulod(short_place) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        assert hub.run("qulo", "stream", "add", "ORDERS", "orders.>").returncode == 0
        assert hub.run("qulo", "put", "orders.a", "x").returncode == 0
        used = typed("doctor", "--offline", str(data))
        assert (used.code, used.out) == (73, "")
        assert "streams.db is in use by another process" in used.err
    done = typed("doctor", "--offline", str(data))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[2:] == ["stream   ORDERS up to 1", "all is well"]
    with (data / "streams.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)
    broken = typed("doctor", "--offline", str(data))
    assert broken.code == 1
    assert "qulo stream restore FILE" in broken.out or "cannot be opened" in broken.err
    assert typed("doctor", "--offline", str(short_place)).code == 64


@pytest.mark.parametrize(
    ("values", "seen", "why"),
    [
        ({"problems": ["page 3"]}, {}, "the store is damaged: page 3. Stop the daemon"),
        ({"used": 95, "max_store": 100}, {}, "the quota is nearly used: 95 of 100."),
        ({"reserve": 0}, {}, "the disk is full: 10 free, and the reserve is given up"),
        (
            {},
            {"web1": {"S": 9}},
            "S ends with 7, but 9 was acknowledged through web1: 2 lost, or a backup was restored. ",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    values: dict[str, Any], seen: dict[str, dict[str, int]], why: str
) -> None:
    (wrong,) = find_wrong(report(**values), seen)
    assert wrong.startswith(why)


def test_what_is_well_is_nothing_wrong() -> None:
    seen = {"web1": {"S": 7}, "web2": {}, "web3": {"REMOVED": 100}}
    assert find_wrong(report(used=89, max_store=100), seen) == []
    assert find_wrong(report(reserve=0, offline=True), {}) == []


def test_no_hub_is_69(hub: Hub) -> None:
    assert hub.run("qulo", "doctor", "-W", "0.3", QULO_URL=f"ipc://{hub.place}/none.sock").returncode == 69
