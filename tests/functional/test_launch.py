"""A daemon is launched by its command line: when that returns it serves, and it is the only one."""

from __future__ import annotations

import pytest

from tests.functional.cluster import MASTER, PROGRAM, Cluster
from tests.functional.waiting import until

HOSTS = pytest.mark.parametrize("host", [MASTER, "agent1"], ids=lambda host: PROGRAM[host])

# One connection, no second attempt, no patience.
PROBE = """
import asyncio, qulo
async def main():
    async with qulo.connect(timeout=1) as bus, bus.subscribe("local.probe") as sub:
        await bus.publish("local.probe", "hello")
        print((await sub.next(5)).body)
asyncio.run(main())
"""


@HOSTS
def test_when_the_command_returns_the_daemon_serves_and_no_second_one_starts(cluster: Cluster, host: str) -> None:
    program = PROGRAM[host]
    launched = cluster.launch(host)
    assert (launched.code, launched.out) == (0, "")
    assert cluster.run(host, "python3", "-c", PROBE).out == "hello\n"

    pid = cluster.pid(host)
    assert cluster.read(host, cluster.path(host, "pid")) == f"{pid}\n"
    status = cluster.control(host, "status")
    assert status.code == 0
    assert status.out.startswith(f"{program}: running, PID {pid}\n")
    assert f"local: ipc://{cluster.path(host, 'socket')}\n" in status.out

    second = cluster.launch(host)
    assert (second.code, second.out) == (69, "")
    told = f"{program}: already running: PID {pid} holds the lock of {cluster.path(host, 'pid')}\n"
    assert second.err == told
    assert cluster.pid(host) == pid
    assert cluster.run(host, "python3", "-c", PROBE).out == "hello\n"


@HOSTS
def test_what_kill_9_leaves_behind_is_in_nobodys_way(cluster: Cluster, host: str) -> None:
    program = PROGRAM[host]
    assert cluster.launch(host).code == 0
    pid = cluster.pid(host)
    cluster.signal(host, "KILL")
    until(lambda: cluster.pid(host) is None)

    assert cluster.read(host, cluster.path(host, "pid")) == f"{pid}\n"  # a stale number
    assert cluster.run(host, "test", "-S", cluster.path(host, "socket")).code == 0  # and a stale socket
    status = cluster.control(host, "status")
    told = f"{program}: not running (nobody holds the lock of {cluster.path(host, 'pid')})\n"
    assert (status.code, status.out) == (3, told)

    assert cluster.launch(host).code == 0
    assert cluster.pid(host) not in (None, pid)
    assert cluster.read(host, cluster.path(host, "pid")) == f"{cluster.pid(host)}\n"
    assert cluster.run(host, "python3", "-c", PROBE).out == "hello\n"
