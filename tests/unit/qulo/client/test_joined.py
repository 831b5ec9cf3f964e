"""`qulo join` for a user's programs: what is kept, who finds it, and what wins over it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import qulo
import qulo.sync
from qulo import config
from qulo.client import joined
from qulo.errors import ConfigError, Denied, UsageError
from qulo.net import curve
from tests.unit.qulo.aio_tools import _run
from tests.unit.qulo.net.enrolled import keys_of, new_token, start_master
from tests.unit.qulo.site import Site


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's things are; no hub on this host answers, whoever runs one here."""
    monkeypatch.setattr(joined, "_place", lambda: tmp_path)
    monkeypatch.setattr(config, "client_urls", lambda environ, uid: _urls(environ.get("QULO_URL"), tmp_path))
    monkeypatch.delenv("QULO_URL", raising=False)
    return tmp_path


def _urls(given: str | None, place: Path) -> list[str]:
    return given.split(",") if given else [f"ipc://{place}/nobody.sock"]


@contextlib.asynccontextmanager
async def member(name: str | None = None) -> AsyncIterator[tuple[Site, qulo.Bus]]:
    """A master, its operator, and this user's programs let in."""
    async with Site() as site:
        await start_master(site)
        async with site.bus("m", local=True) as operator:
            text = await new_token(operator, name)
            got, addresses = await asyncio.to_thread(joined.join, text, None)
            assert addresses == (site.url("m"),)
            assert await keys_of(operator) == {got: "accepted"}
            yield site, operator


def ask_blocking() -> str:
    """A program without an event loop."""
    with qulo.sync.connect() as bus:
        return str(bus.request("$qulo.list")["hub"]["name"])


def test_programs_find_the_hub_without_an_address(home: Path) -> None:
    async def story() -> None:
        async with member("ada") as (site, operator), operator.subscribe("t") as sub:
            async with qulo.connect() as bus:
                assert bus.url == site.url("m")
                await bus.publish("t", 1)
                assert (await sub.next(5)).body == 1  # type: ignore[union-attr]
            assert await asyncio.to_thread(ask_blocking) == site.services["m"].hub.name

    _run(story())
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {
        "client.json": 0o600,
        "client.key": 0o600,
        "client.pub": 0o644,
    }


def test_without_a_name_the_token_or_the_user_and_host_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "Ada L")
    monkeypatch.setattr(socket, "gethostname", lambda: "Web1.example.net")

    async def story() -> None:
        async with member() as (_, operator):
            assert list(await keys_of(operator)) == ["ada-l.web1"]

    _run(story())


def test_qulo_url_wins_and_the_key_is_for_the_joined_addresses_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with member("ada") as (site, _):
            monkeypatch.setenv("QULO_URL", site.url("m", local=True))
            async with qulo.connect() as bus:
                assert bus.url.startswith("ipc://")
            monkeypatch.setenv("QULO_URL", site.url("m"))
            async with qulo.connect() as bus:
                assert bus.url == site.url("m")
            await site.start("plain")
            monkeypatch.setenv("QULO_URL", site.url("plain"))
            async with qulo.connect() as bus:
                assert bus.url == site.url("plain")
            monkeypatch.setenv("QULO_URL", "ipc:///nowhere.sock")
            with pytest.raises(qulo.EndpointError, match=r"no hub answers at ipc:///nowhere\.sock"):
                await qulo.connect(timeout=0.2).open()

    _run(story())


def test_what_a_program_says_itself_wins() -> None:
    async def story() -> None:
        async with member("ada") as (site, operator):
            await site.start("other", curve="on")
            mine = site.path / "mine.key"
            curve.make_key(mine)
            pinned = site.path / "other" / "master.pub"
            async with qulo.connect(site.url("m", local=True)) as bus:
                assert bus.url.startswith("ipc://")
            with pytest.raises(Denied, match="does not accept our key"):
                await qulo.connect(site.url("other"), server_key=pinned, key=mine).open()
            with pytest.raises(qulo.EndpointError):  # an address, and no keys: those of the joined hub are not for it
                await qulo.connect(site.url("other"), timeout=0.2).open()
            assert list(await keys_of(operator)) == ["ada"]

    _run(story())


def test_joining_again_takes_another_hub_with_the_same_key() -> None:
    async def story() -> None:
        async with member("ada") as (site, _):
            await site.start("other", curve="on")
            async with site.bus("other", local=True) as operator:
                await asyncio.to_thread(joined.join, await new_token(operator), "ada2")
                assert await keys_of(operator) == {"ada2": "accepted"}
                async with qulo.connect() as bus:
                    assert bus.url == site.url("other")

    _run(story())


def test_a_token_that_is_none_changes_nothing(home: Path) -> None:
    async def story() -> None:
        async with member("ada") as (_, operator):
            before = (home / "client.json").read_text()
            text = await new_token(operator)
            with pytest.raises(UsageError, match="damaged"):
                await asyncio.to_thread(joined.join, text[:-1], None)
            for nothing in ("", "qulo1_"):
                with pytest.raises(UsageError, match="`qulo token new` on the master"):
                    await asyncio.to_thread(joined.join, nothing, None)
            assert (home / "client.json").read_text() == before

    _run(story())


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"addresses": 7, "key": "x"}', '{"addresses": ["tcp://a:1"]}']
)
def test_what_was_kept_and_cannot_be_read_is_said_with_what_to_do(home: Path, content: str) -> None:
    (home / "client.json").write_text(content)
    with pytest.raises(ConfigError, match=r"client\.json: cannot be read \(.*\); `qulo join` again"):
        qulo.connect()


def test_a_key_that_others_can_read_is_refused_with_the_chmod(home: Path) -> None:
    async def story() -> None:
        async with member("ada"):
            (home / "client.key").chmod(0o644)
            with pytest.raises(ConfigError, match=rf"run: chmod 600 {home}/client\.key"):
                qulo.connect()

    _run(story())


def test_who_has_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Site() as site:
            await start_master(site)
            async with site.bus("m", local=True) as operator:
                monkeypatch.setattr(joined, "_place", lambda: None)
                text = await new_token(operator)
                with pytest.raises(ConfigError, match="has no home to keep a key in: set HOME or XDG_DATA_HOME"):
                    await asyncio.to_thread(joined.join, text, None)
                assert joined.load() is None

    _run(story())
