"""Who comes in with which key: pending, accepted, refused; tokens; and what a full disk or a kill leaves behind."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from qulo.errors import ConfigError, Denied, FileError, QuloError, UsageError
from qulo.net import curve, keys
from qulo.net.curve import fingerprint
from qulo.net.keys import PARTING, PENDING, SPENT, TOKENS, Keys


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def some(tmp_path: Path, clock: Clock) -> Keys:
    return Keys(tmp_path / "accepted", tmp_path / "data", clock)


def again(some: Keys, tmp_path: Path, clock: Clock) -> Keys:
    """The keys as the next start finds them."""
    there = Keys(tmp_path / "accepted", tmp_path / "data", clock)
    there.load()
    return there


def key() -> bytes:
    """Somebody's public key."""
    return zmq.curve_keypair()[0]


def knock(some: Keys, key: bytes, address: str = "10.0.0.1") -> bytes:
    """An unknown key tries to come in."""
    assert some.principal(key, address) is None
    return key


def states(some: Keys) -> dict[str, tuple[str, str]]:
    """Fingerprint → state and name."""
    return {row["fingerprint"]: (row["state"], row["name"]) for row in some.rows()}


def files(place: Path) -> list[str]:
    """What there is, without directories."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


# -- knocking, and what an operator does


def test_an_unknown_key_waits_with_its_address_and_the_log_says_what_to_type(
    some: Keys, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    who = knock(some, key(), "10.0.0.1")
    clock.now += 5
    knock(some, who, "10.0.0.2")
    (row,) = some.rows()
    assert (row["state"], row["name"], row["fingerprint"], row["key"]) == (
        "pending",
        "",
        fingerprint(who),
        who.decode(),
    )
    assert (row["address"], row["first"], row["seen"], row["tries"]) == ("10.0.0.2", 1000, 1005, 2)
    (record,) = caplog.records  # once, not at each knock
    assert f"an unknown key asks to be let in: {fingerprint(who)}, from 10.0.0.1;" in record.message
    assert f"`qulo keys accept {fingerprint(who)} --name NAME`" in record.message


def test_an_accepted_key_has_its_name_from_then_on_and_after_a_start(some: Keys, tmp_path: Path, clock: Clock) -> None:
    who = knock(some, key())
    assert some.accept(fingerprint(who), "web1") == who
    for each in (some, again(some, tmp_path, clock)):
        assert each.principal(who, "anywhere") == "web1"
        assert states(each) == {fingerprint(who): ("accepted", "web1")}
    path = tmp_path / "accepted" / "web1.pub"
    assert curve.load_public(path) == who
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "accepted").stat().st_mode) == 0o700


def test_a_rejected_key_does_not_knock_again(some: Keys, tmp_path: Path, clock: Clock) -> None:
    who = knock(some, key())
    some.reject(fingerprint(who)[:8])
    for each in (some, again(some, tmp_path, clock)):
        knock(each, who)
        assert states(each) == {fingerprint(who): ("refused", "")}


def test_a_revoked_key_is_nobodys_and_its_name_is_free(some: Keys, tmp_path: Path, clock: Clock) -> None:
    first, second = knock(some, key()), knock(some, key())
    some.accept(fingerprint(first), "web1")
    assert some.revoke("web1") == "web1"
    some.accept(fingerprint(second), "web1")
    for each in (some, again(some, tmp_path, clock)):
        knock(each, first)
        assert each.principal(second, "") == "web1"
        assert states(each) == {fingerprint(first): ("refused", "web1"), fingerprint(second): ("accepted", "web1")}


def test_every_revoked_owner_of_a_name_stays_refused(some: Keys, tmp_path: Path, clock: Clock) -> None:
    owners = [knock(some, key()) for _ in range(3)]
    for owner in owners:
        some.accept(fingerprint(owner), "web1")
        some.revoke("web1")
    for each in (some, again(some, tmp_path, clock)):
        assert {state for state, _ in states(each).values()} == {"refused"}
        assert [name for _, name in states(each).values()].count("web1") == 1
        assert set(each.refused) == set(owners)


def test_a_refused_key_can_be_accepted_after_all(some: Keys, tmp_path: Path, clock: Clock) -> None:
    who = knock(some, key())
    some.accept(fingerprint(who), "web1")
    some.revoke("web1")
    some.accept("web1", "web2")  # by the name that it had
    for each in (some, again(some, tmp_path, clock)):
        assert each.principal(who, "") == "web2"
        assert states(each) == {fingerprint(who): ("accepted", "web2")}


def test_a_deleted_key_is_forgotten_and_may_knock_again(some: Keys, tmp_path: Path, clock: Clock) -> None:
    accepted, refused, waiting = (knock(some, key()) for _ in range(3))
    some.accept(fingerprint(accepted), "web1")
    some.reject(fingerprint(refused))
    assert some.delete("web1") == "web1"
    assert some.delete(fingerprint(refused)) is None
    assert some.delete(fingerprint(waiting)) is None
    assert some.rows() == again(some, tmp_path, clock).rows() == []
    assert files(tmp_path) == []
    for who in (accepted, refused, waiting):
        knock(some, who)
    assert {state for state, _ in states(some).values()} == {"pending"}


def test_all_about_one_key_is_shown(some: Keys) -> None:
    who = knock(some, key(), "10.0.0.9")
    assert some.show(fingerprint(who)[:12])["address"] == "10.0.0.9"
    some.accept(fingerprint(who), "web1")
    row = {"state": "accepted", "name": "web1", "fingerprint": fingerprint(who), "key": who.decode()}
    assert some.show("web1") == some.show(fingerprint(who)) == row


def test_a_second_key_under_a_taken_name_is_refused_and_is_an_error_in_the_log(
    some: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = knock(some, key()), knock(some, key())
    some.accept(fingerprint(first), "web1")
    with pytest.raises(Denied, match=r"the name web1 is taken by another key: on the master, `qulo keys revoke web1`"):
        some.accept(fingerprint(second), "web1")
    assert states(some)[fingerprint(second)] == ("pending", "")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == f"a second key ({fingerprint(second)}) asks for the name web1: refused"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "a\0b", "", "Web1", "a b", "x" * 65, "web1\n", "a#1", "token/a"]
)
def test_what_is_no_name_touches_no_file(some: Keys, tmp_path: Path, name: str) -> None:
    who = knock(some, key())
    with pytest.raises(UsageError, match="is not a name: 1 to 64 of a-z 0-9"):
        some.accept(fingerprint(who), name)
    with pytest.raises(UsageError, match="is not a name"):
        some.new_ticket(name, 60, 1)
    public = some.new_ticket(None, 60, 1).public
    with pytest.raises(UsageError, match="is not a name"):
        some.enrol(some.tickets[public].id, who, name)
    assert [path for path in files(tmp_path) if "tokens" not in path] == []
    assert some.tickets[public].uses == 1


@pytest.mark.parametrize("which", ["..", "../../etc/passwd", "web1/../web1", "*", "", "\0"])
@pytest.mark.parametrize("act", ["reject", "revoke", "delete", "show"])
def test_nothing_but_a_name_or_a_fingerprint_finds_a_key(some: Keys, act: str, which: str) -> None:
    knock(some, key())
    with pytest.raises(UsageError, match=r"no such key can be found: .* `qulo keys ls` lists them"):
        getattr(some, act)(which)


def test_a_fingerprint_may_be_shortened_but_not_too_much(some: Keys) -> None:
    who = knock(some, key())
    for length in (1, 7):
        with pytest.raises(UsageError, match="may be shortened to 8 characters"):
            some.accept(fingerprint(who)[:length], "web1")
    assert some.accept(fingerprint(who)[:8], "web1") == who


def test_an_ambiguous_beginning_of_a_fingerprint_is_refused(some: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = key(), key()
    monkeypatch.setattr(keys, "fingerprint", lambda key: "0123456789abcdef" + ("a" if key == one else "b") * 16)
    knock(some, one)
    knock(some, two)
    with pytest.raises(UsageError, match=r"0123456789 is more than one key: give \(more of\) its fingerprint"):
        some.accept("0123456789", "web1")
    assert some.accept("0123456789abcdefa", "web1") == one


def test_a_name_that_two_keys_have_or_had_needs_a_fingerprint(some: Keys) -> None:
    old, new = knock(some, key()), knock(some, key())
    some.accept(fingerprint(old), "web1")
    some.revoke("web1")
    some.accept(fingerprint(new), "web1")
    with pytest.raises(UsageError, match="web1 is more than one key"):
        some.delete("web1")
    assert some.delete(fingerprint(old)) is None
    assert some.delete("web1") == "web1"


def test_no_more_than_so_many_keys_wait_and_the_oldest_makes_room(some: Keys, clock: Clock) -> None:
    knocking = [knock(some, key()) for _ in range(PENDING)]
    knock(some, knocking[0])  # heard of again: it is the newest now
    more = knock(some, key())
    assert PENDING == len(some.pending) == 1000
    assert knocking[0] in some.pending
    assert more in some.pending
    assert knocking[1] not in some.pending


# -- files that others wrote


def test_a_reload_takes_over_what_was_put_there_by_hand(some: Keys, tmp_path: Path) -> None:
    who = knock(some, key())
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "web1.pub").write_bytes(who)
    some.load()
    assert some.principal(who, "") == "web1"
    assert states(some) == {fingerprint(who): ("accepted", "web1")}


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("data/refused/x.pub", "nonsense", r"x\.pub: not a public key"),
        ("data/tokens/1.json", "{", r"1\.json: not a token's file \(.*\); remove it"),
        ("data/tokens/1.json", "[]", "not a token's file"),
        ("data/tokens/1.json", '{"public": 7, "name": null, "expires": 1, "uses": 1}', "not a token's file"),
        ("data/tokens/1.json", "\udcff", "not a token's file"),
    ],
)
def test_a_bad_file_is_named_and_changes_nothing(some: Keys, tmp_path: Path, file: str, content: str, why: str) -> None:
    who = knock(some, key())
    some.accept(fingerprint(who), "db1")
    ticket = some.new_ticket(None, 60, 1)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=why):
        some.load()
    assert some.principal(who, "") == "db1"
    assert ticket.public in some.tickets


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("web1.pub", "nonsense", "web1.pub: not a public key"),
        ("Web 1.pub", "", "a key file is named NAME.pub"),
        ("hub.pub", "KEY", "hub is what this hub itself is called"),
        ("zz.pub", "DB1", "this key is db1's already"),
    ],
)
def test_one_bad_file_lets_nobody_in_and_keeps_nobody_out(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, file: str, content: str, why: str
) -> None:
    accepted = tmp_path / "accepted"
    accepted.mkdir()
    old, new = key(), key()
    (accepted / "db1.pub").write_bytes(old)
    keys = Keys(accepted, tmp_path / "data", clock, "hub")
    keys.load()
    (accepted / file).write_text(content.replace("KEY", key().decode()).replace("DB1", old.decode()))
    (accepted / "new.pub").write_bytes(new)
    keys.load()
    assert keys.accepted == {old: "db1", new: "new"}
    (said,) = [text for text in caplog.messages if "is left out, the others hold" in text]
    assert why in said
    assert file in said


def test_a_key_whose_file_is_bad_by_now_lets_nobody_in(tmp_path: Path, clock: Clock) -> None:
    accepted = tmp_path / "accepted"
    accepted.mkdir()
    who = key()
    (accepted / "db1.pub").write_bytes(who)
    keys = Keys(accepted, tmp_path / "data", clock, "hub")
    keys.load()
    (accepted / "db1.pub").write_bytes(who[:20])
    keys.load()
    assert keys.principal(who, "") is None


def test_a_refused_key_that_is_put_there_by_hand_stays_refused_and_the_log_says_so(
    some: Keys, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    who = knock(some, key())
    some.reject(fingerprint(who))
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "web1.pub").write_bytes(who)
    some.load()
    knock(some, who)
    assert states(some) == {fingerprint(who): ("refused", "")}
    assert f"web1.pub stays outside: this key is refused. `qulo keys accept {fingerprint(who)} --name" in caplog.text
    some.accept(fingerprint(who), "web2")  # under another name: that file must not make a second owner of one key
    assert again(some, tmp_path, clock).accepted == some.accepted == {who: "web2"}


def test_anothers_left_over_file_does_not_keep_a_name(some: Keys, tmp_path: Path, clock: Clock) -> None:
    old, new = knock(some, key()), knock(some, key())
    some.reject(fingerprint(old))
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "web1.pub").write_bytes(old)
    some.load()
    knock(some, new)
    some.accept(fingerprint(new), "web1")
    assert again(some, tmp_path, clock).accepted == some.accepted == {new: "web1"}


# -- tokens


def ticket_of(some: Keys, name: str | None = None, expires: float = 60, uses: int = 1) -> tuple[str, bytes]:
    """A new token: its id and its public key."""
    public = some.new_ticket(name, expires, uses).public
    return some.tickets[public].id, public


def test_a_tokens_key_opens_the_door_for_its_principal_alone(some: Keys, tmp_path: Path, clock: Clock) -> None:
    one, public = ticket_of(some)
    for each in (some, again(some, tmp_path, clock)):
        assert each.principal(public, "") == f"token/{one}"
        assert each.rows() == []
    assert stat.S_IMODE((tmp_path / "data" / "tokens" / f"{one}.json").stat().st_mode) == 0o600


def test_a_tokens_secret_is_not_kept(some: Keys, tmp_path: Path) -> None:
    secret = some.new_ticket("web1", 60, 1).secret.decode()
    assert not [path for path in files(tmp_path) if secret in (tmp_path / path).read_text()]
    assert secret not in repr(some.tickets)


def test_a_token_lets_one_key_in_under_its_own_name_or_the_one_that_is_asked_for(some: Keys) -> None:
    fixed, _ = ticket_of(some, "web1")
    free, _ = ticket_of(some)
    one, two = key(), key()
    assert some.enrol(fixed, one, "something.else") == "web1"
    assert some.enrol(free, two, "db1") == "db1"
    assert some.accepted == {one: "web1", two: "db1"}


def test_the_same_key_again_is_answered_the_same(some: Keys) -> None:
    one, _ = ticket_of(some)
    other, public = ticket_of(some)
    who = key()
    assert [some.enrol(one, who, "web1") for _ in range(3)] == ["web1"] * 3
    assert some.enrol(other, who, "web2") == "web1"  # it has a name already, and this token is not used up
    assert some.tickets[public].uses == 1


def test_a_used_token_lets_nobody_else_in_but_its_key_may_still_say_goodbye(
    some: Keys, tmp_path: Path, clock: Clock
) -> None:
    one, public = ticket_of(some)
    some.enrol(one, key(), "web1")
    with pytest.raises(Denied, match=r"this token has been used, or has expired: make another one \(`qulo token new`"):
        some.enrol(one, key(), "web2")
    assert some.principal(public, "") == f"token/{one}"
    clock.now += PARTING
    assert some.principal(public, "") is None
    assert not list((tmp_path / "data" / "tokens").iterdir())


def test_a_token_for_two_is_good_for_two(some: Keys, tmp_path: Path, clock: Clock) -> None:
    one, public = ticket_of(some, uses=2)
    some.enrol(one, key(), "web1")
    there = again(some, tmp_path, clock)  # a restart in between does not give a use back
    assert there.tickets[public].uses == 1
    there.enrol(one, key(), "web2")
    with pytest.raises(Denied, match="has been used"):
        there.enrol(one, key(), "web3")


def test_an_expired_token_is_worthless(some: Keys, tmp_path: Path, clock: Clock) -> None:
    one, public = ticket_of(some, expires=10)
    clock.now += 10
    with pytest.raises(Denied, match="has expired"):
        some.enrol(one, key(), "web1")
    assert some.principal(public, "") is None
    assert not list((tmp_path / "data" / "tokens").iterdir())


@pytest.mark.parametrize("end", ["used", "expired", "removed"])
def test_the_key_of_a_dead_token_does_not_wait_as_if_it_were_a_hosts(some: Keys, clock: Clock, end: str) -> None:
    """Somebody could accept it, and it is written in a string that has been handed around."""
    one, public = ticket_of(some, expires=10)
    if end == "used":
        some.enrol(one, key(), "web1")
    elif end == "removed":
        some.drop_ticket(one)
    clock.now += 60
    for _ in range(3):
        assert some.principal(public, "10.0.0.1") is None
    assert not some.pending


def test_a_removed_token_is_worthless_and_a_wrong_id_is_said(some: Keys, tmp_path: Path) -> None:
    one, public = ticket_of(some)
    some.drop_ticket(one)
    assert some.principal(public, "") is None
    assert not files(tmp_path)
    for wrong in (one, "../x", ""):
        with pytest.raises(UsageError, match=r"there is no token .*: `qulo token ls` lists them"):
            some.drop_ticket(wrong)


def test_a_token_for_a_taken_name_is_not_made_and_one_made_before_is_refused(some: Keys) -> None:
    before, public = ticket_of(some, "web1")
    some.enrol(ticket_of(some)[0], key(), "web1")
    with pytest.raises(Denied, match="the name web1 is taken by another key"):
        some.new_ticket("web1", 60, 1)
    with pytest.raises(Denied, match="the name web1 is taken by another key"):
        some.enrol(before, key(), "x")
    assert some.tickets[public].uses == 1


def test_a_refused_key_does_not_get_in_with_a_token(some: Keys) -> None:
    who = knock(some, key())
    some.reject(fingerprint(who))
    one, _ = ticket_of(some)
    with pytest.raises(Denied, match=f"this key was refused: on the master, `qulo keys delete {fingerprint(who)}`"):
        some.enrol(one, who, "web1")


def test_there_is_an_end_to_tokens_but_expired_ones_do_not_count(
    some: Keys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 1,000 waits for a disk prove nothing here
    for _ in range(TOKENS - 1):
        some.new_ticket(None, 60, 1)
    some.new_ticket(None, 10, 1)
    assert len(some.tickets) == TOKENS == 1000
    with pytest.raises(UsageError, match="there are 1000 tokens already: `qulo token ls`, `qulo token rm ID`"):
        some.new_ticket(None, 60, 1)
    clock.now += 10
    some.new_ticket(None, 60, 1)
    assert len(some.tickets) == TOKENS
    clock.now += 60
    some.new_ticket(None, 60, 1)
    assert len(some.tickets) == 1
    assert len(some._spent) == SPENT


# -- a kill, and a full disk


class Killed(BaseException):
    """The process ends here."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


