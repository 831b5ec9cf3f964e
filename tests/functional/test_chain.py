"""An agent below an agent: a host that does not reach the master itself is of the site as any other."""

from __future__ import annotations

import json

from tests.functional import programs
from tests.functional.cluster import MASTER, Cluster
from tests.functional.waiting import until


def test_an_agent_below_an_agent_belongs_to_the_site(cluster: Cluster) -> None:
    data = {host: cluster.path(host, "data") for host in ("agent2", "agent3")}
    public = {host: cluster.read(host, f"{data[host]}/agent.pub") for host in data}
    cluster.write("agent2", f"{data['agent2']}/accepted/agent3.pub", public["agent3"])
    cluster.write("agent3", f"{data['agent3']}/agent2.pub", public["agent2"])
    cluster.configure("agent2", **cluster.listening("agent2"))
    cluster.configure("agent3", master=cluster.url("agent2"), master_key=f"{data['agent3']}/agent2.pub")
    for host in (MASTER, "agent2", "agent3"):
        assert cluster.launch(host).code == 0
    until(lambda: "connected to master agent2" in cluster.log("agent3"))
    until(lambda: "connected to master qmaster" in cluster.log("agent2"))

    # Messages both ways, a request from the far end, and all hosts answer.
    listeners = {host: programs.start(cluster, host, "listener", "2", "news.>") for host in (MASTER, "agent3")}
    worker = programs.start(cluster, "agent3", "worker", "agent3")
    for host in listeners:
        assert cluster.run(host, "qulo", "pub", "news.today", f"from {host}").code == 0
    for listener in listeners.values():
        lines = listener.end().out.splitlines()[1:]
        assert [json.loads(line) for line in lines] == [["news.today", f"from {host}"] for host in listeners]
    asked = cluster.run(MASTER, "qulo", "request", "service.where")
    assert (asked.code, asked.out) == (0, "agent3\n"), asked
    assert worker.interrupt().code == 0

    # From the far end the question goes all the way up: it is the site's hub that is shown, and its agent.
    listed = entries(cluster, "agent3")
    assert listed["hub", "qmaster"]["authority"] is True
    assert listed["peer", "agent2"]["state"] == "up"
    local = entries(cluster, "agent2", "--local")
    assert local["hub", "agent2"]["upstream"] is True
    assert local["peer", "agent3"]["state"] == "up"
    assert local["peer", "agent3"]["principal"] == "agent3"
    ping = cluster.run(MASTER, "qulo", "ping", "--expect", "2")
    assert ping.code == 0, ping


def entries(cluster: Cluster, host: str, *options: str) -> dict[tuple[str, str], dict[str, object]]:
    """What `qulolist` shows there, by type and name."""
    listed = cluster.run(host, "qulolist", "--json", "--agents", *options)
    assert listed.code == 0, listed
    lines = [json.loads(line) for line in listed.out.splitlines()]
    return {(line["type"], line["name"]): line for line in lines}
