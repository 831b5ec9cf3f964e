"""Letting hosts and programs in, with the real executables: from `qulo token new` to revocation."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qulo
from qulo.net import curve
from qulo.net.token import decode
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.conftest import BIN
from tests.unit.qulo.conftest import until as until_now
from tests.unit.qulo.site import until
from tests.unit.qulo.test_accounts import hand_over, ordinary
from tests.unit.qulo.test_roles import Role, free_port

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="another user's program can be started by root only")

# What `qulo token new` says beside the token when the master listens on loopback, as it does here.
ALONE = "qulo: this token's address reaches this host only. For others let the master listen on an address"


class Place:
    """A master and agents in one directory, with CURVE as by default."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.master = Role(path, "qmaster", {"curve": "on", "log_level": "debug"})
        self.master.configure()
        self.agents: dict[str, Role] = {}

    def agent(self, directory: str, **settings: str) -> Role:
        """An agent that knows nothing of any master."""
        (self.path / directory).mkdir()
        role = Role(self.path / directory, "qagent", {"curve": "on", "log_level": "debug", **settings})
        role.configure()
        self.agents[directory] = role
        return role

    def qulo(self, *argv: str, program: str = "qulo", stdin: str = "", url: str | None = None) -> tuple[int, str, str]:
        """A command on the master's host."""
        done = subprocess.run(
            [BIN / program, *argv],
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), "QULO_URL": url or self.master.url},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def token(self, *argv: str) -> str:
        """What `qulo token new` prints."""
        code, out, err = self.qulo("token", "new", *argv)
        assert (code, err.partition(" of the network")[0]) == (0, ALONE)
        return out.strip()

    def keys(self) -> dict[str, str]:
        """Name or fingerprint → state."""
        rows = [json.loads(line) for line in self.qulo("keys", "ls", "--json")[1].splitlines()]
        return {row["name"] or row["fingerprint"]: row["state"] for row in rows}

    def agents_up(self) -> list[str]:
        """The agents that `qulolist` shows as up; one that was restarted has an older line, down, as well."""
        rows = [json.loads(line) for line in self.qulo("--json", program="qulolist")[1].splitlines()]
        return [row["name"] for row in rows if (row.get("kind"), row.get("state")) == ("agent", "up")]

    def audited(self) -> list[dict[str, Any]]:
        """The master's audit log."""
        return [json.loads(line) for line in (self.path / "qmaster.audit.log").read_text().splitlines()]

    def end(self) -> None:
        """Nothing of it is left."""
        for role in (self.master, *self.agents.values()):
            role.end()


@pytest.fixture
def place(short_place: Path) -> Iterator[Place]:
    found = Place(short_place)
    yield found
    found.end()


def with_master(place: Place) -> Place:
    place.master.start()
    return place


def join(agent: Role, *argv: str, stdin: str = "", patience: float | None = None) -> tuple[int, str]:
    """`qagent --join …`: exit code and stderr; it has at most `patience` seconds for getting in."""
    command: list[Any] = [BIN / "qagent", "-c", agent.config, *argv]
    if patience is not None:
        impatient = f"import sys; from qulo import qagent; from qulo.net import join; join.PATIENCE = {patience}; "
        command[:1] = [sys.executable, "-c", impatient + "sys.exit(qagent.main())"]
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": str(agent.place)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines(keepends=True) if " no syslog at " not in line]
    return done.returncode, "".join(told)


async def exchange(place: Place, agent: Role) -> None:
    """A message each way."""
    async with (
        qulo.connect(place.master.url) as above,
        qulo.connect(agent.url) as below,
        above.subscribe("up") as up,
        below.subscribe("down") as down,
    ):
        await below.publish("up", 1)
        assert (await up.next(5)).body == 1  # type: ignore[union-attr]
        await above.publish("down", 2)
        assert (await down.next(5)).body == 2  # type: ignore[union-attr]


