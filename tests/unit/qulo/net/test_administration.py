"""Letting in and throwing out, while messages flow; and who may do it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq

import qulo
from qulo import config
from qulo.errors import UsageError
from qulo.net import curve, keys, link
from qulo.net.administration import MAX_EXPIRES, MAX_USES
from qulo.net.curve import fingerprint
from qulo.net.service import Service
from qulo.net.token import decode
from qulo.protocol import wire
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.enrolled import (
    ADMIN,
    Raw,
    ask,
    audited,
    auditing,
    bus_of,
    enrol,
    key_file,
    keys_of,
    let_in,
    new_token,
    start_master,
)
from tests.unit.qulo.site import Site, until


@contextlib.asynccontextmanager
async def with_operator(**settings: str) -> AsyncIterator[tuple[Site, Service, qulo.Bus]]:
    """A master, and its operator on the ipc socket."""
    async with Site() as site:
        service = await start_master(site, **settings)
        async with site.bus("m", local=True) as operator:
            yield site, service, operator


def fingerprint_of(site: Site, name: str) -> str:
    return fingerprint(curve.load_key(key_file(site, name)).public)


async def reload(service: Service, site: Site, **changed: str) -> None:
    """What HUP does, with these keys changed in the file."""
    file = site.path / "m.yaml"
    lines = [line for line in file.read_text().splitlines() if line.partition(":")[0] not in changed]
    file.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in changed.items())]) + "\n")
    assert await service.obey("reload", config.load("qmaster", str(file), environ={}, uid=0))


# -- hosts


def test_a_host_gets_in_with_a_token_and_by_itself_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            await site.start_agent("a", "m", await new_token(operator, "web1"), curve="on")
            async with site.bus("a") as here, here.subscribe("down") as down, operator.subscribe("up") as up:
                await here.publish("up", 1)
                assert (await up.next(5)).body == 1  # type: ignore[union-attr]
                await operator.publish("down", 2)
                assert (await down.next(5)).body == 2  # type: ignore[union-attr]
            await site.stop("a")
            agent = await site.start("a", curve="on")
            assert await keys_of(operator) == {"web1": "accepted"}
            assert agent.connected

    with auditing(caplog):
        _run(story())
    made, enrolled = [line for line in audited(caplog) if line["allowed"]]
    assert (made["who"], made["verb"], made["why"]) == ("qmaster/local", "token.new", "for web1, 1 uses, 60 s")
    assert (enrolled["verb"], enrolled["on"], enrolled["who"]) == ("enrol", "web1", f"token/{made['on']}")


def test_a_host_without_a_token_waits_and_says_what_to_type(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "DENIED_PAUSE", 0.1)

    async def story() -> None:
        async with with_operator() as (site, _, operator):
            pinned = f"{site.path}/m/master.pub"
            agent = await site.start_agent("a", "m", None, curve="on", master_key=pinned)
            await until(lambda: "does not accept our key" in caplog.text)
            mine = fingerprint(curve.load_public(site.path / "a" / "agent.pub"))
            typed = f"on its host run `qulo keys accept {mine} --name a`"
            assert typed in caplog.text
            (row,) = (await ask(operator, "keys.ls"))["keys"]
            assert (row["state"], row["fingerprint"], row["address"]) == ("pending", mine, "127.0.0.1")
            await ask(operator, "keys.accept", key=mine[:8], name="web1")
            await until(lambda: agent.connected)
            assert (await operator.request("$qulo.list"))["peers"][-1]["name"] == "web1"
            assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    _run(story())


def test_a_denied_host_waits_longer_each_time_but_seconds_only() -> None:
    assert (link.DENIED_PAUSE, link.DENIED_LAST_PAUSE) == (1.0, 15.0)


def test_an_agent_with_another_masters_key_says_so_and_goes_on_trying(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            wrong = site.path / "wrong.pub"
            wrong.write_bytes(zmq.curve_keypair()[0])
            agent = await site.start_agent("a", "m", None, curve="on", master_key=str(wrong))
            await until(lambda: "the handshake failed; do curve and the hub's key match?" in caplog.text)
            assert agent._driver is not None
            tried = agent._driver.attempts
            await until(lambda: agent._driver is not None and agent._driver.attempts > tried)
            assert not agent.connected
            assert await keys_of(operator) == {}  # it told its key to nobody

    _run(story())


# -- throwing out


async def publish_times(bus: qulo.Bus, over: asyncio.Event) -> int:
    """Publish what time it is, again and again; how often."""
    sent = 0
    while not over.is_set():
        await bus.publish("t", f"{time.monotonic()}".encode())
        sent += 1
        await asyncio.sleep(0.001)
    await bus.flush()
    return sent


async def throw_out(way: str, site: Site, operator: qulo.Bus) -> float:
    """The key of `spy` counts no more; since when."""
    if way == "revoke":
        await ask(operator, "keys.revoke", key="spy")
    else:
        (site.path / "m" / "accepted" / "spy.pub").unlink()
        await reload(site.services["m"], site)
    return time.monotonic()


@pytest.mark.parametrize("way", ["revoke", "file"])
def test_who_is_revoked_is_ignored_at_once_and_gone_from_pub_within_a_second(way: str) -> None:
    """Others lose nothing, although the publishing half is bound anew under them."""

    async def story() -> None:
        async with with_operator() as (site, service, operator):
            await let_in(site, operator, "web1", "web2", "spy")
            raw = Raw(service, curve.load_key(key_file(site, "spy")), curve.load_public(site.path / "m/master.pub"))
            over = asyncio.Event()
            got: list[Any] = []
            spoken: list[Any] = []
            seen: list[bytes] = []

            def spied() -> int:
                seen.extend(raw.bodies())
                return len(seen)

            with contextlib.closing(raw):
                async with bus_of(site, "web1") as here, bus_of(site, "web2") as there, asyncio.TaskGroup() as group:
                    await there.subscribe("t", lambda m: got.append(m.body), on_gap=got.append)
                    await there.subscribe("spy", lambda m: spoken.append(m.body))
                    await raw.subscribe("t")
                    publishing = group.create_task(publish_times(here, over))
                    await until(lambda: spied() > 10)
                    raw.send([wire.PUBLISH, "spy", wire.RAW, [b"before"]])
                    await until(lambda: spoken)
                    revoked = await throw_out(way, site, operator)
                    raw.send([wire.PUBLISH, "spy", wire.RAW, [b"after"]])
                    so_far = len(got)
                    # It goes on listening for longer than it may hear anything.
                    await until(lambda: spied() and time.monotonic() > revoked + (1.2 if way == "revoke" else 0.3))
                    await until(lambda: len(got) > so_far + 100)
                    over.set()
                    sent = await publishing
                    await until(lambda: len(got) >= sent)
                    assert len(got) == sent
                    assert got == sorted(got)
                    assert spoken == [b"before"]
                    spied()
                    assert max(map(float, seen)) < revoked + 1.0
                    state = {"spy": "refused"} if way == "revoke" else {fingerprint_of(site, "spy"): "pending"}
                    assert await keys_of(operator) == {"web1": "accepted", "web2": "accepted"} | state

    _run(story())


def test_a_revoked_agent_and_its_programs_are_out_and_it_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "DENIED_PAUSE", 0.1)

    async def story() -> None:
        async with with_operator() as (site, service, operator):
            agent = await site.start_agent("a", "m", await new_token(operator, "web1"), curve="on")
            async with site.bus("a") as here, operator.subscribe("up") as up:
                await here.publish("up", 1)
                assert (await up.next(5)).body == 1  # type: ignore[union-attr]
                await ask(operator, "keys.revoke", key="web1")
                await here.publish("up", 2)
                await until(lambda: not agent.connected)
                assert [s.name for s in service.hub.sessions.values()] == [operator._link.identity.name]
                await until(lambda: "does not accept our key" in caplog.text)
                await ask(operator, "keys.accept", key="web1", name="web1")
                await until(lambda: agent.connected)
                await here.publish("up", 3)
                bodies = [getattr(await up.next(5), "body", None) for _ in range(2)]
                assert bodies[-1] in (2, 3)  # what waited in the agent goes up when it may again

    _run(story())


def test_a_name_is_taken_until_its_key_is_revoked(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            await let_in(site, operator, "web1")
            with pytest.raises(qulo.Denied, match="the name web1 is taken by another key"):
                await ask(operator, "token.new", name="web1", expires=60, uses=1)
            other = curve.load_key(key_file(site, "other"))
            text = await new_token(operator)
            with pytest.raises(qulo.Denied, match="`qulo keys revoke web1` frees it"):
                await enrol(text, other, "web1")
            await ask(operator, "keys.revoke", key="web1")
            assert await enrol(text, other, "web1") == "web1"  # the refusal has not used the token up
            async with bus_of(site, "other") as bus:
                await bus.flush()

    with auditing(caplog):
        _run(story())
    (denied,) = [line for line in audited(caplog) if not line["allowed"]]
    assert (denied["verb"], denied["on"]) == ("enrol", "web1")
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [text for text in errors if "a second key" not in text] == []
    assert len(errors) == 2


def test_rejected_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DENIED_PAUSE", 0.05)
    monkeypatch.setattr(link, "DENIED_LAST_PAUSE", 0.05)

    async def story() -> None:
        async with with_operator() as (site, _, operator):
            mine = fingerprint_of(site, "late")
            async with bus_of(site, "late", timeout=None) as bus:
                await until(lambda: bus._driver.attempts >= 1 and bus._driver.error)
                await ask(operator, "keys.reject", key=mine)
                tried = bus._driver.attempts
                await until(lambda: bus._driver.attempts >= tried + 2)
                assert await keys_of(operator) == {mine: "refused"}
                await ask(operator, "keys.delete", key=mine)
                tried = bus._driver.attempts
                await until(lambda: bus._driver.attempts >= tried + 2)
                assert await keys_of(operator) == {mine: "pending"}
                await ask(operator, "keys.accept", key=mine, name="late")
                await until(lambda: bus.connected)

    _run(story(), timeout=40)


# -- who may


def test_an_accepted_key_administers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            await let_in(site, operator, "web1")
            async with bus_of(site, "web1") as bus:
                for verb in ("keys.ls", "keys.accept", "token.new", "token.ls", "auth.explain"):
                    with pytest.raises(qulo.Denied, match="only root and the hub's own user administer it"):
                        await ask(bus, verb, name="x", key="x")
                with pytest.raises(qulo.Denied):
                    await bus.request("$qulo.local.enrol", {"key": "x" * 40, "name": "x"})
            with pytest.raises(qulo.Denied, match="only a token can enrol"):
                await operator.request("$qulo.local.enrol", {"key": "x" * 40, "name": "x"})
            # Nor does an agent pass such a request on: it answers for itself, and has let nobody in.
            await site.start_agent("a", "m", await new_token(operator, "a"), curve="on")
            async with site.bus("a") as here:
                assert await keys_of(here) == {}

    with auditing(caplog):
        _run(story())
    denied = [line for line in audited(caplog) if not line["allowed"]]
    assert len(denied) == 7
    assert {line["who"] for line in denied} == {"web1", "qmaster/local"}
    assert {line["verb"] for line in denied} == {"request"}


REGISTRATIONS: list[wire.Record] = [
    [wire.SUBSCRIBE, 1, ">", None],
    [wire.SUBSCRIBE, 2, "t", "group"],
    [wire.SUBSCRIBE, 3, "$qulo.>", None],
    [wire.RESPOND, 4, "svc"],
    [wire.RESPOND, 5, "$qulo.ping"],
]


def test_a_token_can_do_nothing_but_enrol() -> None:
    async def story() -> None:
        async with with_operator() as (_, service, operator):
            found = decode(await new_token(operator))
            raw = Raw(service, found.key, found.master)
            try:
                refused = await raw.hello("agent")
                assert refused[:2] == [wire.REFUSED, "denied"]
                assert (await raw.hello())[0] == wire.WELCOME
                async with operator.subscribe(">") as everything:
                    raw.send([wire.PUBLISH, "t", wire.RAW, [b"x"]])
                    assert "a token may enrol, and do nothing else" in (await raw.said(wire.FORBIDDEN))[3]
                    for record in REGISTRATIONS:
                        raw.send(record)
                        assert (await raw.said(wire.DENIED))[1:3] == [record[1], "denied"]
                    for number, topic in enumerate(["t", "$qulo.list", "$qulo.local.list", f"{ADMIN}.keys.ls"], 1):
                        raw.send([wire.REQUEST, number, topic, 1000, False, wire.RAW, b""])
                        assert (await raw.said(wire.ANSWER))[1:3] == [number, "denied"]
                    await operator.publish("t", 1)
                    assert (await everything.next(5)).body == 1  # type: ignore[union-attr]
            finally:
                raw.close()

    _run(story())


# -- permissions


READER = (
    '[{allow: [publish, subscribe, request], names: ["web1", "m/local", "qmaster/local"], topics: [">", "$qulo.>"]}]'
)
BOTH = '[{allow: [publish, subscribe], names: ["*", "*/local"], topics: [">"]}]'


def test_new_permissions_end_what_they_do_not_allow_and_nobody_else_loses_anything() -> None:
    async def story() -> None:
        async with with_operator(permissions=BOTH) as (site, service, operator):
            await let_in(site, operator, "web1", "web2")
            async with bus_of(site, "web1") as here, bus_of(site, "web2") as there:
                got: list[Any] = []
                await here.subscribe("t", lambda m: got.append(m.body), on_gap=got.append)
                lost = await there.subscribe("t")
                for number in range(100):
                    await operator.publish("t", number)
                await operator.flush()
                assert [(await lost.next(5)).body for _ in range(100)] == list(range(100))  # type: ignore[union-attr]
                await reload(service, site, permissions=READER)
                for number in range(100, 200):
                    await operator.publish("t", number)
                with pytest.raises(qulo.Denied, match="the hub's permissions have changed: no subscribe on t"):
                    await anext(aiter(lost))
                with pytest.raises(qulo.Denied, match="web2 may not subscribe on t: `qulo auth explain web2 subscribe"):
                    await there.subscribe("t")
                await there.publish("t", "forbidden")
                with pytest.raises(
                    qulo.Denied, match="web2 may not publish on t: `qulo auth explain web2 publish 't'`"
                ):
                    await there.flush()
                await there.flush()  # said once
                await until(lambda: len(got) >= 200)
                assert got == list(range(200))
                await reload(service, site, permissions=BOTH)
                async with there.subscribe("t") as anew:
                    await operator.publish("t", "again")
                    assert (await anew.next(5)).body == "again"  # type: ignore[union-attr]

    _run(story())


def test_no_rules_let_nobody_do_anything_but_administer() -> None:
    async def story() -> None:
        async with with_operator(permissions="[]") as (site, _, operator):
            for attempt in (
                operator.subscribe("t"),
                operator.respond("t", lambda m: 1),
                operator.request("$qulo.list"),
            ):
                with pytest.raises(qulo.Denied):
                    await attempt
            await operator.publish("t", 1)
            with pytest.raises(qulo.Denied):
                await operator.flush()
            await let_in(site, operator, "web1")
            assert await keys_of(operator) == {"web1": "accepted"}

    _run(story())


RULES = (
    '[{allow: [publish], names: ["web*", "web*/local"], topics: ["metrics.>"]},'
    ' {deny: [publish], names: ["web2/local"], topics: ["metrics.secret.>"]}]'
)

EXPLAINED = [
    ("web1/local", "publish", "metrics.load", True, "allow publish to web*, web*/local on metrics.> (FILE:13)"),
    ("web2/local", "publish", "metrics.load", True, "allow publish to web*, web*/local on metrics.> (FILE:13)"),
    ("web2/local", "publish", "metrics.secret.x", False, "deny publish to web2/local on metrics.secret.> (FILE:13)"),
    ("web2/local", "publish", "metrics.>", False, "deny publish to web2/local on metrics.secret.> (FILE:13)"),
    ("web1/local", "publish", "other", False, "no rule allows it"),
    ("web1/local", "subscribe", "metrics.load", False, "no rule allows it"),
    ("db1", "publish", "metrics.load", False, "no rule allows it"),
    ("web1", "publish", "$qulo.x", False, "the system's own topics are the hub's to publish on (built in)"),
    ("web1", "subscribe", "local.x", False, "local topics are for programs that use this host's own ipc"),
    ("token/0123", "request", "$qulo.local.enrol", True, "a token may enrol one key (built in)"),
    ("token/0123", "publish", "metrics.x", False, "a token may enrol, and do nothing else (built in)"),
]


def test_which_rule_decides_is_explained_with_its_place() -> None:
    async def story() -> None:
        async with with_operator(permissions=RULES) as (site, _, operator):
            line = (site.path / "m.yaml").read_text().splitlines().index(f"permissions: {RULES}") + 1
            for name, verb, topic, allowed, rule in EXPLAINED:
                answer = await ask(operator, "auth.explain", name=name, verb=verb, topic=topic)
                assert answer["allowed"] is allowed, (name, verb, topic)
                assert answer["rule"].startswith(rule.replace("FILE:13", f"{site.path}/m.yaml:{line}"))
            with pytest.raises(UsageError, match=r"unknown verb 'pubish'; there are publish, subscribe"):
                await ask(operator, "auth.explain", name="x", verb="pubish", topic="t")
            with pytest.raises(qulo.BadTopic):
                await ask(operator, "auth.explain", name="x", verb="publish", topic="a b")

    _run(story())


# -- bad arguments


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("token.new", {}, "bad argument"),
    ("token.new", {"expires": "soon", "uses": 1}, "expires and uses are numbers"),
    ("token.new", {"expires": math.nan, "uses": 1}, "expires and uses are numbers"),
    ("token.new", {"expires": math.inf, "uses": 1}, "a token can be good for 1 s to 30 days"),
    ("token.new", {"expires": 60, "uses": math.inf}, "expires and uses are numbers"),
    ("token.new", {"expires": 60, "uses": True}, "expires and uses are numbers"),
    ("token.new", {"expires": 0.5, "uses": 1}, "a token can be good for 1 s to 30 days"),
    ("token.new", {"expires": MAX_EXPIRES + 1, "uses": 1}, "a token can be good for 1 s to 30 days"),
    ("token.new", {"expires": 60, "uses": 0}, "a token can be good for 1 to 10000 keys"),
    ("token.new", {"expires": 60, "uses": MAX_USES + 1}, "a token can be good for 1 to 10000 keys"),
    ("token.new", {"expires": 60, "uses": 2, "name": "a"}, "a token with a name is good for one key"),
    ("token.new", {"expires": 60, "uses": 1, "name": "../x"}, "is not a name"),
    ("token.new", {"expires": 60, "uses": 1, "addresses": ["tcp://h:1"] * 9}, "a token holds 8 addresses at most"),
    ("token.new", {"expires": 60, "uses": 1, "addresses": ["tcp://h:99999"]}, "'tcp://h:99999' is no address"),
    ("token.new", {"expires": 60, "uses": 1, "addresses": "tcp://h:1"}, "is no address|at most"),
    ("token.new", {"expires": 60, "uses": 1, "addresses": 7}, "bad argument"),
    ("token.rm", {}, "bad argument"),
    ("token.rm", {"id": "../../x"}, "there is no token"),
    ("keys.show", {"key": 7}, "key is a word"),
    ("keys.show", {"key": ""}, "key is a word"),
    ("keys.accept", {"key": "0123456789"}, "bad argument"),
    ("keys.revoke", {"key": "web1"}, "no such key can be found"),
    ("auth.explain", {"name": "x", "verb": "publish"}, "bad argument"),
]


def test_a_bad_argument_is_said_and_costs_nobody_anything() -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            for verb, argument, why in BAD:
                with pytest.raises(qulo.QuloError, match=why):
                    await ask(operator, verb, **argument)
            with pytest.raises(qulo.QuloError):
                await operator.request(f"{ADMIN}.keys.show", ["not", "a", "map"])
            assert (await ask(operator, "token.ls"))["tokens"] == []
            assert not (site.path / "m" / "tokens").exists()

    _run(story())


def test_a_token_names_this_host_where_all_interfaces_are_bound_without_waiting_for_a_resolver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()

    def hangs() -> str:
        answers.wait(20)
        return "master.example.net"

    monkeypatch.setattr(socket, "getfqdn", hangs)
    monkeypatch.setattr(socket, "gethostname", lambda: "master")

    async def story() -> None:
        async with with_operator(listen="tcp://0.0.0.0:0", publish="tcp://0.0.0.0:0") as (_, service, operator):
            port = service.addresses["listen"].rpartition(":")[2]
            assert decode(await new_token(operator)).addresses == (f"tcp://master:{port}",)
            answers.set()
            full = (f"tcp://master.example.net:{port}",)
            for _ in range(1000):
                if decode(await new_token(operator)).addresses == full:
                    return
            raise AssertionError("the full name was never used")

    _run(story())


@pytest.mark.parametrize("full", ["localhost", "localhost.localdomain"])
def test_a_token_never_sends_other_hosts_to_themselves(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = threading.Event()

    def answers() -> str:
        looked_up.set()
        return full

    monkeypatch.setattr(socket, "getfqdn", answers)
    monkeypatch.setattr(socket, "gethostname", lambda: "master")

    async def story() -> None:
        async with with_operator(listen="tcp://0.0.0.0:0", publish="tcp://0.0.0.0:0") as (_, _, operator):
            await until(looked_up.is_set)
            assert decode(await new_token(operator)).addresses[0].startswith("tcp://master:")

    _run(story())


# -- a full disk


def test_a_full_disk_lets_nobody_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with with_operator() as (site, _, operator):
            text, who = await new_token(operator), curve.load_key(key_file(site, "web1"))
            real = curve._write_new

            def full(*_: Any) -> None:
                raise OSError(28, os.strerror(28))

            monkeypatch.setattr(curve, "_write_new", full)
            with pytest.raises(qulo.QuloError, match=r"cannot write .*web1\.pub: No space left on device") as caught:
                await enrol(text, who, "web1")
            assert caught.value.code == "file"
            assert await keys_of(operator) == {}
            with pytest.raises(qulo.QuloError, match="No space left on device"):
                await new_token(operator)
            monkeypatch.setattr(curve, "_write_new", real)
            assert await enrol(text, who, "web1") == "web1"

    _run(story())


def test_tokens_are_listed_without_anything_that_lets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with with_operator() as (_, _, operator):
            text = await new_token(operator, "web1", expires=600)
            (row,) = (await ask(operator, "token.ls"))["tokens"]
            assert (row["name"], row["uses"]) == ("web1", 1)
            assert set(row) == {"id", "name", "expires", "uses"}
            assert row["id"] == fingerprint(decode(text).key.public)[:16]
            assert time.time() + 590 < row["expires"] < time.time() + 601
            await ask(operator, "token.rm", id=row["id"])
            assert (await ask(operator, "token.ls"))["tokens"] == []
            with pytest.raises(qulo.Denied, match="the master does not know this token"):
                await enrol(text, curve.Key(*zmq.curve_keypair()))
            assert await keys_of(operator) == {}

    _run(story())


def test_a_crowd_that_knocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PENDING", 3)

    async def story() -> None:
        async with with_operator() as (site, _, operator):
            for number in range(5):
                with pytest.raises(qulo.Denied):
                    await bus_of(site, f"stranger{number}").open()
            waiting = list(await keys_of(operator))
            assert waiting == [fingerprint_of(site, f"stranger{number}") for number in (2, 3, 4)]

    _run(story())
