"""`qulo consume`: what counts as done, with and without a command, and what is given back at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import PATIENCE, Hub, until

QUEUE = ("--group", "g")


def group(hub: Hub, orders: str) -> dict[str, Any]:
    rows = hub.bus.request("$qulo.stream.info", {"stream": orders})["groups"]
    found: dict[str, Any] = next((row for row in rows if row["group"] == "g"), {})
    return found


@pytest.fixture
def three(hub: Hub, orders: str) -> str:
    for number in (1, 2, 3):
        hub.bus.put("orders.new", {"id": number})
    return orders


def test_a_message_is_done_when_it_was_printed(typed: Cli, hub: Hub, three: str) -> None:
    assert typed("consume", three, *QUEUE, "--count", "2").out == '1 orders.new {"id": 1}\n2 orders.new {"id": 2}\n'
    assert group(hub, three)["floor"] == 2
    done = typed("consume", three, *QUEUE, "--timeout", "0.3", "--json")
    assert (done.code, done.err) == (3, "qulo: nothing came from ORDERS for 0.3 s\n")
    shown = json.loads(done.out)
    assert shown.pop("time").endswith("Z")
    shown.pop("redelivered")  # it may have been on its way to the first, which had enough
    assert shown == {
        "stream": "ORDERS",
        "seq": 3,
        "topic": "orders.new",
        "body": {"id": 3},
        "tries": 1,
    }
    assert group(hub, three)["pending"] == 0


def test_what_nobody_reads_is_not_done(hub: Hub, three: str) -> None:
    done = hub.run("sh", "-c", f"qulo consume {three} --group g --timeout 5 >/dev/full")
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert (group(hub, three)["floor"], group(hub, three)["pending"]) == (0, 3)
    ours, theirs = os.pipe()
    os.close(ours)  # a pipe that is broken from the start
    argv = ("qulo", "consume", three, *QUEUE)
    with subprocess.Popen(argv, env=hub.environ, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == 0
    assert group(hub, three)["pending"] == 3


def test_a_new_group_may_begin_with_what_is_new(typed: Cli, hub: Hub, three: str) -> None:
    process = hub.start("qulo", "consume", three, *QUEUE, "--start", "new", "--count", "1")
    until(lambda: group(hub, three).get("consumers"))
    hub.bus.put("orders.new", b"new")
    assert process.communicate(timeout=PATIENCE) == (b"4 orders.new new\n", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_to_be_ended_is_the_usual_end_and_gives_back_what_is_not_done(hub: Hub, three: str, number: int) -> None:
    process = hub.start("qulo", "consume", three, *QUEUE)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)][2] == b'3 orders.new {"id": 3}\n'
    until(lambda: group(hub, three)["pending"] == 0)
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0
    until(lambda: group(hub, three)["consumers"] == 0)


# -- with a command


def test_a_command_gets_the_message_and_its_success_is_the_ack(hub: Hub, three: str) -> None:
    command = "sh -c 'echo $QULO_TOPIC $QULO_STREAM $QULO_SEQ $QULO_TRIES $QULO_REDELIVERED $(cat)'"
    done = hub.run("qulo", "consume", three, *QUEUE, "--command", command, "--count", "3")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        f'orders.new ORDERS {number} 1 0 {{"id": {number}}}' for number in (1, 2, 3)
    ]
    assert group(hub, three)["pending"] == 0


def test_a_failure_is_tried_again_and_ends_in_the_dead_letters_with_its_reason(hub: Hub, orders: str) -> None:
    hub.bus.put("orders.bad", b"x")
    command = "sh -c 'echo no money >&2; exit 3'"
    done = hub.run("qulo", "consume", orders, *QUEUE, "--command", command, "--count", "2")
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        "qulo: ORDERS 1 (try 1): sh ended with 3: no money; again",
        "qulo: ORDERS 1 (try 2): sh ended with 3: no money; no more: `qulo dead ls` has it",
    ]
    (letter,) = hub.bus.request("$qulo.stream.dead.ls", {})["letters"]
    assert (letter["seq"], letter["tries"], letter["reason"]) == (1, 2, "sh ended with 3: no money")


def test_not_now_is_tried_again_after_a_while(hub: Hub, orders: str) -> None:
    hub.bus.put("orders.later", b"x")
    command = "sh -c 'test $QULO_TRIES -gt 1 || exit 75'"
    done = hub.run("qulo", "consume", orders, *QUEUE, "--command", command, "--count", "2")
    assert done.returncode == 0
    assert done.stderr == b"qulo: ORDERS 1 (try 1): sh ended with 75; again in 1 s\n"
    assert group(hub, orders)["pending"] == 0


def test_a_command_that_takes_longer_than_the_lease_keeps_its_message(hub: Hub, orders: str) -> None:
    hub.bus.put("orders.slow", b"x")
    command = "sh -c 'sleep 2.5; echo $QULO_SEQ $QULO_TRIES'"  # more than two leases: what is tested is that it lasts
    done = hub.run("qulo", "consume", orders, *QUEUE, "--lease", "1s", "--command", command, "--count", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1 1\n", b"")
    assert (group(hub, orders)["expired"], group(hub, orders)["pending"]) == (0, 0)


def test_commands_run_beside_each_other(hub: Hub, three: str, tmp_path: Path) -> None:
    # Each waits for all: they end only if they run at the same time.
    command = f"sh -c 'touch {tmp_path}/$QULO_SEQ; until test -e {tmp_path}/1 -a -e {tmp_path}/2 -a -e {tmp_path}/3;"
    command += " do sleep 0.02; done'"
    done = hub.run("qulo", "consume", three, *QUEUE, "--command", command, "--concurrency", "3", "--count", "3")
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_the_command_and_gives_its_message_back_uncounted(hub: Hub, three: str) -> None:
    command = "sh -c 'echo $$; exec sleep 60'"
    process = hub.start("qulo", "consume", three, *QUEUE, "--command", command)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0
    assert not Path(f"/proc/{pid}").exists()
    with hub.bus.consume(three, group="g") as work:
        assert [(message.seq, message.tries) for message in work.fetch(3, PATIENCE)] == [(1, 1), (2, 1), (3, 1)]


def test_a_command_that_cannot_be_run_ends_it_and_costs_no_message(typed: Cli, hub: Hub, three: str) -> None:
    done = typed("consume", three, *QUEUE, "--command", "/nowhere")
    assert done == (64, "", "qulo: --command: /nowhere cannot be run: No such file or directory\n")
    assert group(hub, three)["pending"] == 3


def test_a_worker_that_is_killed_loses_nothing(hub: Hub, three: str) -> None:
    command = "sh -c 'echo $$; exec sleep 60'"
    process = hub.start("qulo", "consume", three, *QUEUE, "--lease", "1s", "--command", command)
    assert process.stdout is not None
    left = int(process.stdout.readline())  # the command outlives it
    process.kill()
    os.kill(left, signal.SIGKILL)
    done = hub.run("qulo", "consume", three, *QUEUE, "--count", "3")
    assert sorted(line.split()[0] for line in done.stdout.decode().splitlines()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (("ORDERS",), 64, "the following arguments are required: --group"),
        (("NOPE", "--group", "g"), 4, "there is no stream 'NOPE'"),
        (("ORDERS", *QUEUE, "--concurrency", "2"), 64, "it needs --command"),
        (("ORDERS", *QUEUE, "--command", "true", "--json"), 64, "--json and --command exclude each other"),
        (("ORDERS", *QUEUE, "--command", "'"), 64, "No closing quotation"),
        (("ORDERS", *QUEUE, "--command", ""), 64, "--command is empty"),
        (("ORDERS", *QUEUE, "--lease", "1ms"), 64, "expected a duration such as"),
        (("ORDERS", *QUEUE, "--command", "true", "--concurrency", "1000"), 64, "--concurrency is 256 at most"),
        (("ORDERS", *QUEUE, "--start", "3"), 64, "argument --start: invalid choice"),
    ],
)
def test_wrong_usage_is_said(typed: Cli, orders: str, argv: tuple[str, ...], code: int, why: str) -> None:
    done = typed("consume", *argv)
    assert (done.code, done.out) == (code, "")
    assert why in done.err
    assert done.err.count("\n") == 1