def test_one_command_on_the_master_and_one_on_the_host(place: Place) -> None:
    """The whole way, up to the last restart; and no file of all these has a secret in it that is not a key's own."""
    text = with_master(place).token("--name", "web1")
    agent = place.agent("a")
    assert join(agent, "--join", text) == (0, "")
    until_now(lambda: place.agents_up() == ["web1"])
    _run(exchange(place, agent))

    shown = dict(line.partition(" ")[::2] for line in agent.run("-T")[1].splitlines() if not line.startswith("#"))
    kept = f"{agent.place}/qagent/joined.json"
    for key, value in (("master:", place.master.addresses["listen"]), ("name:", "web1")):
        assert value in shown[key]
        assert shown[key].endswith(f"# {kept}")
    assert shown["master_key:"].split()[0] == f"{agent.place}/qagent/joined.pub"

    assert agent.run("-s", "reload")[0] == 0
    until_now(lambda: "reloaded" in agent.log)
    assert re.search(r"reloaded \S+: no changes", agent.log)
    assert "NEEDS A RESTART" not in agent.log

    assert agent.run("-s", "stop")[0] == 0
    assert agent.run() == (0, "", "")  # without --join
    until_now(lambda: place.agents_up() == ["web1"])
    _run(exchange(place, agent))

    # The audit log is rotated as the log is.
    os.rename(place.path / "qmaster.audit.log", place.path / "old.audit.log")
    assert place.master.run("-s", "reopen")[0] == 0
    until_now((place.path / "qmaster.audit.log").exists)
    assert place.qulo("keys", "revoke", "web1") == (0, "", "")
    until_now(lambda: [(line["verb"], line["on"]) for line in place.audited()] == [("keys.revoke", "web1")])
    old = [json.loads(line) for line in (place.path / "old.audit.log").read_text().splitlines()]
    assert [(line["verb"], line["allowed"]) for line in old] == [("token.new", True), ("enrol", True)]

    own = [place.path / "qmaster" / "master.key", agent.place / "qagent" / "agent.key"]
    secrets = [text, *(key.secret.decode() for key in (decode(text).key, *map(curve.load_key, own)))]
    for path in place.path.rglob("*"):
        if path.is_file() and path.suffix != ".key":
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


def test_every_bad_token_is_one_line_an_exit_code_and_no_daemon(place: Place) -> None:
    with_master(place)
    agent, first = place.agent("a"), place.agent("first")
    good, twice = place.token(), place.token("--uses", "2")
    expired = place.token("--expires", "1s")
    made = time.monotonic()
    taken = place.token("--name", "web1")  # and web1 gets in by another one before
    nowhere = place.token("--address", f"tcp://127.0.0.1:{free_port()}")
    first.configure(name="web1")
    assert join(first, "--join", "-", stdin=f"{twice}\n") == (0, "")
    until_now(lambda: place.agents_up() == ["web1"])
    second = place.agent("second", name="web2")
    assert join(second, "--join", twice) == (0, "")
    altered = good[:30] + ("A" if good[30] != "A" else "B") + good[31:]
    until_now(lambda: time.monotonic() > made + 1.0)
    again = "`qulo token new` on the master"
    for argv, stdin, code, what in (
        (altered, "", 64, f"this token is damaged: copy it whole, or make another one ({again})"),
        ("", "", 64, f"this is not a token: one begins with qulo1_ ({again} prints one)"),
        ("-", "", 64, f"this is not a token: one begins with qulo1_ ({again} prints one)"),
        (twice, "", 77, again),
        (expired, "", 77, again),
        (taken, "", 77, "the name web1 is taken by another key: on the master, `qulo keys revoke web1` frees it"),
        (nowhere, "", 69, "is the master running, and can this host reach it there?"),
    ):
        told = join(agent, "--join", argv, stdin=stdin, patience=0.5)
        assert told[0] == code, (argv, told)
        assert what in told[1]
        assert told[1].startswith("qagent: ")
        assert told[1].count("\n") == 1
        assert not agent.pid
        assert "Traceback" not in agent.log
    assert not list((agent.place / "qagent").glob("joined*"))
    assert place.keys() == {"web1": "accepted", "web2": "accepted"}
    assert join(agent, "--join", good) == (0, "")  # the altered ones have not used it up


