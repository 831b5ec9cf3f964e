"""Handshakes are bounded by address, and strangers cannot fill the log, whatever they do at the door."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import zmq

from qulo import config
from qulo.net import zap
from qulo.net.keys import ALL_KNOCKS_TOLD, KNOCKS_TOLD, Keys
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.test_zap import RAW_KEY, UNKNOWN, handler
from tests.unit.qulo.site import Site, until


def question(address: bytes, key: bytes = RAW_KEY, domain: bytes = b"qulo.curve") -> list[bytes]:
    """All that the handler gets, from the route on."""
    return [b"route", b"", b"1.0", b"1", domain, address, b"", b"CURVE", key]


def codes(zapper: zap.ZapHandler, count: int, address: str, key: bytes = RAW_KEY) -> list[bytes]:
    """What so many handshakes at once are answered with."""
    return [zapper._answer(question(address.encode(), key))[0] for _ in range(count)]


def test_an_address_that_connects_too_often_is_put_off_and_another_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            zapper.max_handshakes = 5
            burst = int(5 * zap.HANDSHAKE_BURST)
            assert codes(zapper, burst, "10.0.0.1") == [b"200"] * burst
            later = codes(zapper, 500, "10.0.0.1")
            assert later.count(b"300") >= 490
            assert zapper.hurried == later.count(b"300")
            assert codes(zapper, 1, "10.0.0.2") == [b"200"]

    _run(story())
    lines = [line for line in caplog.text.splitlines() if "connects more than 5 times per second" in line]
    assert len(lines) == zap.DENIALS_TOLD


def test_it_gets_in_again_at_the_rate() -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            zapper.max_handshakes = 50
            codes(zapper, 600, "10.0.0.1")
            await until(lambda: codes(zapper, 1, "10.0.0.1") == [b"200"])

    _run(story())


def test_without_a_limit_and_on_ipc_nobody_is_put_off() -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            assert set(codes(zapper, 3000, "10.0.0.1")) == {b"200"}
            zapper.max_handshakes = 1
            local = [b"route", b"", b"1.0", b"1", b"qulo.local", b"localhost:0:0:1", b"", b"NULL"]
            assert {zapper._answer(local)[0] for _ in range(3000)} == {b"200"}

    _run(story())


def test_the_addresses_of_one_ipv6_network_are_one_and_the_table_is_bounded() -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            zapper.max_handshakes = 1
            got = [codes(zapper, 1, f"2001:db8::{number:x}")[0] for number in range(1, 200)]
            assert zap.HANDSHAKE_BURST <= got.count(b"200") < 2 * zap.HANDSHAKE_BURST
            assert codes(zapper, 1, "2001:db8:0:1::1") == [b"200"]
            for number in range(zap.ADDRESSES + 100):
                codes(zapper, 1, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            assert len(zapper._buckets) == zap.ADDRESSES

    _run(story())


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_who_counts_as_one(address: str, source: str) -> None:
    assert zap._source(address) == source


def test_denials_are_told_a_few_times_an_address_and_counted_when_the_minute_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            assert set(codes(zapper, 1000, "10.0.0.1", UNKNOWN)) == {b"400"}
            zapper.tell_rest(time.monotonic() + 61)
            zapper.tell_rest(time.monotonic() + 62)

    _run(story())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == zap.DENIALS_TOLD + 1
    assert lines[-1] == f"{1000 - zap.DENIALS_TOLD} more connections from 10.0.0.1 were denied or put off"


def test_denials_from_many_addresses_are_bounded_together(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with handler() as (zapper, _):
            for number in range(5000):
                codes(zapper, 1, f"10.0.{number >> 8}.{number & 255}", UNKNOWN)

    _run(story())
    assert len(caplog.records) == zap.ALL_DENIALS_TOLD


def test_a_handler_that_fails_denies_and_does_not_fill_the_log_either(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with handler() as (zapper, _):

            def fail(_key: bytes, _address: str) -> str:
                raise OSError("disk")

            zapper.principal = fail
            assert set(codes(zapper, 1000, "10.0.0.1")) == {b"400"}

    _run(story())
    assert len(caplog.records) == zap.DENIALS_TOLD
    assert "the ZAP handler failed (OSError: disk)" in caplog.text


def test_new_keys_that_knock_are_told_within_bounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(tmp_path / "accepted", tmp_path, lambda: 1000.0)
    for _ in range(50):
        keys.principal(zmq.curve_keypair()[0], "10.0.0.1")
    assert len(caplog.records) == KNOCKS_TOLD
    for number in range(300):
        keys.principal(zmq.curve_keypair()[0], f"10.0.1.{number}")
    assert len(caplog.records) == ALL_KNOCKS_TOLD


def test_a_link_that_is_put_off_comes_in_by_itself_and_is_not_called_denied(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m", max_handshakes="2")
            handler = service._server.zap
            while not handler._is_hurried("127.0.0.1", time.monotonic()):
                pass
            async with site.bus("m", timeout=20) as bus:
                assert bus.connected
            assert handler.hurried

    with caplog.at_level(logging.WARNING):
        _run(story())
    assert "127.0.0.1 connects more than 2 times per second: it has to wait" in caplog.text


def test_the_limit_changes_on_reload() -> None:
    async def story() -> None:
        async with Site() as site:
            service = await site.start("m", max_handshakes="2")
            (site.path / "m.yaml").write_text((site.path / "m.yaml").read_text().replace("max_handshakes: 2", ""))
            settings = config.load("qmaster", str(site.path / "m.yaml"), environ={}, uid=0)
            assert await service.obey("reload", settings)
            assert service._server.zap.max_handshakes == 500

    _run(story())
