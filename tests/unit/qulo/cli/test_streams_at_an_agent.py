"""The verbs about streams on an agent's host, with its master there and away: real daemons."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.unit.qulo.conftest import BIN, PATIENCE, until
from tests.unit.qulo.test_roles import Role, free_port
from tests.unit.qulo.test_roles import roles as roles  # a fixture  # noqa: PLC0414


@dataclass(frozen=True, slots=True)
class Host:
    """An agent's host, and its master."""

    agent: Role
    master: Role

    def run(self, *argv: str, on: Role | None = None) -> tuple[int, str, str]:
        """A command line there."""
        done = subprocess.run(
            ("qulo", *argv),
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": str(self.agent.place),
                "QULO_URL": (on or self.agent).url,
            },
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=2 * PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def stop_master(self) -> None:
        assert self.master.run("-s", "stop")[0] == 0
        until(lambda: self.run("stream", "ls", "--timeout", "0.5")[0] == 69)

    def start_master(self) -> None:
        self.master.start()
        until(lambda: self.run("stream", "ls", "--timeout", "0.5")[0] == 0)


@pytest.fixture
def host(roles: dict[str, Role]) -> Iterator[Host]:
    """Both run, and the stream ORDERS is there."""
    ports = [free_port(), free_port()]
    roles["qmaster"].configure(listen=f"tcp://127.0.0.1:{ports[0]}", publish=f"tcp://127.0.0.1:{ports[1]}")
    roles["qagent"].configure(master=f"tcp://127.0.0.1:{ports[0]}")
    found = Host(roles["qagent"], roles["qmaster"])
    found.agent.start()
    found.start_master()
    assert found.run("stream", "add", "ORDERS", "orders.>") == (0, "", "")
    yield found
    assert "Traceback" not in found.agent.log + found.master.log


def test_what_is_put_while_the_master_is_away_is_at_the_agent_and_goes_up(host: Host) -> None:
    assert host.run("put", "orders.a", "1") == (0, "ORDERS 1\n", "")
    host.stop_master()
    said = "orders.a at agent: on this host's disk until the master is back\n"
    assert host.run("put", "orders.a", "2") == (0, said, "")
    assert json.loads(host.run("put", "orders.a", "3", "--json")[1])["at"] == "agent"
    assert host.run("put", "nowhere.a", "refused later")[0] == 0
    code, out, _err = host.run("put", "orders.a", "x", "--require", "master")
    assert (code, out) == (69, "")
    assert host.run("stream", "ls", "--timeout", "1") == (69, "", "qulo: this agent has no connection to its master\n")
    host.start_master()
    until(lambda: host.run("stream", "get", "ORDERS")[1] == "1 orders.a 1\n2 orders.a 2\n3 orders.a 3\n")

    # What the master would not take is listed here, and goes up again when it would.
    until(lambda: host.run("dead", "ls", "--agent")[0] == 0)
    (line,) = host.run("dead", "ls", "--agent", "--json")[1].splitlines()
    letter = json.loads(line)
    assert (letter["stream"], letter["topic"]) == ("", "nowhere.a")
    assert "no stream stores nowhere.a" in letter["reason"]
    assert "  spool " in host.run("dead", "ls", "--agent")[1]
    assert host.run("dead", "ls")[0] == 4
    assert host.run("stream", "add", "NOWHERE", "nowhere.>")[0] == 0
    assert host.run("dead", "requeue", "--all", "--agent") == (0, "", "qulo: 1 given back\n")
    until(lambda: host.run("stream", "get", "NOWHERE")[1] == "1 nowhere.a refused later\n")
    assert host.run("dead", "ls", "--agent")[0] == 4


def test_streams_are_administered_and_consumed_from_an_agent_s_host(host: Host) -> None:
    assert host.run("put", "orders.a", "1")[0] == 0
    assert host.run("consume", "ORDERS", "--group", "g", "--count", "1") == (0, "1 orders.a 1\n", "")
    assert host.run("sub", "orders.>", "--since", "1h", "--count", "1") == (0, "orders.a 1\n", "")
    assert host.run("stream", "rm", "ORDERS", "--yes") == (0, "", "")


def test_the_doctor_finds_a_store_that_ends_before_what_was_acknowledged(host: Host) -> None:
    backup = str(host.master.place / "backup.db")
    assert host.run("put", "orders.a", "1")[0] == 0
    assert host.run("stream", "backup", backup, on=host.master)[0] == 0
    assert host.run("put", "orders.a", "2")[0] == 0
    assert host.run("doctor", on=host.master)[0] == 0
    assert host.run("doctor")[0] == 0  # the agent's spool
    host.stop_master()
    code, out, err = host.run("stream", "restore", backup, "-c", str(host.master.config))
    assert (code, err) == (0, "")
    assert out.endswith("now start qmaster\n")
    host.start_master()
    until(lambda: host.run("doctor", on=host.master)[0] == 1)
    (wrong,) = [line for line in host.run("doctor", on=host.master)[1].splitlines() if line.startswith("wrong")]
    why = "ORDERS ends with 1, but 2 was acknowledged through host-a: 1 lost, or a backup was restored"
    assert wrong.startswith(f"wrong    {why}. ")
