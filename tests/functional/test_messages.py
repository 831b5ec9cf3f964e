"""Messages between programs on different hosts, by service name, with curve on everywhere."""

from __future__ import annotations

import json
from typing import Any

from tests.functional import programs
from tests.functional.cluster import CLIENT, MASTER, Cluster, Running
from tests.functional.waiting import until


def keys(cluster: Cluster) -> tuple[str, ...]:
    """What a program on CLIENT tells of itself."""
    return ("--server-key", cluster.path(CLIENT, "server_key"), "--key", cluster.path(CLIENT, "key"))


def got(listener: Running) -> list[Any]:
    """What a listener printed until it had enough."""
    done = listener.end()
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()[1:]]


def test_a_message_reaches_subscribers_on_every_host(site: Cluster) -> None:
    senders = {MASTER: (), "agent1": (), CLIENT: keys(site)}
    everywhere = [(MASTER, ()), ("agent1", ()), ("agent2", ()), (CLIENT, keys(site))]
    listeners = [programs.start(site, host, "listener", *key, "3", "sensors.>") for host, key in everywhere]
    for host, key in senders.items():
        sent = site.run(host, "qulo", "pub", *key, "sensors.kitchen", f"from {host}")
        assert sent.code == 0, sent
    expected = [["sensors.kitchen", f"from {host}"] for host in senders]
    assert [got(listener) for listener in listeners] == [expected] * 4


def test_a_program_with_a_key_that_nobody_knows_is_denied(cluster: Cluster) -> None:
    assert cluster.launch(MASTER).code == 0
    stranger = f"{cluster.path(CLIENT, 'key')}.stranger"
    make = "import sys; from qulo.net import curve; curve.make_key(sys.argv[1])"
    assert cluster.run(CLIENT, "python3", "-c", make, stranger).code == 0
    server_key = cluster.path(CLIENT, "server_key")
    denied = cluster.run(CLIENT, "qulo", "pub", "--server-key", server_key, "--key", stranger, "t", "x")
    assert denied.code == 77
    assert "does not accept our key" in denied.err
    until(lambda: "denied a connection from " in cluster.log(MASTER))

    # One that gives no key at all gets nowhere, and one that the operator knows is let in.
    assert cluster.run(CLIENT, "qulo", "pub", "--timeout", "0.5", "t", "x").code == 69
    assert cluster.run(CLIENT, "qulo", "pub", *keys(cluster), "t", "x").code == 0


def test_what_is_local_never_leaves_its_host(site: Cluster) -> None:
    inside = programs.start(site, "agent1", "listener", "2", ">")
    outside = [programs.start(site, host, "listener", "1", "local.>", ">") for host in (MASTER, "agent2")]
    assert site.run("agent1", "qulo", "pub", "local.secret", "here").code == 0
    assert site.run("agent1", "qulo", "pub", "public.news", "there").code == 0
    assert got(inside) == [["local.secret", "here"], ["public.news", "there"]]
    # Behind it on the same way, and alone.
    assert [got(listener) for listener in outside] == [[["public.news", "there"]]] * 2

    # Nor does a request on a local topic come in from another host.
    asked = site.run(CLIENT, "qulo", "request", *keys(site), "local.secret")
    assert asked.code == 77
    assert "local topics are for programs" in asked.err
