"""What an operator does to a daemon that runs: new settings by HUP, new log files, and where its errors are told."""

from __future__ import annotations

import re

import pytest

from tests.functional import programs
from tests.functional.cluster import MASTER, PROGRAM, Cluster
from tests.functional.waiting import until

HOSTS = pytest.mark.parametrize("host", [MASTER, "agent1"], ids=lambda host: PROGRAM[host])


@HOSTS
def test_hup_takes_over_what_is_valid_and_nothing_of_what_is_not(cluster: Cluster, host: str) -> None:
    assert cluster.launch(host).code == 0
    pid = cluster.pid(host)
    cluster.configure(host, slow_after="7s", high_water="500")
    cluster.signal(host, "HUP")
    until(lambda: "reloaded slow_after: 5s -> 7s\n" in cluster.log(host))
    until(lambda: "reloaded high_water: 1000 -> 500: NEEDS A RESTART\n" in cluster.log(host))

    cluster.configure(host, slow_after="9s", session_timeout="soon")
    config = cluster.path(host, "config")
    line = cluster.read(host, config).splitlines().index("session_timeout: soon") + 1
    where = re.escape(f"{config}:{line}:18: session_timeout: ")
    refused = rf" ERROR .*: reload refused, what runs stays as it is: {where}"
    cluster.signal(host, "HUP")
    until(lambda: re.search(refused, cluster.log(host)))
    asked = cluster.control(host, "reload")
    assert asked.code == 78
    assert re.search(where, asked.err)

    # Nothing of the refused one holds: the next change is one from 7s, not from 9s.
    cluster.configure(host, slow_after="8s", high_water="500")
    assert cluster.control(host, "reload").code == 0
    until(lambda: "reloaded slow_after: 7s -> 8s\n" in cluster.log(host))
    assert "9s" not in cluster.log(host)
    assert cluster.pid(host) == pid
    assert cluster.run(host, "qulolist", "--local").code == 0


def test_a_log_is_rotated_while_it_is_written_and_loses_nothing(cluster: Cluster) -> None:
    assert cluster.launch(MASTER).code == 0
    log = cluster.path(MASTER, "log")
    visitors = programs.start(cluster, MASTER, "visitors")
    for number in (1, 2):
        rotate(cluster, f"{log}.{number}")
    count = int(visitors.interrupt().out.split()[-1])

    parts = [cluster.read(MASTER, f"{log}.{number}") for number in (1, 2)] + [cluster.log(MASTER)]
    came = re.findall(r"client (visitor-\d+) \(ipc, user \d+, process \d+\) is connected\n", "".join(parts))
    assert came == [f"visitor-{number}" for number in range(count)]
    assert [part.splitlines()[0].endswith("log reopened") for part in parts] == [False, True, True]


def rotate(cluster: Cluster, to: str) -> None:
    """As logrotate does it, without haste: the master's log gets another name, then the daemon is told."""
    assert cluster.run(MASTER, "mv", cluster.path(MASTER, "log"), to).code == 0
    before = len(cluster.read(MASTER, to))
    # It goes on in the file that has another name now, until it is told.
    until(lambda: "visitor" in cluster.read(MASTER, to)[before:])
    assert cluster.log(MASTER) == ""
    assert cluster.control(MASTER, "reopen").code == 0
    until(lambda: "visitor" in cluster.log(MASTER))


def test_errors_are_in_syslog_and_in_the_log_and_all_else_in_the_log_only(cluster: Cluster) -> None:
    cluster.syslog(MASTER)  # is there one at all?
    assert cluster.launch(MASTER).code == 0
    pid = cluster.pid(MASTER)
    cluster.write(MASTER, cluster.path(MASTER, "config"), "heartbeat: soon\n")
    cluster.signal(MASTER, "HUP")
    until(lambda: "reload refused" in cluster.syslog(MASTER))

    ours = [line for line in cluster.syslog(MASTER).splitlines() if f"qmaster[{pid}]: " in line]
    assert len(ours) == 1, ours
    text = ours[0].partition(f"qmaster[{pid}]: ")[2]
    logger, _, told = text.partition(": ")
    assert told.startswith(f"reload refused, what runs stays as it is: {cluster.path(MASTER, 'config')}:1:12: ")
    assert f" ERROR {logger}: {told}\n" in cluster.log(MASTER)
    assert " INFO " in cluster.log(MASTER)
    assert "no syslog" not in cluster.log(MASTER)
