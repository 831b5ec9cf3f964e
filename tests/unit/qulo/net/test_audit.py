"""The audit log: one JSON object per decision, however hostile its contents, and not one per message of a flood."""

from __future__ import annotations

import json
import logging
import re

import pytest

import qulo
from qulo.net import audit
from qulo.protocol.ports import Verdict
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.enrolled import audited, auditing, bus_of, let_in, start_master
from tests.unit.qulo.site import Site


def line(verdict: Verdict, caplog: pytest.LogCaptureFixture) -> str:
    """What is appended for a verdict."""
    with auditing(caplog):
        audit.write(verdict)
    return caplog.records[-1].getMessage()


def test_a_line_has_all_that_was_decided(caplog: pytest.LogCaptureFixture) -> None:
    text = line(Verdict("web1/local", "10.0.0.7", "publish", "orders.new", False, "no rule allows it"), caplog)
    fields = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "who": "web1/local",
        "address": "10.0.0.7",
        "verb": "publish",
        "on": "orders.new",
        "allowed": False,
        "why": "no rule allows it",
    }
    assert caplog.records[-1].levelno == logging.INFO


def test_what_was_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert json.loads(line(Verdict("a", "", "publish", "t", False, "", 7), caplog))["untold"] == 7


def test_a_hostile_topic_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    forged = 'x","allowed":true}\n{"time":"now","who":"root\x1b[2J\u2028'
    text = line(Verdict("a", "", "publish", forged, False, ""), caplog)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["on"] == forged


def test_a_flood_of_denials_fills_no_disk_and_none_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site, permissions='[{allow: [publish], names: ["web1"], topics: ["ok"]}]')
            async with site.bus("m", local=True) as operator:
                await let_in(site, operator, "web1")
            async with bus_of(site, "web1") as bus:
                for number in range(5000):
                    await bus.publish(f"t{number % 1500}", b"a body that is nobody's business")
                with pytest.raises(qulo.Denied):
                    await bus.flush()
                await bus.publish("ok", 1)
                await bus.flush()

    with auditing(caplog):
        _run(story())
    denied = [fields for fields in audited(caplog) if not fields["allowed"]]
    assert 20 <= len(denied) <= 25
    assert {(fields["who"], fields["verb"]) for fields in denied} == {("web1", "publish")}
    assert "nobody's business" not in caplog.text
