"""`qulo put`: what it says of each message, in which order, and what becomes of those under way."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.unit.qulo.cli.conftest import Cli
from tests.unit.qulo.conftest import PATIENCE, Hub, until


def bodies(hub: Hub, orders: str) -> list[Any]:
    return [message.body for message in hub.bus.read(orders)]


def test_it_says_where_the_message_is_and_what_was_there_already(typed: Cli, hub: Hub, orders: str) -> None:
    assert typed("put", "orders.new", "text", "--id", "17") == (0, "ORDERS 1\n", "")
    assert typed("put", "orders.new", "text", "--id", "17") == (0, "ORDERS 1 (duplicate)\n", "")
    done = typed("put", "orders.new", '{"t": 1}', "--json", "-H", "by:me")
    assert json.loads(done.out) == {"stream": "ORDERS", "seq": 2, "duplicate": False, "at": "master"}
    assert typed("put", "orders.new", "x", "--require", "master").out == "ORDERS 3\n"
    assert bodies(hub, orders) == [b"text", {"t": 1}, b"x"]
    assert [dict(message.headers) for message in hub.bus.read(orders, seq=2)] == [{"by": "me"}, {}]


def test_a_delay_and_an_end_are_kept(typed: Cli, hub: Hub, orders: str) -> None:
    assert typed("put", "orders.later", "later", "--delay", "1h").code == 0
    assert typed("put", "orders.short", "short", "--ttl", "1ms").code == 0
    assert typed("put", "orders.now", "now").code == 0
    with hub.bus.consume(orders, group="g") as work:
        assert [message.body for message in work.fetch(10, PATIENCE)] == [b"now"]
        assert work.fetch(10, 0.05) == []


def test_each_line_is_a_message_and_the_answers_are_in_their_order(hub: Hub, orders: str) -> None:
    lines = [b"line %d" % number for number in range(3000)]
    done = hub.run("qulo", "put", "orders.line", "--lines", stdin=b"\r\n".join(lines))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == [word for number in range(1, 3001) for word in (b"ORDERS", b"%d" % number)]
    assert bodies(hub, orders) == lines


def test_a_file_is_a_body_or_lines(hub: Hub, orders: str) -> None:
    (hub.place / "lines").write_bytes(b"one\ntwo\n")
    assert hub.run("qulo", "put", "orders.a", "-f", "lines").stdout == b"ORDERS 1\n"
    assert hub.run("qulo", "put", "orders.a", "-l", "-f", "lines").stdout == b"ORDERS 2\nORDERS 3\n"
    assert hub.run("qulo", "put", "orders.a", "--stdin", stdin=b"all\nof it").returncode == 0
    assert bodies(hub, orders) == [b"one\ntwo\n", b"one", b"two", b"all\nof it"]


def test_ctrl_c_waits_for_what_was_sent(hub: Hub, orders: str) -> None:
    argv = ("qulo", "put", "orders.a", "--lines")
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=hub.environ, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(b"first\nnot ended")
        process.stdin.flush()
        until(lambda: bodies(hub, orders) == [b"first"])  # at once, not at the end of the input
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, b"ORDERS 1\n", b"")


def test_the_first_line_that_is_refused_ends_it_and_says_of_the_others(hub: Hub, orders: str) -> None:
    done = hub.run("qulo", "put", "nowhere.a", "--lines", stdin=b"1\n2\n3\n")
    said = done.stderr.decode().splitlines()
    assert done.returncode == 4
    assert said[-1] == "qulo: no stream stores nowhere.a: `qulo stream add` makes one"
    done = hub.run("qulo", "put", "orders.a", "--lines", "--json", stdin=b'{"a": 1}\n{\n')
    assert (done.returncode, done.stderr[:29]) == (64, b"qulo: the body is not JSON: E")


def test_no_stream_says_how_to_make_one(typed: Cli) -> None:
    done = typed("put", "nowhere.a", "x")
    assert done == (4, "", "qulo: no stream stores nowhere.a: `qulo stream add` makes one\n")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ((), "the following arguments are required: TOPIC"),
        (("a..b", "x"), "the topic 'a..b' has an empty token"),
        (("orders.*", "x"), "the topic 'orders.*'"),
        (("orders.a", "x", "--stdin"), "BODY and --stdin exclude each other"),
        (("orders.a", "-l", "--id", "7"), "--lines and --id exclude each other"),
        (("orders.a", "x", "--id", ""), "an id is text of 1 to 255 characters"),
        (("orders.a", "x", "--delay", "soon"), "expected a duration such as"),
        (("orders.a", "x", "--require", "agent"), "argument --require: invalid choice"),
        (("orders.a", "{", "--json"), "the body is not JSON"),
        (("orders.a", "-f", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_wrong_usage_is_said(typed: Cli, orders: str, argv: tuple[str, ...], why: str) -> None:
    done = typed("put", *argv)
    assert (done.code, done.out) == (64, "")
    assert why in done.err
    assert done.err.count("\n") == 1


def test_nobody_who_reads_what_it_says_is_no_error(hub: Hub, orders: str) -> None:
    done = hub.run("sh", "-c", "qulo put orders.a --lines | head -1", stdin=b"x\n" * 20_000)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ORDERS 1\n", b"")


def test_no_hub_is_69(hub: Hub) -> None:
    done = hub.run("qulo", "put", "orders.a", "x", "-W", "0.3", QULO_URL=f"ipc://{hub.place}/none.sock")
    assert (done.returncode, done.stdout) == (69, b"")
