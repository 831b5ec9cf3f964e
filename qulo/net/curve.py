"""CURVE keys in files: made once, read back, and never logged.

A secret key file holds `public secret` in Z85 on one line and has mode 0600; beside it a file with the suffix
`.pub` holds the public half. A directory of accepted keys holds one NAME.pub per principal.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from qulo.errors import ConfigError, FileError

_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")
PRINCIPAL = re.compile(r"[a-z0-9._-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair; the secret half never shows in a repr, so that no log can hold it."""

    public: bytes
    secret: bytes = field(repr=False)


def is_key(text: str) -> bool:
    """Is this a key in Z85? Its characters alone do not say so: five of them can be more than 32 bits hold."""
    if not _Z85.match(text):
        return False
    try:
        z85.decode(text.encode("ascii"))
    except struct.error:
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A public key (Z85) for people to read and compare: 128 bits of its SHA-256, in hex."""
    return hashlib.sha256(z85.decode(public)).hexdigest()[:32]


def make_key(path: str | Path) -> Key:
    """Make a key pair at `path` (0600) and its public half beside it; raises FileError, also if it exists."""
    path = Path(path)
    public, secret = zmq.curve_keypair()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, f"{public.decode()} {secret.decode()}\n", 0o600)
        try:
            _write_public(path, public)
        except OSError:
            path.unlink()  # else the next start would use a key whose public half nobody can find
            raise
    except OSError as error:
        raise FileError(f"cannot make the key {path}: {error.strerror}") from None
    return Key(public, secret)


def _write_public(path: Path, public: bytes) -> None:
    _write_new(public_path(path), f"{public.decode()}\n", 0o644)


def public_path(path: str | Path) -> Path:
    """Where the public half of the key at `path` is."""
    return Path(path).with_suffix(".pub")


def _write_new(path: Path, text: str, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)


def keep(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all, and on disk when this returns. Raises FileError."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        _write_new(new, text, mode)
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from None


def keep_public(path: Path, public: bytes) -> None:
    """Keep somebody's public key; raises FileError."""
    keep(path, f"{public.decode()}\n", 0o644)


def sync_directory(path: Path) -> None:
    """After a file in it was made, renamed or removed: that is on disk too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def load_key(path: str | Path) -> Key:
    """Read a key pair; raises ConfigError when it is unreadable, malformed, or readable by others."""
    path = Path(path)
    text = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"others can read this secret key; run: chmod 600 {path}", file=str(path))
    halves = text.split()
    if len(halves) != 2 or not all(is_key(half) for half in halves):
        raise ConfigError("not a key file: 'PUBLIC SECRET', 40 Z85 characters each, is expected", file=str(path))
    return Key(halves[0].encode(), halves[1].encode())


def load_or_make(path: str | Path) -> Key:
    """The key at `path`, made at the first start. Raises ConfigError or FileError."""
    path = Path(path)
    if not path.exists():
        return make_key(path)
    key = load_key(path)
    if not public_path(path).exists():  # a first start was killed between the two files
        try:
            _write_public(path, key.public)
        except OSError as error:
            raise FileError(f"cannot make {public_path(path)}: {error.strerror}") from None
    return key


def replace_key(path: Path, by: Path) -> None:
    """The key at `by` becomes the one at `path`; what is cut off half way leaves the old one and `by`. FileError."""
    keep_public(public_path(path), load_key(by).public)
    try:
        by.replace(path)
        public_path(by).unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise FileError(f"cannot replace {path}: {error.strerror}") from None


def load_public(path: str | Path) -> bytes:
    """Read a public key; raises ConfigError."""
    text = _read(Path(path)).strip()
    if not is_key(text):
        raise ConfigError("not a public key: 40 Z85 characters are expected", file=str(path))
    return text.encode()


def load_accepted(directory: str | Path) -> dict[bytes, str]:
    """The public keys in a directory and whose they are; a missing one has none. Raises ConfigError for a bad file."""
    accepted, bad = read_accepted(directory)
    for error in bad:
        raise error
    return accepted


def read_accepted(directory: str | Path) -> tuple[dict[bytes, str], list[ConfigError]]:
    """The same without the files that are bad, and what is wrong with each of those."""
    accepted: dict[bytes, str] = {}
    bad: list[ConfigError] = []
    path = Path(directory)
    for file in sorted(path.glob("*.pub")) if path.is_dir() else ():
        try:
            if not PRINCIPAL.match(file.stem):
                raise ConfigError("a key file is named NAME.pub, NAME being 1 to 64 of a-z 0-9 . _ -", file=str(file))
            key = load_public(file)
            if key in accepted:
                raise ConfigError(f"this key is {accepted[key]}'s already", file=str(file))
        except ConfigError as error:
            bad.append(error)
            continue
        accepted[key] = file.stem
    return accepted, bad


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("not a key file", file=str(path)) from None
