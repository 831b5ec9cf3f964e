"""`qulo stream`: a stream's life, what is in it, and what a new user types wrong."""

from __future__ import annotations

import json
import os
import pty
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import PATIENCE, Hub, running_qulod


def info(typed: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(typed("stream", "info", name, "--json").out)
    return found


def test_a_stream_is_made_shown_changed_and_removed(typed: Cli, orders: str) -> None:
    limits = ("--max-age", "7d", "--max-bytes", "1G", "--max-msgs", "5", "--dedupe", "1h", "--max-tries", "3")
    assert typed("stream", "add", "JOBS", "jobs.>", "work.*", "--keep", "work", *limits) == (0, "", "")
    made = info(typed, "JOBS")
    assert (made["topics"], made["keep"], made["max_tries"]) == (["jobs.>", "work.*"], "work", 3)
    assert (made["max_age"], made["max_bytes"], made["max_msgs"], made["dedupe"]) == (604800, 2**30, 5, 3600)
    assert typed("stream", "change", "JOBS", "--max-msgs", "7", "--max-age", "0") == (0, "", "")
    assert (info(typed, "JOBS")["max_msgs"], info(typed, "JOBS")["max_age"]) == (7, 0)
    shown = dict(line.split(maxsplit=1) for line in typed("stream", "info", "JOBS").out.splitlines())
    assert (shown["max_bytes"], shown["max_age"], shown["dedupe"]) == ("1G", "no limit", "1h")
    names = [line.split()[0] for line in typed("stream", "ls").out.splitlines()]
    assert names == ["JOBS", orders]
    assert [json.loads(line)["name"] for line in typed("stream", "ls", "--json").out.splitlines()] == names
    assert typed("stream", "rm", "JOBS", "--yes") == (0, "", "")
    assert typed("stream", "info", "JOBS").code == 4


def test_no_stream_says_how_to_make_one(typed: Cli) -> None:
    made = "qulo: there are no streams; `qulo stream add NAME TOPIC...` makes one\n"
    assert typed("stream", "ls") == (0, "", made)


def test_what_is_in_it_can_be_read_from_everywhere(typed: Cli, hub: Hub, orders: str) -> None:
    for number in range(1, 5):
        hub.bus.put(f"orders.{number % 2}", f"text {number}\33[2J")
    hub.bus.put("orders.value", {"t": 21.5}, {"key": "value"})
    lines = typed("stream", "get", orders).out.splitlines()
    assert lines[0] == "1 orders.1 text 1\\x1b[2J"
    assert lines[4] == '5 orders.value {"t": 21.5}'

    def numbers(*argv: str) -> list[int]:
        done = typed("stream", "get", orders, *argv)
        assert (done.code, done.err) == (0, "")
        return [int(line.split()[0]) for line in done.out.splitlines()]

    assert numbers("--seq", "3") == [3, 4, 5]
    assert numbers("--seq", "2", "--count", "2") == [2, 3]
    assert numbers("--since", "1h") == [1, 2, 3, 4, 5]
    assert sorted(numbers("--last")) == [3, 4, 5]
    assert numbers("--topic", "orders.0") == [2, 4]
    (line,) = typed("stream", "get", orders, "--json", "--seq", "5").out.splitlines()
    shown = json.loads(line)
    assert shown.pop("time").endswith("Z")
    assert shown == {"seq": 5, "topic": "orders.value", "body": {"t": 21.5}, "headers": {"key": "value"}}
    topics = [line.split()[::2] for line in typed("stream", "topics", orders).out.splitlines()]
    assert topics == [["2", "orders.0"], ["2", "orders.1"], ["1", "orders.value"]]
    assert typed("stream", "topics", orders, "nothing.>").code == 4
    assert typed("stream", "purge", orders, "--upto", "3", "--yes").out == "3 messages are removed\n"
    assert numbers() == [4, 5]
    assert typed("stream", "purge", orders, "--yes").out == "2 messages are removed\n"


def test_more_than_a_page_is_read_to_its_end(typed: Cli, hub: Hub, orders: str) -> None:
    assert hub.run("qulo", "put", "orders.many", "-l", stdin=b"x\n" * 2500).returncode == 0
    lines = typed("stream", "get", orders).out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 2501))
    assert len(typed("stream", "get", orders, "--count", "1200").out.splitlines()) == 1200