Change = Callable[[Keys, bytes, str], object]

# What is under way: with a key that waits, one that is accepted as `old`, and a token.
CHANGES: dict[str, Change] = {
    "accept": lambda some, waiting, one: some.accept(fingerprint(waiting), "new"),
    "reject": lambda some, waiting, one: some.reject(fingerprint(waiting)),
    "revoke": lambda some, waiting, one: some.revoke("old"),
    "enrol": lambda some, waiting, one: some.enrol(one, waiting, "new"),
    "delete": lambda some, waiting, one: some.delete("old"),
    "drop": lambda some, waiting, one: some.drop_ticket(one),
    "token": lambda some, waiting, one: some.new_ticket(None, 60, 1),
    "accept refused": lambda some, waiting, one: some.accept("gone", "new"),
    "revoke another of that name": lambda some, waiting, one: _second_of_gone(some),
}


def _second_of_gone(some: Keys) -> None:
    who = knock(some, key())
    some.accept(fingerprint(who), "gone")
    some.revoke("gone")


def prepared(some: Keys) -> tuple[bytes, str]:
    """A key that waits and a token's id; `old` is accepted, `gone` refused."""
    for name in ("old", "gone"):
        some.accept(fingerprint(knock(some, key())), name)
    some.revoke("gone")
    one, _ = ticket_of(some)
    return knock(some, key()), one


