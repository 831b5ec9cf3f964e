"""Getting in with a token; every token that lets nobody in, and what is said then."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import zmq

from qulo.errors import Denied, EndpointError, QuloError, UsageError
from qulo.net import curve, join, keys, token
from qulo.net.curve import Key, fingerprint
from qulo.net.token import Token, decode, encode
from qulo.protocol import wire
from qulo.protocol.events import Answer
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.enrolled import ask, enrol, keys_of, new_token, start_master
from tests.unit.qulo.site import Site
from tests.unit.qulo.test_roles import free_port


def a_key() -> Key:
    """Somebody's pair."""
    return Key(*zmq.curve_keypair())


def test_a_token_for_two_lets_two_in_and_refuses_the_third(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                text = await new_token(operator, uses=2)
                names = [await enrol(text, a_key(), name) for name in ("web1", "web2")]
                assert names == ["web1", "web2"]
                with pytest.raises(Denied, match=r"make another one \(`qulo token new` on the master\)"):
                    await enrol(text, a_key(), "web3")
                assert await keys_of(operator) == {"web1": "accepted", "web2": "accepted"}

    _run(story())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("why", ["used", "expired", "removed", "used long ago", "removed, and the master restarted"])
def test_a_token_that_is_good_no_more_is_refused_at_once_with_what_to_do(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with Site() as site:
            master = await start_master(site)
            async with site.bus("m", local=True) as operator:
                text = await new_token(operator, uses=1)
                if why.startswith("used"):
                    await enrol(text, a_key(), "web1")
                elif why.startswith("removed"):
                    await ask(operator, "token.rm", id=fingerprint(decode(text).key.public)[:16])
                if why in ("expired", "used long ago"):
                    assert master._keys is not None
                    monkeypatch.setattr(master._keys, "_clock", lambda: 4e9)
            if "restarted" in why:
                await site.stop("m")
                await site.start("m", curve="on")
            with pytest.raises(Denied, match=r"make another one \(`qulo token new` on the master\)"):
                await enrol(text, a_key(), "web2")

    _run(story(), timeout=10)


def test_a_token_of_another_master_at_that_address_is_said_to_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The master was installed anew, for example."""
    monkeypatch.setattr(join, "PATIENCE", 0.5)

    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                ours = decode(await new_token(operator))
                other = encode(Token(ours.addresses, zmq.curve_keypair()[0], ours.key))
                with pytest.raises(EndpointError, match=r"handshake failed; do curve .* match\?\); is the master") as e:
                    await enrol(other, a_key())
                assert "`qulo token new --address` on the master" in str(e.value)
                assert await keys_of(operator) == {}

    _run(story())


def test_where_nobody_listens_every_address_is_named_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "PATIENCE", 0.5)

    async def story() -> None:
        addresses = tuple(f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        with pytest.raises(EndpointError, match="is the master running, and can this host reach it there") as caught:
            await enrol(encode(Token(addresses, zmq.curve_keypair()[0], a_key())), a_key())
        for address in addresses:
            assert f"{address}: nobody listens there" in str(caught.value)

    _run(story())


def test_one_address_of_several_is_enough() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                ours = decode(await new_token(operator, "web1"))
                addresses = (f"tcp://127.0.0.1:{free_port()}", *ours.addresses)
                assert await enrol(encode(Token(addresses, ours.master, ours.key)), a_key()) == "web1"

    _run(story())


def test_a_name_that_is_none_is_refused_and_costs_no_use() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                text = await new_token(operator)
                with pytest.raises(UsageError, match=r"'\.\./x' is not a name: 1 to 64 of a-z"):
                    await enrol(text, a_key(), "../x")
                assert await enrol(text, a_key(), "web1") == "web1"

    _run(story())


def test_an_answer_that_was_lost_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key has been accepted, but its owner has not heard of it; the same token is good for the same key."""

    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                text, mine = await new_token(operator), a_key()
                assert [await enrol(text, mine, name) for name in ("web1", "web2")] == ["web1", "web1"]
                assert await keys_of(operator) == {"web1": "accepted"}

    _run(story())


@pytest.mark.parametrize("body", [b"", b"\xc1", wire.pack(7), wire.pack({}), wire.pack([1])])
def test_an_answer_that_is_none_is_an_error_not_a_traceback(body: bytes) -> None:
    async def story() -> None:
        enrolment = join._Enrolment(asyncio.get_running_loop().create_future())
        join._answered(Answer(1, "", wire.PACKED, body), enrolment)
        with pytest.raises(QuloError, match="the hub's answer is not one: do the versions match"):
            await enrolment.done

    _run(story())


# -- an agent


def test_a_bad_token_leaves_an_agent_as_it_was() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                text = await new_token(operator)
                await enrol(text, a_key(), "web1")
                for bad, kind in (("", UsageError), (text[:-1], UsageError), (text, Denied)):
                    with pytest.raises(kind):
                        await site.start_agent("a", "m", bad, curve="on")
                    assert not [path for path in (site.path / "a").glob("*") if path.name.startswith("joined")]
                    await site.stop("a")

    _run(story())


def test_joining_again_takes_another_master() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            other: Any = await site.start("other", curve="on")
            async with site.bus("m", local=True) as first, site.bus("other", local=True) as second:
                await site.start_agent("a", "m", await new_token(first, "web1"), curve="on")
                await site.stop("a")
                agent = await site.start_agent("a", "other", await new_token(second, "web1"), curve="on")
                assert agent.connected
                assert curve.load_public(site.path / "a" / "joined.pub") == other._hub_key().public

    _run(story())


def test_a_key_that_has_been_refused_is_told_so() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                mine = a_key()
                await enrol(await new_token(operator, "web1"), mine)
                await ask(operator, "keys.revoke", key="web1")
                with pytest.raises(Denied, match=f"`qulo keys delete {fingerprint(mine.public)}` forgets that"):
                    await enrol(await new_token(operator, "web1"), mine)

    _run(story())


def test_nothing_of_a_token_is_in_its_hubs_files() -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                text = await new_token(operator, "web1", uses=1)
                secret = decode(text).key.secret
                for path in site.path.rglob("*"):
                    if path.is_file():
                        assert secret not in path.read_bytes()
                        assert text.encode() not in path.read_bytes()

    _run(story())


def test_the_limits_of_a_token_are_known_before_it_is_used() -> None:
    assert keys.TOKENS == 1000
    assert token.MAX_ADDRESSES == 8