def test_a_group_is_shown_and_forgotten(typed: Cli, hub: Hub, orders: str) -> None:
    hub.bus.put("orders.a", b"x")
    with hub.bus.consume(orders, group="billing") as work:
        work.fetch(1, PATIENCE)
        (group,) = info(typed, orders)["groups"]
        assert (group["group"], group["consumers"], group["held"], group["pending"]) == ("billing", 1, 1, 1)
    assert "group        billing: consumers 0" in typed("stream", "info", orders).out
    done = typed("stream", "group", "rm", orders, "shipping")
    why = "ORDERS has no group 'shipping'; `qulo stream info ORDERS` lists them"
    assert done == (4, "", f"qulo: {why}\n")
    assert typed("stream", "group", "rm", orders, "billing") == (0, "", "")
    assert info(typed, orders)["groups"] == []


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("add",), "qulo stream add needs NAME"),
        (("add", "JOBS"), "qulo stream add needs TOPIC: what it stores"),
        (("add", "JOBS", "jobs..x"), "the pattern 'jobs..x' has an empty token"),
        (("add", "MY JOBS", "jobs.>"), "the stream's name 'MY JOBS' is not 1 to 64 of"),
        (("add", "JOBS", "orders.new"), "orders.new and orders.> of the stream ORDERS have topics in common"),
        (("add", "ORDERS", "jobs.>"), "there is a stream ORDERS already"),
        (("add", "JOBS", "jobs.>", "--max-age", "7x"), "expected a duration such as 500ms, 2s, 5m, 1h or 7d"),
        (("add", "JOBS", "jobs.>", "--max-bytes", "much"), "expected a size such as 65536, 64K, 4M or 1G"),
        (("add", "JOBS", "jobs.>", "--max-msgs", "-1"), "'-1' is not a whole number, 0 or more"),
        (("add", "JOBS", "jobs.>", "--keep", "all"), "argument --keep: invalid choice: 'all'"),
        (("add", "JOBS", "jobs.>", "--upto", "3"), "qulo stream add takes no --upto"),
        (("change", "ORDERS"), "qulo stream change needs what to change"),
        (("ls", "ORDERS"), "qulo stream ls takes no 'ORDERS'"),
        (("get", "ORDERS", "--seq", "3", "--last"), "argument --last: not allowed with argument --seq"),
        (("get", "ORDERS", "--seq", "0"), "'0' is not a whole number, 1 or more"),
        (("group", "ORDERS", "g"), "qulo stream group needs `rm NAME GROUP`"),
        (("group", "rm", "ORDERS"), "qulo stream group rm needs GROUP"),
        (("delete", "ORDERS"), "argument ACTION: invalid choice: 'delete'"),
    ],
)
def test_wrong_usage_is_said(typed: Cli, orders: str, argv: tuple[str, ...], why: str) -> None:
    done = typed("stream", *argv)
    assert (done.code, done.out) == (64, "")
    assert f"qulo: {why}" in done.err or why in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [("info", "NOPE"), ("get", "NOPE"), ("topics", "NOPE"), ("purge", "NOPE", "-y"), ("rm", "NOPE", "-y")],
)
def test_an_unknown_stream_is_4_and_says_where_they_are_listed(typed: Cli, argv: tuple[str, ...]) -> None:
    assert typed("stream", *argv) == (4, "", "qulo: there is no stream 'NOPE'; `qulo stream ls` lists them\n")


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 64), ("", 64)])
def test_on_a_terminal_removing_asks_first(hub: Hub, orders: str, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    argv = ("qulo", "stream", "rm", orders)
    with subprocess.Popen(argv, env=hub.environ, stdin=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        assert process.stderr is not None
        said = process.communicate(timeout=PATIENCE)[1].decode()
    os.close(ours)
    assert said.startswith("qulo: remove the stream ORDERS with all its messages and groups (0 messages, 0)? [y/N] ")
    assert process.returncode == code
    assert ("nothing was done" in said) == (code != 0)
    assert len(hub.bus.request("$qulo.stream.ls", {})) == (1 if code else 0)


def test_a_closed_pipe_ends_it_in_silence(hub: Hub, orders: str) -> None:
    hub.run("qulo", "put", "orders.many", "-l", stdin=b"x\n" * 2500)
    done = hub.run("sh", "-c", f"qulo stream get {orders} | head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1 orders.many x\n", b"")


def test_no_hub_is_69(hub: Hub) -> None:
    done = hub.run("qulo", "stream", "ls", "--timeout", "0.3", QULO_URL=f"ipc://{hub.place}/none.sock")
    assert done.returncode == 69
    assert b"start one with `qulod`" in done.stderr


def test_who_may_not_is_told_which_command_says_why(short_place: Path) -> None:
    rules = '[{allow: [publish, subscribe, request, respond], names: ["*"], topics: ["orders.>", "$qulo.>"]}]'
    with running_qulod(short_place, name="hub", permissions=rules) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        done = hub.run("qulo", "stream", "add", "ORDERS", "orders.>")
        assert done.returncode == 77
        assert b"may not stream on orders.>: `qulo auth explain " in done.stderr
        assert hub.run("qulo", "put", "secret.a", "x").returncode == 77


# -- backup and restore


def test_a_backup_brings_back_what_was_there(short_place: Path) -> None:
    backup = short_place / "backup.db"
    config = short_place / "qulod.yaml"

    def run(hub: Hub, *argv: str, code: int = 0) -> str:
        done = hub.run("qulo", "stream", *argv)
        assert done.returncode == code, done.stderr
        return (done.stdout if code == 0 else done.stderr).decode()

    with running_qulod(short_place) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        run(hub, "add", "ORDERS", "orders.>")
        assert hub.run("qulo", "put", "orders.a", "before").stdout == b"ORDERS 1\n"
        assert run(hub, "backup", "backup.db").startswith(f"{backup} has the store as it is now; ")
        assert "is there already" in run(hub, "backup", "backup.db", code=73)
        assert hub.run("qulo", "put", "orders.a", "after").stdout == b"ORDERS 2\n"
        # Not while it runs, and nothing that is no backup.
        said = run(hub, "restore", str(backup), "-c", str(config), code=73)
        assert said == f"qulo: qulod runs (PID {process.pid}): end it first, with `qulod -s stop`\n"
    for name, content, why in (
        ("empty", b"", "is empty: nothing was changed"),
        ("text", b"not a database" * 1000, "is no backup of a store: "),
        ("cut", backup.read_bytes()[:8192], "is not whole: "),
    ):
        (short_place / name).write_bytes(content)
        said = run(hub, "restore", name, "-c", str(config), code=64)
        assert why in said or "is no backup of a store" in said
    assert "none cannot be read" in run(hub, "restore", "none", "-c", str(config), code=64)
    before = set(os.listdir(short_place / "data"))
    said = run(hub, "restore", str(backup), "-c", str(config))
    assert said.splitlines()[0] == f"{short_place}/data/streams.db is what {backup} was: ORDERS up to 1"
    (kept,) = set(os.listdir(short_place / "data")) - before
    assert kept.startswith("streams.db.before-")
    with running_qulod(short_place) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        assert run(hub, "get", "ORDERS") == "1 orders.a before\n"
    # The old one is whole, too: it can be brought back in the same way.
    run(hub, "restore", f"{short_place}/data/{kept}", "-c", str(config))
    with running_qulod(short_place) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        assert run(hub, "get", "ORDERS") == "1 orders.a before\n2 orders.a after\n"


def test_restore_wants_to_know_whose_store(hub: Hub, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("")
    (tmp_path / "copy").write_text("")
    done = hub.run("qulo", "stream", "restore", str(tmp_path / "copy"), "-c", str(config))
    assert done.returncode == 64
    assert b"--program qmaster or --program qulod" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_root_restores_as_the_owner_of_the_store(short_place: Path, typed: Cli) -> None:
    owner = pwd.getpwnam("nobody")
    data, config = short_place / "data", short_place / "qulod.yaml"
    with running_qulod(short_place) as (process, addresses):
        hub = Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]
        hub.run("qulo", "stream", "add", "ORDERS", "orders.>")
        assert hub.run("qulo", "stream", "backup", "backup.db").returncode == 0  # root's, and nobody else may read it
    for path in (short_place, data, *data.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    done = typed("stream", "restore", str(short_place / "backup.db"), "-c", str(config))
    assert (done.code, done.err) == (0, "")
    assert {path.stat().st_uid for path in data.iterdir()} == {owner.pw_uid}
    assert (os.geteuid(), os.getegid()) == (0, 0)
