"""`qulo sub --since` and `--last`: a stream from its past into what comes, with nothing left out and nothing twice."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import PATIENCE, Hub


def test_the_past_and_what_comes_meet_without_a_gap_or_a_repeat(hub: Hub, orders: str) -> None:
    for number in range(200):
        hub.bus.put("orders.a", number)
    process = hub.start("qulo", "sub", "orders.>", "--since", "1h", "--count", "1000")

    def put(start: int) -> None:
        for number in range(start, start + 400):
            hub.bus.put("orders.a", number)

    putters = [threading.Thread(target=put, args=(start,)) for start in (200, 600)]  # while it starts
    for thread in putters:
        thread.start()
    out, err = process.communicate(timeout=2 * PATIENCE)
    for thread in putters:
        thread.join()
    assert (process.returncode, err) == (0, b"")
    shown = [int(line.split()[1]) for line in out.decode().splitlines()]
    assert shown == [message.body for message in hub.bus.read(orders)]
    assert sorted(shown) == list(range(1000))


def test_last_begins_with_the_newest_of_each_topic_in_their_order(hub: Hub, orders: str) -> None:
    for topic, text in (("a", "1"), ("b", "2"), ("a", "3"), ("c.d", "4")):
        hub.bus.put(f"orders.{topic}", text.encode())
    process = hub.start_listening("qulo", "sub", "orders.*", "--last")
    assert process.stdout is not None
    assert sorted(process.stdout.readline() for _ in range(2)) == [b"orders.a 3\n", b"orders.b 2\n"]
    hub.bus.publish("orders.b", b"5")  # is stored, too
    assert process.stdout.readline() == b"orders.b 5\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 0


def test_what_is_older_is_not_shown(typed: Cli, hub: Hub, orders: str) -> None:
    hub.bus.put("orders.a", b"old")
    done = typed("sub", "orders.>", "--since", "1ms", "--timeout", "0.3")
    assert done == (3, "", "qulo: nothing came on orders.> for 0.3 s\n")
    assert typed("sub", "orders.>", "--since", "1h", "--count", "1", "--json").out == (
        '{"topic": "orders.a", "body": "old"}\n'
    )


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (("orders.>", "--since", "5m", "--last"), 64, "not allowed with argument"),
        (("orders.>", "--since", "yesterday"), 64, "expected a duration such as"),
        (("orders.>", "jobs.>", "--last"), 64, "--since and --last take one PATTERN"),
        (("orders.>", "--last", "--group", "g"), 64, "`qulo consume STREAM --group S`"),
        (("orders..a", "--last"), 64, "has an empty token"),
        (("elsewhere.>", "--last"), 4, "no stream that you may read stores all of elsewhere.>: `qulo stream ls`"),
        ((">", "--last"), 4, "no stream that you may read stores all of >"),
    ],
)
def test_wrong_usage_is_said(typed: Cli, orders: str, argv: tuple[str, ...], code: int, why: str) -> None:
    done = typed("sub", *argv)
    assert (done.code, done.out) == (code, "")
    assert why in done.err


def test_a_closed_pipe_ends_it_in_silence(hub: Hub, orders: str) -> None:
    hub.run("qulo", "put", "orders.many", "-l", stdin=b"x\n" * 2500)
    done = hub.run("sh", "-c", "qulo sub 'orders.>' --since 1h | head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"orders.many x\n", b"")
