"""What the stories rely on: each operation of `Cluster` does what it says, in either environment."""

from __future__ import annotations

import json

import pytest

from tests.functional.cluster import AGENTS, CLIENT, HOSTS, MASTER, PROGRAM, Cannot, Cluster, Running
from tests.functional.waiting import until

AGENT = AGENTS[0]

# Says ten times a second that it is there; "late" when it was not for a second.
_TICK = """
import time
last = time.monotonic()
while True:
    now = time.monotonic()
    print("late" if now - last > 1 else "tick", flush=True)
    last = now
    time.sleep(0.1)
"""

# Echoes whatever comes over one TCP connection, and says where it listens.
_ECHO = """
import socket
with socket.create_server(("0.0.0.0", 7399)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(1000):
        connection.sendall(data)
"""

# A byte to the echo and back, five times a second; "lost" when nothing comes back in that time.
_ASK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7399), 5) as connection:
    connection.settimeout(0.2)
    print("ready", flush=True)
    while True:
        began = time.monotonic()
        connection.sendall(b"x")
        try:
            print("back" if connection.recv(1) else "closed", flush=True)
        except TimeoutError:
            print("lost", flush=True)
        time.sleep(max(0, began + 0.2 - time.monotonic()))
"""


def _ticks(cluster: Cluster, host: str) -> Running:
    return cluster.start(host, "python3", "-c", _TICK)


# -- the daemons


@pytest.mark.parametrize("host", [MASTER, AGENT])
def test_a_daemon_is_launched_found_and_ended(cluster: Cluster, host: str) -> None:
    assert cluster.pid(host) is None
    done = cluster.launch(host)
    assert (done.code, done.out) == (0, "")
    pid = cluster.pid(host)
    assert cluster.control(host, "status").out.startswith(f"{PROGRAM[host]}: running, PID {pid}\n")
    assert cluster.log(host)
    assert cluster.control(host, "stop").code == 0
    assert cluster.pid(host) is None
    assert cluster.control(host, "status").code == 3


def test_a_signal_reaches_the_daemon(cluster: Cluster) -> None:
    cluster.launch(AGENT)
    cluster.signal(AGENT, "KILL")
    until(lambda: cluster.pid(AGENT) is None)
    with pytest.raises(AssertionError, match="no daemon runs on agent1"):
        cluster.signal(AGENT, "KILL")


def test_settings_are_added_to_a_configuration_that_works(cluster: Cluster) -> None:
    assert cluster.launch(MASTER, "-t").code == 0
    cluster.configure(MASTER, log_level="debug")
    shown = cluster.launch(MASTER, "-T").out
    assert "log_level: debug" in shown
    assert "curve: on" in shown
    cluster.configure(MASTER, heartbeat="soon")
    assert cluster.launch(MASTER, "-t").code == 78


# -- files and programs


def test_a_command_has_its_host_s_hub_and_its_input(cluster: Cluster) -> None:
    for host in HOSTS:
        done = cluster.run(host, "sh", "-c", 'cat; echo "$QULO_URL"; echo oops >&2; exit 7', stdin="in\n")
        assert (done.code, done.err) == (7, "oops\n")
        expected = cluster.url(MASTER) if host == CLIENT else f"ipc://{cluster.path(host, 'socket')}"
        assert done.out == f"in\n{expected}\n"
    assert cluster.run(CLIENT, "cat").out == ""


def test_a_program_goes_on_until_it_ends_or_is_interrupted(cluster: Cluster) -> None:
    program = cluster.start(AGENT, "sh", "-c", "echo one; echo two; echo three >&2; exit 5")
    assert program.line() == "one"
    done = program.end()
    assert (done.code, done.out, done.err) == (5, "one\ntwo\n", "three\n")
    with pytest.raises(AssertionError):
        _ticks(cluster, AGENT).end(timeout=0.3)
    ticks = _ticks(cluster, AGENT)
    assert ticks.line() == "tick"
    done = ticks.interrupt()
    assert done.code != 0
    assert "KeyboardInterrupt" in done.err
    with pytest.raises(AssertionError):
        cluster.start(AGENT, "sleep", "60").line(timeout=0.3)


def test_files_are_written_read_and_may_be_missing(cluster: Cluster) -> None:
    path = cluster.path(AGENT, "data") + "/a"
    assert cluster.read(AGENT, path) == ""
    cluster.write(AGENT, path, "größer\n")
    assert cluster.read(AGENT, path) == "größer\n"
    assert cluster.run(AGENT, "cat", path).out == "größer\n"
    assert cluster.read(AGENTS[1], cluster.path(AGENTS[1], "data") + "/a") == ""
    assert "publish.py" in cluster.run(AGENT, "ls", cluster.path(AGENT, "examples")).out


def test_the_syslog_is_a_host_s_own(cluster: Cluster) -> None:
    cluster.syslog(AGENT)  # where there is none nothing may be written into the machine's
    cluster.run(AGENT, "logger", "-t", "probe", "hello")
    until(lambda: "probe: hello" in cluster.syslog(AGENT))
    assert "probe" not in cluster.syslog(MASTER)


def test_a_program_on_the_client_dials_the_master_with_its_keys(site: Cluster) -> None:
    keys = ("--server-key", site.path(CLIENT, "server_key"), "--key", site.path(CLIENT, "key"))
    assert site.run(CLIENT, "qulo", "pub", "a.b", "1", *keys).code == 0
    assert site.run(CLIENT, "qulo", "pub", "a.b", "1", "--timeout", "0.3").code != 0


def test_an_agent_can_be_a_hub_for_others(site: Cluster) -> None:
    site.control(AGENT, "stop")
    site.configure(AGENT, **site.listening(AGENT))
    assert site.launch(AGENT).code == 0
    keys = ("--key", site.path(CLIENT, "key"), "--server-key")
    public = site.read(AGENT, site.path(AGENT, "data") + "/agent.pub")
    theirs = site.path(CLIENT, "data") + "/agent1.pub"
    site.write(CLIENT, theirs, public)
    accepted = site.path(AGENT, "data") + "/accepted"
    site.run(AGENT, "mkdir", "-p", accepted)
    site.write(AGENT, f"{accepted}/client.pub", site.read(CLIENT, site.path(CLIENT, "data") + "/client.pub"))
    assert site.control(AGENT, "reload").code == 0
    done = site.run(CLIENT, "qulolist", "--local", "--json", "-u", site.url(AGENT), *keys, theirs)
    assert done.code == 0, done


# -- what happens to hosts


def test_a_paused_host_stands_still_with_everything_on_it(cluster: Cluster) -> None:
    ticks, others = _ticks(cluster, AGENT), _ticks(cluster, AGENTS[1])
    assert ticks.line() == "tick"
    cluster.pause(AGENT)
    for _ in range(15):
        others.line()  # elsewhere time goes by
    cluster.resume(AGENT)
    until(lambda: ticks.line() == "late")


def test_a_partition_lets_nothing_through_and_closes_nothing(cluster: Cluster) -> None:
    cluster.partition(AGENTS[2])  # says first of all whether it can be done here
    cut, whole = _conversation(cluster, AGENT), _conversation(cluster, AGENTS[1])
    cluster.partition(AGENT)
    until(lambda: cut.line() == "lost")
    assert (cut.line(), cut.line()) == ("lost", "lost")
    for _ in range(3):
        assert whole.line() == "back"
    cluster.heal(AGENT)
    until(lambda: cut.line() == "back")  # by the same connection


def _conversation(cluster: Cluster, host: str) -> Running:
    assert cluster.start(host, "python3", "-c", _ECHO).line() == "ready"
    ask = cluster.start(CLIENT, "python3", "-c", _ASK, host)
    assert (ask.line(), ask.line()) == ("ready", "back")
    return ask


def test_dropping_loses_that_share_of_packets(cluster: Cluster) -> None:
    cluster.drop(AGENT, 50)
    ask = cluster.run(CLIENT, "python3", "-c", _DATAGRAMS, "ask", stdin=_start_datagrams(cluster))
    arrived = int(ask.out)
    # Two chances of one half: a quarter of a thousand, and six standard deviations of that.
    assert 160 < arrived < 340
    cluster.heal(AGENT)


# 1,000 datagrams there and back; how many came back. "serve" says its address first.
_DATAGRAMS = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    if sys.argv[1] == "serve":
        udp.bind(("0.0.0.0", 7398))
        print("ready", flush=True)
        while True:
            udp.sendto(*udp.recvfrom(100))
    udp.settimeout(1)
    host, back = sys.stdin.read(), 0
    for number in range(1000):
        udp.sendto(b"x", (host, 7398))
    try:
        while udp.recv(100):
            back += 1
    except TimeoutError:
        print(back)
"""


