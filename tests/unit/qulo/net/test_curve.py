"""Key files: made private, refused when they are not, and never shown."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
import zmq

from qulo.errors import ConfigError, FileError
from qulo.net import curve


def mode_of(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def make_public(path: Path) -> bytes:
    """A public key file for somebody."""
    public, _ = zmq.curve_keypair()
    path.write_bytes(public + b"\n")
    return public


# -- a hub's or a program's own key


def test_a_key_is_made_private_with_its_public_half_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    before = os.umask(0)  # the modes must not depend on whoever starts it
    try:
        key = curve.make_key(path)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert mode_of(tmp_path / "keys" / "master.pub") == 0o644
    assert curve.load_key(path) == key
    assert curve.load_public(curve.public_path(path)) == key.public
    assert zmq.curve_public(key.secret) == key.public
    assert key.secret not in curve.public_path(path).read_bytes()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    key = curve.make_key(path)
    with pytest.raises(FileError, match=f"cannot make the key {path}: File exists"):
        curve.make_key(path)
    assert curve.load_key(path) == key


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "master.key").symlink_to(target)
    with pytest.raises(FileError, match="File exists"):
        curve.make_key(tmp_path / "master.key")
    assert not target.exists()


def test_the_first_start_makes_the_key_and_the_next_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "agent.key"
    assert curve.load_or_make(path) == curve.load_or_make(path) == curve.load_key(path)


def test_a_start_that_was_killed_between_the_two_files_leaves_no_key_without_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "agent.key"
    key = curve.make_key(path)
    curve.public_path(path).unlink()
    assert curve.load_or_make(path) == key
    assert curve.load_public(curve.public_path(path)) == key.public


def test_the_public_half_of_another_key_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "agent.key"
    other = make_public(curve.public_path(path))
    with pytest.raises(FileError, match=r"agent\.key: File exists"):
        curve.make_key(path)
    assert not path.exists()  # else the next start would use a key whose public half nobody can find
    assert curve.load_public(curve.public_path(path)) == other


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o666])
def test_a_secret_that_others_can_read_is_refused_with_what_to_type(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "agent.key"
    curve.make_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"{path}: others can read this secret key; run: chmod 600 {path}"):
        curve.load_key(path)
    path.chmod(0o600)
    curve.load_key(path)


def test_a_key_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path) -> None:
    for load in (curve.load_key, curve.load_public):
        with pytest.raises(ConfigError, match=f"{tmp_path}/none: cannot read the key: No such file or directory"):
            load(tmp_path / "none")
        with pytest.raises(ConfigError, match="cannot read the key: Is a directory"):
            load(tmp_path)


def malformed() -> list[bytes]:
    """What is nearly a key file."""
    public, secret = zmq.curve_keypair()
    return [
        b"",
        b"\n",
        public,
        public + secret,
        public + b" " + secret[:-1],
        public + b" " + secret[:-1] + b"~",
        public + b" " + secret + b" " + secret,
        b"\xff\xfe" + public + b" " + secret,
        public + b" " + secret[:-1] + b"\0",
    ]


@pytest.mark.parametrize("content", malformed())
def test_a_malformed_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"{path}: not a key file") as caught:
        curve.load_key(path)
    for word in content.decode("latin-1").split():
        assert word not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 41, b"x" * 39 + b" ", b"\xff" * 40, b"x" * 40 + b"\nx"])
def test_a_malformed_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peer.pub"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path}: not a (public )?key"):
        curve.load_public(path)


def test_the_secret_shows_in_no_text_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        key = curve.make_key(tmp_path / "agent.key")
        curve.load_key(tmp_path / "agent.key")
    secret = key.secret.decode()
    assert secret not in f"{key} {key!r} {[key]} {caplog.text}"
    assert key.public.decode() in repr(key)


# -- whom a hub accepts


def test_accepted_keys_are_named_after_their_files(tmp_path: Path) -> None:
    wanted = {make_public(tmp_path / f"{name}.pub"): name for name in ("web-1", "db.example", "a_b", "0")}
    (tmp_path / "README").write_text("others' files are left alone")
    assert curve.load_accepted(tmp_path) == wanted


def test_an_empty_or_missing_directory_accepts_nobody(tmp_path: Path) -> None:
    assert curve.load_accepted(tmp_path) == {}
    assert curve.load_accepted(tmp_path / "none") == {}


@pytest.mark.parametrize("name", ["Web", "a b", "a#1", ">", "*", "ä", "x" * 65, "a\nb", "$qulo"])
def test_a_name_that_is_no_principal_is_refused(tmp_path: Path, name: str) -> None:
    make_public(tmp_path / f"{name}.pub")
    with pytest.raises(ConfigError, match=r"is named NAME\.pub"):
        curve.load_accepted(tmp_path)


def test_one_key_has_one_owner(tmp_path: Path) -> None:
    make_public(tmp_path / "first.pub")
    (tmp_path / "second.pub").write_bytes((tmp_path / "first.pub").read_bytes())
    with pytest.raises(ConfigError, match=r"second\.pub: this key is first's already"):
        curve.load_accepted(tmp_path)


def test_one_bad_file_is_named_and_accepts_nobody(tmp_path: Path) -> None:
    make_public(tmp_path / "good.pub")
    (tmp_path / "bad.pub").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"bad\.pub: not a public key"):
        curve.load_accepted(tmp_path)


TOO_LARGE = "#" * 40  # the right characters, and five of them are more than 32 bits hold


@pytest.mark.parametrize("text", [TOO_LARGE, "x" * 39, "x" * 41, "é" * 40, "", "x" * 39 + "\n"])
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    assert not curve.is_key(text)


def test_a_file_that_only_looks_like_a_key_is_refused(tmp_path: Path) -> None:
    for name, content in (("some.pub", TOO_LARGE), ("some.key", f"{TOO_LARGE} {TOO_LARGE}")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(ConfigError, match="not a public key"):
        curve.load_public(tmp_path / "some.pub")
    with pytest.raises(ConfigError, match="not a key file"):
        curve.load_key(tmp_path / "some.key")
