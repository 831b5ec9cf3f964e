"""The configuration: a YAML file, the environment and the command line become one frozen `Settings`.

`table.OPTIONS` is the one table of keys. Every value is read as text, whoever wrote it, so that `0600` and `on`
mean the same in a file and in the environment.

It must never guess: what is unknown, doubled or of the wrong kind is a ConfigError with its place. It must
never write anything, and never start what it describes. It reads the file, the host's name, the table of
accounts, and the owner of the runtime directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from qulo.config import kinds, places, rules
from qulo.config.kinds import IPC_PATH_MAX, NAME, Kind, shown
from qulo.config.places import ACCOUNT, STAYS_ROOT, Found, Place, client_urls, data_dir, last_resort, runtime_problem
from qulo.config.reading import NULLS, Given, read_environ, read_file, read_overrides
from qulo.config.settings import Change, Settings
from qulo.config.table import OPTIONS, PROGRAMS, Option, options_of
from qulo.errors import ConfigError
from qulo.protocol.permissions import DEFAULT

__all__ = [
    "ACCOUNT",
    "IPC_PATH_MAX",
    "NAME",
    "OPTIONS",
    "PROGRAMS",
    "STAYS_ROOT",
    "Change",
    "Settings",
    "client_urls",
    "data_dir",
    "diff",
    "last_resort",
    "load",
    "options_of",
    "render",
    "runtime_problem",
]

# Written without quotes this cannot be mistaken for anything but text, by any reader of YAML.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.:-]*[A-Za-z0-9/_-]|[1-9][0-9]*[A-Za-z]*|0")
_NO_OVERRIDES: Mapping[str, str] = MappingProxyType({})


def load(
    program: str,
    path: str | None,
    *,
    environ: Mapping[str, str],
    uid: int,
    overrides: Mapping[str, str] = _NO_OVERRIDES,
) -> Settings:
    """The settings of `program`: `overrides` (command line) before `environ` before the file before defaults.

    `path` None means the default file, which need not exist. `uid` decides whose defaults hold. An empty or
    null value is the default. Raises ConfigError, with file, line and column where there are any.
    """
    file = path if path is not None else places.default_file(program, environ, uid)
    read = read_file(program, file, required=path is not None)
    given = {**(read or {}), **read_environ(program, environ), **read_overrides(overrides)}
    values: dict[str, Any] = {"master": ()}
    values.update({option.name: None for option in OPTIONS if program not in option.programs and not option.kind.many})
    for option in options_of(program):
        found = given.get(option.name) or _default(option, Place(program, environ, uid, values))
        values[option.name] = _value(option, found)
        if found is not None:
            given[option.name] = found
    sources = {
        option.name: given[option.name].source if option.name in given else "default" for option in options_of(program)
    }
    settings = Settings(
        program=program, path=None if read is None else file, sources=MappingProxyType(sources), **values
    )
    _check(settings, given, uid)
    return settings


def _default(option: Option, place: Place) -> Given | None:
    default = option.default(place) if callable(option.default) else option.default
    if default is None:
        return None
    text, source = default if isinstance(default, Found) else (default, "default")
    return Given(text, source, key=option.name)


def _value(option: Option, given: Given | None) -> Any:
    if option.nested:
        return DEFAULT if given is None else given.rules
    if given is None:
        return None
    if option.kind.many:
        texts = given.text if isinstance(given.text, tuple) else (given.text,)
        return tuple(_parsed(option.kind, text, given, item) for item, text in enumerate(texts))
    if isinstance(given.text, tuple):
        raise given.error("expected one value, found a list")
    return _parsed(option.kind, given.text, given)


def _parsed(kind: Kind, text: str, given: Given, item: int | None = None) -> Any:
    try:
        return kind.parse(text)
    except ValueError as error:
        raise given.error(f"expected {error}, found {text!r}", item) from None


def _check(settings: Settings, given: Mapping[str, Given], uid: int) -> None:
    def fail(name: str, message: str) -> ConfigError:
        return given.get(name, Given("", "default", key=name)).error(message)

    _check_curve(settings, fail)
    _check_addresses(settings, fail)
    if settings.session_timeout < 2 * settings.heartbeat:
        raise fail("session_timeout", "expected at least twice heartbeat, or sessions end while all is well")
    if settings.link_buffer < settings.max_message:
        raise fail("link_buffer", "expected at least max_message, or the largest message could never be sent")
    common = places.last_resort(uid)
    for name, path in (("local", settings.local.removeprefix("ipc://")), ("pid_file", settings.pid_file)):
        problem = runtime_problem(common, uid) if path.startswith(f"{common}/") else None
        if problem is not None:
            raise fail(name, problem)


_Fail = Callable[[str, str], ConfigError]


def _check_curve(settings: Settings, fail: _Fail) -> None:
    if settings.curve:
        return
    addresses = [("listen", settings.listen), ("publish", settings.publish)]
    addresses += [("master", address) for address in settings.master]
    for name, address in addresses:
        if address is not None and not kinds.is_loopback(address):
            raise fail(
                name,
                f"{address} is not loopback and curve is off: anybody on the network could read and send."
                " Set curve: on, or use 127.0.0.1",
            )


def _check_addresses(settings: Settings, fail: _Fail) -> None:
    if (settings.listen is None) != (settings.publish is None):
        missing = "listen" if settings.listen is None else "publish"
        raise fail(missing, "listen and publish belong together: set both or none")
    if settings.listen == settings.publish and settings.listen is not None and not settings.listen.endswith(":0"):
        raise fail("publish", f"expected an address of its own, found that of listen, {settings.listen}")


def render(settings: Settings) -> str:
    """The whole configuration as YAML that `load` reads back, each value with where it comes from (`-T`)."""
    read_from = settings.path or "no file"
    lines = [f"# {settings.program}: the configuration in full, from {read_from}"]
    for option in options_of(settings.program):
        if option.nested:
            lines += [f"# {option.name}: {settings.sources[option.name]}", rules.render(settings.permissions)]
            continue
        entry = f"{option.name}: {_yaml(option.kind, getattr(settings, option.name))}"
        lines.append(f"{entry:<48} # {settings.sources[option.name]}")
    return "\n".join(lines) + "\n"


def _yaml(kind: Kind, value: Any) -> str:
    if value is None:
        return "null"
    if kind.many and len(value) > 1:
        return f"[{', '.join(_quoted(kind.show(item)) for item in value)}]"
    return _quoted(shown(kind, value))


def _quoted(text: str) -> str:
    # JSON's strings are YAML's double-quoted ones.
    return text if _PLAIN.fullmatch(text) and text not in NULLS else json.dumps(text)


def diff(old: Settings, new: Settings) -> list[Change]:
    """What differs between two settings of one program, in the table's order."""
    changes = []
    for option in options_of(new.program):
        before, after = getattr(old, option.name), getattr(new, option.name)
        if before != after:
            changes.append(Change(option.name, before, after, needs_restart=not option.live))
    return changes