def test_an_agent_without_a_token_is_pending_until_somebody_accepts_it(place: Place) -> None:
    with_master(place)
    pinned = f"{place.path}/qmaster/master.pub"
    agent = place.agent("a", master=place.master.addresses["listen"], master_key=pinned, name="host-a")
    agent.start()  # it never exits for this
    mine = curve.fingerprint(curve.load_public(agent.place / "qagent" / "agent.pub"))
    typed = f"qulo keys accept {mine} --name host-a"
    until_now(lambda: f"on its host run `{typed}`" in agent.log)
    code, out, _ = place.qulo("keys", "ls")
    assert (code, out.split()[:4]) == (0, ["pending", mine, "from", "127.0.0.1,"])
    assert f"an unknown key asks to be let in: {mine}, from 127.0.0.1; `qulo keys accept {mine}" in place.master.log
    assert place.qulo(*typed.split()[1:]) == (0, "", "")
    until_now(lambda: place.agents_up() == ["host-a"])
    _run(exchange(place, agent))
    assert "ERROR" not in agent.log + place.master.log


def test_key_files_that_cannot_be_used_are_said_with_what_to_type(place: Place) -> None:
    with_master(place)
    text = place.token()
    agent = place.agent("a")
    path = agent.place / "qagent" / "agent.key"
    curve.make_key(path)
    path.chmod(0o644)
    told = f"qagent: {path}: others can read this secret key; run: chmod 600 {path}\n"
    assert join(agent, "--join", text) == (78, told)
    assert not agent.pid
    path.chmod(0o600)
    assert join(agent, "--join", text)[0] == 0
    assert agent.run("-s", "stop")[0] == 0
    path.chmod(0o640)
    assert agent.run() == (78, "", told)
    path.chmod(0o600)
    (agent.place / "qagent" / "joined.pub").write_text("nonsense")
    code, _, err = agent.run()
    assert (code, "joined.pub: not a public key" in err) == (78, True)
    (agent.place / "qagent" / "joined.pub").unlink()
    code, _, err = agent.run()
    assert code == 78
    assert "this host has not joined a master" in err
    assert "On the master run `qulo token new`, here `qagent --join TOKEN`" in err


def test_a_bad_file_among_the_accepted_keys_keeps_the_master_from_starting_and_is_named(place: Place) -> None:
    accepted = place.path / "qmaster" / "accepted"
    accepted.mkdir(parents=True, mode=0o700)
    (accepted / "web1.pub").write_text("nonsense")
    code, _, err = place.master.run()
    assert (code, err.count("\n")) == (78, 1)
    assert err.startswith(f"qmaster: {accepted}/web1.pub: not a public key")
    assert not place.master.pid


def test_a_second_key_under_a_taken_name_is_an_error_for_syslog(place: Place) -> None:
    """Errors go to syslog; daemon/test_logs.py has that."""
    text = with_master(place).token("--name", "web1")
    join(place.agent("a"), "--join", text)
    other = place.agent("b", name="web1")
    code, err = join(other, "--join", place.token())
    assert (code, "the name web1 is taken by another key" in err) == (77, True)
    assert re.search(
        r"ERROR qulo\.net\.keys: a second key \([0-9a-f]{32}\) asks for the name web1: refused", place.master.log
    )


def test_where_accepted_keys_cannot_be_written_nobody_gets_in_and_it_is_said(place: Place) -> None:
    place.master.configure(accepted_keys="/dev/null/accepted")
    text = with_master(place).token()
    agent = place.agent("a")
    code, err = join(agent, "--join", text)
    assert code == 73
    assert "qagent: cannot write /dev/null/accepted/" in err
    assert place.keys() == {}
    assert len(place.qulo("token", "ls")[1].splitlines()) == 1  # it is good for one as before


# -- other users of the master's host, and programs elsewhere


