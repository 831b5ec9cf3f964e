"""`qulo bench`, the real program in small; and its table, given losses."""

from __future__ import annotations

import argparse
import json
import re
import signal

import pytest

from qulo.cli import bench
from tests.unit.qulo.conftest import PATIENCE, Hub

SMALL = ("qulo", "bench", "--count", "300")


def test_it_shows_what_it_measured(hub: Hub) -> None:
    done = hub.run(*SMALL, "--size", "10", "--subscribers", "2", "--topics", "3")
    assert (done.returncode, done.stderr) == (0, b"")
    head, *rows = done.stdout.decode().splitlines()
    assert head == f"300 messages of 10 bytes on 3 topics to 2 subscribers by {hub.url}"
    assert [re.sub(r"[\d.]+", "N", re.sub(" +", " ", row)) for row in rows] == [
        "published N msg/s N MB/s, N sent",
        "received N msg/s N MB/s, N missing, N gaps",
        "N in flight N req/s pN N ms, pN N ms",
        "N in flight N req/s pN N ms, pN N ms",
    ]
    assert rows[0].endswith(" 300 sent")
    assert rows[1].endswith(" 0 missing, 0 gaps")


def test_json_is_an_object_per_line(hub: Hub) -> None:
    done = hub.run(*SMALL, "--json", "--subscribers", "2")
    publish, receive, one, many = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, b"")
    assert (publish["type"], publish["count"], publish["size"], publish["topics"]) == ("publish", 300, 100, 1)
    assert (receive["type"], receive["count"], receive["subscribers"]) == ("receive", 600, 2)
    assert (receive["missing"], receive["extra"], receive["gaps"]) == (0, 0, 0)
    assert [(each["type"], each["in_flight"], each["count"]) for each in (one, many)] == [
        ("request", 1, 300), ("request", 100, 300),
    ]  # fmt: skip
    assert all(each["rate"] > 0 and 0 < each["p50"] <= each["p99"] for each in (one, many))


def test_bodies_larger_than_what_it_is_ahead_arrive(hub: Hub) -> None:
    done = hub.run("qulo", "bench", "--count", "40", "--size", "500000")
    assert (done.stderr, done.returncode, done.stdout.count(b" 0 missing, 0 gaps\n")) == (b"", 0, 1)


def test_ctrl_c_ends_with_what_was_measured(hub: Hub) -> None:
    process = hub.start("qulo", "bench", "--count", "1000000000")
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    published, received = out.decode().splitlines()
    assert (process.returncode, err) == (130, b"")
    assert published.startswith("published ")
    assert received.endswith(" 0 missing, 0 gaps")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("messages", "gaps", "text"),
    [(8, 1, "2 missing, 1 gap"), (10, 1, "0 missing, 1 gap"), (11, 0, "0 missing, 0 gaps, 1 too many")],
)
def test_losses_are_shown(
    messages: int, gaps: int, text: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = bench._Counter()
    counter.messages, counter.gaps = messages, gaps
    table = bench._Table(argparse.Namespace(json=as_json, size=10))
    assert not table.received(10, [counter], 1.0)
    out = capsys.readouterr().out
    if as_json:
        found = json.loads(out)
        assert (found["missing"], found["extra"], found["gaps"]) == (max(10 - messages, 0), max(messages - 10, 0), gaps)
    else:
        assert out.endswith(f", {text}\n")


@pytest.mark.parametrize("option", ["--size", "--count", "--topics", "--subscribers"])
def test_none_is_wrong_usage(hub: Hub, option: str) -> None:
    assert hub.run("qulo", "bench", option, "0").returncode == 64


def test_what_the_hub_does_not_take_is_wrong_usage(hub: Hub) -> None:
    done = hub.run("qulo", "bench", "--size", "100000000", "--count", "1")
    assert (done.returncode, done.stderr.count(b"\n")) == (64, 1)
    assert hub.run("qulo", "bench", "--subscribers", "65").returncode == 64