def said(some: Keys) -> tuple[Any, ...]:
    """All that the files can say."""
    return some.accepted, some.refused, some.tickets


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("after", range(4))
def test_a_kill_leaves_what_was_or_what_was_to_be(  # noqa: PLR0917 - three of them are fixtures
    some: Keys, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, change: str, where: str, after: int
) -> None:
    """Between any two steps: the next start reads everything, whoever was accepted is, and a use is never doubled."""
    waiting, one = prepared(some)
    module: Any = os if where == "fsync" else Path
    real, calls = getattr(module, where), iter(range(100))
    monkeypatch.setattr(module, where, lambda *args, **more: killed() if next(calls) == after else real(*args, **more))
    try:
        CHANGES[change](some, waiting, one)
    except Killed:
        pass
    finally:
        monkeypatch.undo()
    there = again(some, tmp_path, clock)
    assert set(there.accepted.values()) <= {"old", "new", "gone"}
    if change not in ("revoke", "delete"):
        assert "old" in there.accepted.values()
    if change == "enrol":
        assert len(there.tickets) + ("new" in there.accepted.values()) <= 1
    if change not in ("accept", "enrol"):
        assert there.principal(waiting, "") is None
    # Whatever was cut off can be done again, and then it is done.
    knock(there, key())
    for which in [fingerprint(each) for each in [*there.accepted, *there.refused]]:
        if which in states(there):
            there.delete(which)
    assert not [path for path in files(tmp_path) if path.endswith(".pub")]


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("drop", "delete")])
def test_a_full_disk_is_said_and_nothing_has_changed(
    some: Keys, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    waiting, one = prepared(some)
    before = tuple(map(dict, said(some)))
    monkeypatch.setattr(curve, "_write_new", full)
    with pytest.raises(FileError, match=r"cannot write .*: No space left on device"):
        CHANGES[change](some, waiting, one)
    assert said(some) == before
    assert waiting in some.pending
    assert some.principal(waiting, "") is None
    monkeypatch.undo()
    CHANGES[change](some, waiting, one)
    assert said(again(some, tmp_path, clock)) == said(some) != before


def test_what_cannot_be_removed_is_said_but_a_revocation_holds(
    some: Keys, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting, one = prepared(some)
    (old,) = some.accepted

    def unwritable(path: Path, missing_ok: bool = False) -> None:
        if (path.suffix == ".pub" and path.exists()) or path.suffix == ".json":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", unwritable)
    before = tuple(map(dict, said(some)))
    for change in ("delete", "drop", "enrol"):
        with pytest.raises(FileError, match=r"cannot remove .*: Read-only file system"):
            CHANGES[change](some, waiting, one)
        assert said(some) == before
    assert some.revoke("old") == "old"
    assert "is revoked all the same" in caplog.text
    for each in (some, again(some, tmp_path, clock)):
        assert each.principal(old, "") is None


def test_left_over_new_files_are_harmless(some: Keys, tmp_path: Path, clock: Clock) -> None:
    waiting, _ = prepared(some)
    for place in ("accepted/web1.new", "data/refused/x.new", "data/tokens/x.new"):
        (tmp_path / place).write_text("half a")
    there = again(some, tmp_path, clock)
    assert said(there) == said(some)
    knock(there, waiting)
    there.accept(fingerprint(waiting), "web1")
    assert not (tmp_path / "accepted" / "web1.new").exists()


def test_a_hub_that_keeps_no_accepted_keys_says_so_and_spends_no_token(tmp_path: Path, clock: Clock) -> None:
    some = Keys(None, tmp_path, clock)
    some.load()
    one, public = ticket_of(some)
    with pytest.raises(QuloError, match="accepted_keys is not set"):
        some.enrol(one, key(), "web1")
    assert some.tickets[public].uses == 1
