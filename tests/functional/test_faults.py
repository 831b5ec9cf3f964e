"""Something happens to a host while everybody talks to everybody: nothing is missing in silence.

The host of the fault is a publisher's and a subscriber's at once, as every other one: what it says, what it hears
and what passes by are checked together.
"""

from __future__ import annotations

import pytest

from tests.functional.cluster import AGENTS, MASTER, SESSION_TIMEOUT, Cluster
from tests.functional.presence import Watch
from tests.functional.talk import Report, Talk, check
from tests.functional.waiting import until

VICTIM = "agent1"


def assert_nothing_was_missed(reports: list[Report]) -> None:
    """Not even a Gap: all could be sent again."""
    for report in reports:
        assert not report.reasons, f"{report.name} had gaps: {report.reasons}"


def assert_nobody_else_doubts(reports: list[Report], host: str) -> None:
    """Only a program whose own hub lost its memory is told that an outcome is unknown."""
    assert {report.name for report in reports if report.unknown} <= {host}


def kill_and_launch(cluster: Cluster, host: str) -> None:
    """As if the machine's memory had failed: no goodbye, and a new start."""
    cluster.signal(host, "KILL")
    until(lambda: cluster.pid(host) is None)
    launched = cluster.launch(host)
    assert launched.code == 0, launched


def test_an_agent_is_killed_and_launched_again(site: Cluster) -> None:
    talk = Talk(site)
    kill_and_launch(site, VICTIM)
    reports = talk.end()
    check(reports)
    assert_nobody_else_doubts(reports, VICTIM)
    # An agent may have acknowledged what it had not forwarded: whoever would have got that is told.
    assert all("restart" in report.reasons for report in reports)


def be_patient(cluster: Cluster, *hosts: str) -> None:
    """What is a moment to us must be one to these hosts as well, however slow the machine is just now."""
    for host in hosts:
        cluster.configure(host, session_timeout="30s")
        assert cluster.control(host, "reload").code == 0
    until(lambda: all("reloaded session_timeout: 3s -> 30s\n" in cluster.log(host) for host in hosts))


@pytest.mark.parametrize("how", ["paused", "cut off"])
@pytest.mark.parametrize("long", [False, True], ids=["for a moment", "until its session is over"])
def test_an_agent_is_away_and_comes_back(site: Cluster, how: str, long: bool) -> None:
    silence, again = (site.pause, site.resume) if how == "paused" else (site.partition, site.heal)
    if not long:
        be_patient(site, MASTER, VICTIM)
    talk = Talk(site)
    watch = Watch(site)
    silence(VICTIM)
    watch.until(VICTIM, "down" if long else "suspect", timeout=SESSION_TIMEOUT + 10)
    again(VICTIM)
    watch.end()
    reports = talk.end()
    check(reports)
    if long:
        assert_nobody_else_doubts(reports, VICTIM)
        assert all("restart" in report.reasons for report in reports if report.name != VICTIM)
    else:
        assert_nobody_else_doubts(reports, "")
        assert_nothing_was_missed(reports)


def test_the_master_stands_still_for_a_moment_and_goes_on(site: Cluster) -> None:
    be_patient(site, MASTER)
    talk = Talk(site)
    site.pause(MASTER)
    until(lambda: all("lost tcp://" in site.log(agent) for agent in AGENTS))
    site.resume(MASTER)
    reports = talk.end()
    check(reports)
    assert_nobody_else_doubts(reports, "")
    assert_nothing_was_missed(reports)


def test_the_master_is_killed_and_launched_again(site: Cluster) -> None:
    talk = Talk(site)
    kill_and_launch(site, MASTER)
    reports = talk.end()
    check(reports)
    assert_nobody_else_doubts(reports, MASTER)
    assert all("restart" in report.reasons for report in reports)


def test_another_host_with_another_address_takes_the_masters_name(site: Cluster) -> None:
    talk = Talk(site, AGENTS)
    site.replace(MASTER)
    launched = site.launch(MASTER)
    assert launched.code == 0, launched
    reports = talk.end()
    check(reports)
    assert_nobody_else_doubts(reports, MASTER)
    assert all("restart" in report.reasons for report in reports)


def test_ten_thousand_messages_pass_where_every_tenth_packet_is_lost(site: Cluster) -> None:
    site.drop(VICTIM, 10)
    talk = Talk(site, least=3_400)  # of three: more than ten thousand
    reports = talk.end()
    site.heal(VICTIM)
    assert sum(report.sent for report in reports) >= 10_000
    check(reports)
    assert_nobody_else_doubts(reports, "")
