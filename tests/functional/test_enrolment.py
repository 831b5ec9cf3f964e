"""Who gets in, and who does not any more: one command for a new host, one for a key that was stolen."""

from __future__ import annotations

import json

from tests.functional.cluster import AGENTS, MASTER, Cluster
from tests.functional.talk import Talk, check
from tests.functional.waiting import until

NEW = "agent1"


def keys(cluster: Cluster) -> dict[str, str]:
    """State by name, of the keys that the master knows."""
    listed = cluster.run(MASTER, "qulo", "keys", "ls", "--json")
    rows = map(json.loads, listed.out.splitlines())
    return {row["name"] or row["fingerprint"]: row["state"] for row in rows}


def forget(cluster: Cluster, host: str) -> None:
    """As if the host had never been there: no key of its at the master, and nothing of the master there."""
    assert cluster.run(MASTER, "qulo", "keys", "delete", host).code == 0
    cluster.configure(host, master_key="null")


def listed_up(cluster: Cluster, host: str) -> bool:
    listed = cluster.run(MASTER, "qulolist", "--json", "--agents", host)
    return '"state":"up"' in listed.out.replace(" ", "")


def test_a_new_host_gets_in_with_one_command_and_stays_in(cluster: Cluster) -> None:
    assert cluster.launch(MASTER).code == 0
    forget(cluster, NEW)
    alone = cluster.launch(NEW)
    assert alone.code == 78
    assert "qagent --join TOKEN" in alone.err

    made = cluster.run(MASTER, "qulo", "token", "new", "--name", NEW, "--address", cluster.url(MASTER))
    token = made.out.strip()
    joined = cluster.launch(NEW, "--join", token)
    assert joined.code == 0, joined
    until(lambda: listed_up(cluster, NEW))
    assert cluster.run(NEW, "qulo", "pub", "hello", "x").code == 0

    # The next start needs no token, and the token is worth nothing any more.
    assert cluster.control(NEW, "stop").code == 0
    assert cluster.launch(NEW).code == 0
    until(lambda: listed_up(cluster, NEW))
    forget(cluster, "agent2")
    again = cluster.launch("agent2", "--join", token)
    assert again.code == 77, again
    assert cluster.pid("agent2") is None


def test_a_key_that_nobody_knows_waits_until_an_operator_accepts_it(cluster: Cluster) -> None:
    assert cluster.launch(MASTER).code == 0
    assert cluster.run(MASTER, "qulo", "keys", "delete", NEW).code == 0
    assert cluster.launch(NEW).code == 0
    until(lambda: "pending" in keys(cluster).values())
    (fingerprint,) = [name for name, state in keys(cluster).items() if state == "pending"]
    assert f"run `qulo keys accept {fingerprint} --name {NEW}`" in cluster.log(NEW)
    assert cluster.run(MASTER, "qulo", "keys", "accept", fingerprint[:12], "--name", NEW).code == 0
    until(lambda: listed_up(cluster, NEW), timeout=20)


def test_a_revoked_host_is_out_and_the_others_miss_nothing(site: Cluster) -> None:
    talk = Talk(site, (MASTER, *AGENTS[1:]))
    assert site.run(MASTER, "qulo", "keys", "revoke", NEW).code == 0
    until(lambda: "run `qulo keys accept" in site.log(NEW))
    until(lambda: not listed_up(site, NEW))
    reports = talk.end(AGENTS[1:])
    check(reports)
    assert all(not report.reasons and not report.unknown for report in reports)
    assert keys(site)[NEW] == "refused"


def test_the_masters_key_changes_under_way_and_nobody_touches_a_host(site: Cluster) -> None:
    talk = Talk(site)
    assert site.run(MASTER, "qulo", "keys", "delete", "client").code == 0  # it is not here to be told
    assert site.run(MASTER, "qulo", "keys", "rotate").code == 0
    until(lambda: json.loads(_rotate(site, "--status"))["missing"] == [])
    before = site.read(MASTER, f"{site.path(MASTER, 'data')}/master.pub")
    _rotate(site, "--finish")
    reports = talk.end()
    check(reports)
    assert all(not report.unknown for report in reports)
    assert site.read(MASTER, f"{site.path(MASTER, 'data')}/master.pub") != before


def _rotate(site: Cluster, step: str) -> str:
    done = site.run(MASTER, "qulo", "keys", "rotate", step, "--json")
    assert done.code == 0, done
    return done.out
