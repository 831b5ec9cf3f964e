"""How each kind of value is written and read: sizes, durations, paths, names, addresses.

A kind's `parse` takes the text that a user wrote and raises ValueError with what was expected; `show` writes a
value so that `parse` reads it back. It must never guess.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# sun_path holds 108 bytes with its final NUL; the PUB socket's ".pub" has to fit too, and 3 are kept spare.
IPC_PATH_MAX = 100

# The name becomes part of topics and of file names: no separators, nothing hidden, nothing like an option.
NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,63}")

_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read and written. `parse` raises ValueError(what was expected)."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    many: bool = False
    """The file may give a list, the environment commas; the value is a tuple."""


def _number(text: str, units: Mapping[str, float], expected: str) -> float:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", text)
    if found is None or found[2] not in units:
        raise ValueError(expected)
    return float(found[1]) * units[found[2]]


def duration(least: float, most: float) -> Kind:
    limits = f"{_show_duration(least)} to {_show_duration(most)}"
    expected = f"a duration such as 500ms, 2s, 5m, 1h or 7d, from {limits}"

    def parse(text: str) -> float:
        # Microseconds are finer than any clock here; 0.3 * 0.001 and its like stay readable.
        seconds = round(_number(text, _SECONDS, expected), 6)
        if not least <= seconds <= most:
            raise ValueError(expected)
        return seconds

    return Kind(parse, _show_duration)


def _show_duration(seconds: float) -> str:
    if seconds % 1:
        milliseconds = round(seconds * 1000, 3)
        return f"{milliseconds:.0f}ms" if not milliseconds % 1 else f"{seconds:.6f}s"
    unit = next((unit for unit in ("h", "m") if seconds and not seconds % _SECONDS[unit]), "s")
    return f"{seconds / _SECONDS[unit]:.0f}{unit}"


def size(least: int) -> Kind:
    expected = f"a size such as 65536, 64K, 4M or 1G, {_show_size(least)} or more"

    def parse(text: str) -> int:
        size = _number(text.upper(), _SIZES, expected)
        if size % 1 or size < least:
            raise ValueError(expected)
        return int(size)

    return Kind(parse, _show_size)


def _show_size(size: int) -> str:
    unit = next((unit for unit in ("G", "M", "K") if size and not size % _SIZES[unit]), "")
    return f"{size // _SIZES[unit]}{unit}"


def count(text: str) -> int:
    # libzmq keeps its high-water marks in a C int; a larger one would wrap.
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) < 2**31:
        raise ValueError("a whole number, 1 or more")
    return int(text)


def count_or_none(text: str) -> int:
    if text == "0":
        return 0
    try:
        return count(text)
    except ValueError:
        raise ValueError("a whole number, 0 for any number") from None


def one_of(*words: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text.lower()

    return Kind(parse)


def switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("on or off")
    return _SWITCH[text.lower()]


def show_switch(on: bool) -> str:
    return "on" if on else "off"


def path(text: str) -> str:
    # A daemon works in /, so a relative path would mean another place after the start than before it.
    if not text.startswith("/") or "\0" in text:
        raise ValueError("an absolute path")
    return os.path.normpath(text)


def mode(text: str) -> int:
    expected = 'an octal file mode in which the owner may read and write, such as "0600" or "0660"'
    if not re.fullmatch(r"(?:0|0o)?[0-7]{3}", text):
        raise ValueError(expected)
    mode = int(text[-3:], 8)
    if mode & 0o600 != 0o600 or mode & 0o111:
        raise ValueError(expected)
    return mode


def user(text: str) -> str:
    try:
        pwd.getpwnam(text)
    except KeyError:
        raise ValueError("a user of this host") from None
    return text


def group(text: str) -> str:
    try:
        grp.getgrnam(text)
    except KeyError:
        raise ValueError("a group of this host") from None
    return text


def name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("1 to 64 of a-z 0-9 . _ - (not beginning with . or -)")
    return text


def ipc(text: str) -> str:
    path = text.removeprefix("ipc://")
    if path == text or not path.startswith("/"):
        raise ValueError("ipc:// and an absolute path, such as ipc:///run/qulo/agent.sock")
    if len(os.fsencode(path)) > IPC_PATH_MAX:
        raise ValueError(f"a socket path of at most {IPC_PATH_MAX} bytes (a limit of the kernel)")
    return f"ipc://{os.path.normpath(path)}"


def split_tcp(text: str) -> tuple[str, int] | None:
    """Host and port of a tcp:// address, or None."""
    found = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.%A-Za-z]+\]|[A-Za-z0-9._*-]+):([0-9]{1,5})", text)
    if found is None or int(found[2]) > 65535:
        return None
    return found[1].strip("[]"), int(found[2])


def bind(text: str) -> str:
    if split_tcp(text) is None:
        raise ValueError("tcp://HOST:PORT, such as tcp://127.0.0.1:7370 (port 0: any free one)")
    return text


def connect(text: str) -> str:
    parts = split_tcp(text)
    if parts is None or parts[1] == 0 or "*" in parts[0]:
        raise ValueError("tcp://HOST:PORT, such as tcp://master.example.net:7370")
    return text


def shown(kind: Kind, value: Any) -> str:
    if value is None:
        return "null"
    return ", ".join(map(kind.show, value)) if kind.many else kind.show(value)


def is_loopback(address: str) -> bool:
    """Does this tcp:// address name one that only this host can reach?"""
    parts = split_tcp(address)
    host = parts[0] if parts else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name is whatever DNS says at the time