def _start_datagrams(cluster: Cluster) -> str:
    assert cluster.start(AGENT, "python3", "-c", _DATAGRAMS, "serve").line() == "ready"
    return AGENT


def test_a_replaced_host_has_another_address_and_the_same_data(cluster: Cluster) -> None:
    mark = cluster.path(MASTER, "data") + "/mark"
    cluster.write(MASTER, mark, "mine")
    before = cluster.run(MASTER, "hostname", "-I").out
    cluster.replace(MASTER)
    assert cluster.run(MASTER, "hostname", "-I").out != before
    assert cluster.read(MASTER, mark) == "mine"
    assert cluster.pid(MASTER) is None
    assert cluster.launch(MASTER).code == 0
    assert cluster.launch(AGENT).code == 0
    until(lambda: _state(cluster, AGENT) == "up")


def _state(cluster: Cluster, host: str) -> str | None:
    listed = cluster.run(MASTER, "qulolist", "--json", "--agents")
    peers = [json.loads(line) for line in listed.out.splitlines()]
    return next((peer["state"] for peer in peers if peer.get("name") == host), None)


# -- and afterwards


def test_a_reset_leaves_nothing_of_what_was(site: Cluster) -> None:
    for host in HOSTS:
        site.write(host, site.path(host, "data") + "/mark", "here")
        _ticks(site, host).line()
    site.pause(AGENT)
    try:
        site.drop(AGENTS[1], 100)
    except Cannot:
        assert site.environment == "host"
    logs = {host: site.log(host) for host in PROGRAM if host != AGENT}
    assert all(logs.values())
    site.reset()
    for host in HOSTS:
        assert site.read(host, site.path(host, "data") + "/mark") == ""
    for host in PROGRAM:
        assert site.pid(host) is None
        assert site.log(host) == ""
    for host in (MASTER, *AGENTS[:2]):  # the paused one, and the one without a network
        assert site.launch(host).code == 0
    until(lambda: _state(site, AGENTS[0]) == _state(site, AGENTS[1]) == "up")
