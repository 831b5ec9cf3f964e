"""Every example, as it stands, on a host of a running site; a file in examples/ without a story fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.functional import programs
from tests.functional.cluster import MASTER, Cluster, Done
from tests.functional.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"


def argv(cluster: Cluster, host: str, name: str, *options: str) -> tuple[str, ...]:
    """The command line of an example."""
    return ("python3", f"{cluster.path(host, 'examples')}/{name}.py", *options)


def run(cluster: Cluster, host: str, name: str, *options: str) -> list[str]:
    """Run an example to its good end; its lines."""
    done = cluster.run(host, *argv(cluster, host, name, *options))
    assert (done.code, done.err) == (0, ""), done
    return done.out.splitlines()


def bodies(done: Done) -> list[object]:
    """What a listener got, without topics."""
    assert done.code == 0, done.err
    return [json.loads(line)[1] for line in done.out.splitlines()[1:]]


def publish_and_subscribe(site: Cluster) -> None:
    subscriber = site.start("agent2", *argv(site, "agent2", "subscribe", "--count", "3"))
    until(lambda: '"subscriptions":1' in site.run("agent2", "qulolist", "--local", "--json", "subscribe-*").out)
    assert run(site, "agent1", "publish", "--count", "3") == ["published 3 messages on sensors.kitchen"]
    done = subscriber.end()
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "sensors.kitchen {'number': 0, 'celsius': 20.0}",
        "sensors.kitchen {'number': 1, 'celsius': 20.1}",
        "sensors.kitchen {'number': 2, 'celsius': 20.2}",
    ]


def request_reply(site: Cluster) -> None:
    lines = run(site, "agent1", "request_reply")
    assert lines[0].startswith("load: {'1 min': ")
    assert lines[1:] == [
        "refused: ValueError: expected 'load', got 'weather'",
        "then: nobody answers requests on host.load",
    ]


def log_follower(site: Cluster) -> None:
    log = f"{site.path('agent1', 'data')}/my app.log"
    listener = programs.start(site, MASTER, "listener", "3", "logs.>")
    site.write("agent1", log, "first\nsecond\n")
    follower = site.start("agent1", *argv(site, "agent1", "log_follower", log, "--from-start", "--count", "3"))
    assert follower.line() == f"publishing {log} on logs.my-app"
    assert listener.line().endswith('"first"]')
    assert listener.line().endswith('"second"]')
    site.write("agent1", log, "after rotation\n")  # another file in its place
    assert bodies(listener.end()) == ["first", "second", "after rotation"]
    done = follower.end()
    assert (done.code, done.err) == (0, "")


def host_metrics(site: Cluster) -> None:
    listener = programs.start(site, MASTER, "listener", "2", "host.metrics.*")
    (line,) = run(site, "agent1", "host_metrics", "--count", "2", "--interval", "0.05")
    assert re.fullmatch(r"published 2 messages on host\.metrics\.[A-Za-z0-9_-]+", line)
    for body in bodies(listener.end()):
        assert isinstance(body, dict)
        assert body.keys() == {"time", "load", "cpu_percent", "memory", "network"}
        assert 0 < body["memory"]["available"] <= body["memory"]["total"]


def worker_group(site: Cluster) -> None:
    shares = re.findall(r"worker \d did (\d+) jobs", "\n".join(run(site, "agent1", "worker_group", "--jobs", "30")))
    assert sum(map(int, shares)) == 30


def blocking_client(site: Cluster) -> None:
    assert run(site, "agent1", "blocking_client") == [
        "7 squared is 49",
        "Message('blocking.first', 'one', {})",
        "Message('blocking.second', 'two', {})",
        "nothing came on blocking.> within 0.1 s",
    ]


def orders(site: Cluster) -> None:
    made = site.run(MASTER, "qulo", "stream", "add", "ORDERS", "orders.>", "--keep", "work")
    assert made.code == 0, made
    assert run(site, "agent1", "order_putter") == ["10 orders are stored, 0 were there already"]
    assert run(site, "agent2", "order_putter") == ["0 orders are stored, 10 were there already"]
    assert run(site, "agent3", "order_worker", "--orders", "10") == [
        "orders.new 5: order 4 has no address",
        "orders.new 10: order 9 has no address",
        "10 orders are done with",
    ]
    dead = site.run(MASTER, "qulo", "dead", "ls", "--stream", "ORDERS")
    assert len(dead.out.splitlines()) == 2, dead


STORIES: dict[str, Callable[[Cluster], None]] = {
    "publish": publish_and_subscribe,
    "subscribe": publish_and_subscribe,
    "request_reply": request_reply,
    "log_follower": log_follower,
    "host_metrics": host_metrics,
    "worker_group": worker_group,
    "blocking_client": blocking_client,
    "order_putter": orders,
    "order_worker": orders,
}


# One that needs no site: it starts a daemon of its own.
DEMO = "demo"


def test_every_example_has_a_story() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == STORIES.keys() | {DEMO}


def test_every_example_does_on_a_host_what_it_says(site: Cluster) -> None:
    for story in dict.fromkeys(STORIES.values()):  # in one site: as its programs, they do not mind each other
        story(site)


def test_the_demo_starts_a_daemon_of_its_own_and_leaves_nothing_behind(cluster: Cluster) -> None:
    done = cluster.run("agent1", *argv(cluster, "agent1", DEMO), timeout=60)
    assert done.code == 0, done
    assert done.out.endswith("demo: done; nothing was left behind\n")
    place = re.search(r"qulod -c (/tmp/qulo-\S+)/qulod.yaml", done.out)
    assert place is not None
    assert cluster.run("agent1", "test", "-e", place[1]).code == 1