@AS_ROOT
def test_an_ordinary_user_of_the_masters_host_administers_nothing(place: Place) -> None:
    place.path.chmod(0o755)
    place.master.configure(local_mode='"0666"')
    with_master(place)
    uid = pwd.getpwnam("nobody").pw_uid
    commands = [
        ("keys", "ls"),
        ("keys", "accept", "0123456789", "--name", "x"),
        ("token", "new"),
        ("auth", "explain", "a", "publish", "t"),
    ]
    for argv in commands:
        done = ordinary("qulo", "--url", place.master.url, *argv, HOME="/nonexistent")
        assert (done.returncode, done.stdout) == (77, ""), done.stderr
        assert "only root and the hub's own user administer it, on its host over ipc://" in done.stderr
    assert ordinary("qulo", "--url", place.master.url, "pub", "t", "x", HOME="/nonexistent").returncode == 0
    until_now(lambda: len(place.audited()) == len(commands))
    for line in place.audited():
        assert (line["who"], line["verb"], line["allowed"]) == ("qmaster/local", "request", False)
        assert line["on"].startswith("$qulo.local.admin.")
        assert line["address"].startswith("ipc, user ")
    assert uid != 0


def test_a_users_programs_get_in_with_one_command(place: Place) -> None:
    text = with_master(place).token("--name", "ada")
    place.path.chmod(0o755)
    home = hand_over(place.path / "home")
    none = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = ordinary("qulo", "join", text, **none)
    assert (done.returncode, done.stdout) == (0, f"joined as ada: {place.master.addresses['listen']}\n"), done.stderr
    kept = home / ".local" / "share" / "qulo"
    assert sorted(path.name for path in kept.iterdir()) == ["client.json", "client.key", "client.pub"]
    assert kept.stat().st_mode & 0o777 == 0o700

    async def story() -> None:
        async with qulo.connect(place.master.url) as bus, bus.subscribe("t") as sub:
            published = await asyncio.to_thread(lambda: ordinary("qulo", "pub", "t", "x", **none))
            assert (published.returncode, published.stderr) == (0, "")
            assert (await sub.next(5)).body == b"x"  # type: ignore[union-attr]

    if os.getuid() == 0:  # else a hub of the developer's own may be found before
        _run(story())


# -- permissions


def test_new_permissions_hold_from_the_reload_on_for_those_who_are_connected(place: Place) -> None:
    with_master(place)
    rules = '[{allow: [publish, subscribe], names: ["qmaster/local"], topics: ["open.>"]}]'

    async def story() -> None:
        async with (
            qulo.connect(place.master.url) as here,
            here.subscribe("open.>") as kept,
            here.subscribe("t") as lost,
        ):
            await here.publish("open.1", 1)
            assert (await kept.next(5)).body == 1  # type: ignore[union-attr]
            place.master.configure(permissions=rules)
            assert (await asyncio.to_thread(place.master.run, "-s", "reload"))[0] == 0
            with pytest.raises(qulo.Denied, match="the hub's permissions have changed: no subscribe on t"):
                await lost.next(5)
            await here.publish("open.2", 2)
            await here.publish("closed", 3)
            assert (await kept.next(5)).body == 2  # type: ignore[union-attr]
            with pytest.raises(qulo.Denied, match="qmaster/local may not publish on closed"):
                await here.flush()
            await until(lambda: "permissions: 3 rules -> 1 rules" in place.master.log)

    _run(story())
    code, out, err = place.qulo("pub", "closed", "x")
    assert (code, out) == (77, "")
    assert "qmaster/local may not publish on closed: `qulo auth explain qmaster/local publish 'closed'`" in err
    assert place.qulo("pub", "open.x", "x")[0] == 0
    assert place.qulo("auth", "explain", "qmaster/local", "publish", "closed")[:2] == (77, "no: no rule allows it\n")
    until_now(lambda: {line["on"] for line in place.audited()} == {"t", "closed"})
    assert not [line for line in place.audited() if line["allowed"]]
