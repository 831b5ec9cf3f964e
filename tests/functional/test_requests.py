"""Requests and groups across hosts: one answer, one worker for each job, and a plain word when there is nobody."""

from __future__ import annotations

import json
import re

from tests.functional import programs
from tests.functional.cluster import AGENTS, CLIENT, MASTER, Cluster
from tests.functional.test_messages import keys
from tests.functional.waiting import until


def test_a_request_is_answered_by_a_program_on_another_host(site: Cluster) -> None:
    worker = programs.start(site, "agent2", "worker", "agent2")
    for host, key in ((MASTER, ()), ("agent1", ()), ("agent2", ()), (CLIENT, keys(site))):
        asked = site.run(host, "qulo", "request", *key, "service.where")
        assert (asked.code, asked.out) == (0, "agent2\n"), asked

    refused = site.run("agent1", "qulo", "request", "service.refuse", "tea")
    assert (refused.code, refused.out) == (1, "")
    assert "ValueError: no tea here" in refused.err

    assert worker.interrupt().code == 0
    nobody = site.run("agent1", "qulo", "request", "service.where")
    assert (nobody.code, nobody.out) == (4, "")
    assert "nobody answers requests on service.where" in nobody.err


def test_each_job_goes_to_one_worker_of_the_group_wherever_it_is(site: Cluster) -> None:
    jobs = [str(number) for number in range(300)]
    places = (MASTER, "agent2", "agent3")
    workers = [programs.start(site, host, "worker", host) for host in places]
    many = site.run("agent1", "qulo", "request", "service.where", "--many", "--count", "3")
    assert sorted(many.out.split()) == sorted(places)

    listener = programs.start(site, "agent1", "listener", str(len(jobs)), "done.>")
    published = site.run("agent1", "qulo", "pub", "jobs.digest", "--lines", stdin="\n".join(jobs))
    assert published.code == 0, published
    done = [json.loads(line) for line in listener.end().out.splitlines()[1:]]
    assert sorted((job for _, job in done), key=int) == jobs
    assert {topic for topic, _ in done} == {f"done.{host}" for host in places}
    assert [worker.interrupt().code for worker in workers] == [0, 0, 0]


def test_ping_counts_the_hosts_and_names_the_one_that_is_missing(site: Cluster) -> None:
    ping = site.run(MASTER, "qulo", "ping", "--expect", "3")
    assert ping.code == 0, ping
    assert sorted(re.findall(r"^(agent\d) time=[\d.]+ ms$", ping.out, re.MULTILINE)) == list(AGENTS)

    site.signal("agent3", "KILL")
    until(lambda: site.pid("agent3") is None)
    ping = site.run("agent1", "qulo", "ping", "--expect", "3", "--timeout", "1", "--json")
    assert ping.code == 3, ping
    lines = [json.loads(line) for line in ping.out.splitlines()]
    assert {line["name"] for line in lines if line["type"] == "reply"} == {"agent1", "agent2"}
    assert [line["name"] for line in lines if line["type"] == "missing"] == ["agent3"]
    assert lines[-1]["type"] == "statistics"
    assert (lines[-1]["replies"], lines[-1]["missing"], lines[-1]["expected"]) == (2, 1, 3)
