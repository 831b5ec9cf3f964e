"""The configuration: a YAML file, the environment and the command line become one frozen `Settings`.

`OPTIONS` is the one table of keys; defaults, parsing, `-T`, the samples under conf/ and the difference
between two settings all come from it. Every value is read as text, whoever wrote it, so that `0600` and
`on` mean the same in a file and in the environment.

It must never guess: what is unknown, doubled or of the wrong kind is a ConfigError with its place. It must
never write anything, and never start what it describes. It reads the file, the host's name, the table of
accounts, and the owner of the runtime directory.
"""

from __future__ import annotations

import difflib
import grp
import ipaddress
import json
import os
import pwd
import re
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from qulo.errors import ConfigError

PROGRAMS = ("qmaster", "qagent", "qulod")

# sun_path holds 108 bytes with its final NUL; the PUB socket's ".pub" has to fit too, and 3 are kept spare.
IPC_PATH_MAX = 100

# The name becomes part of topics and of file names: no separators, nothing hidden, nothing like an option.
NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,63}")

_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
# Written without quotes this cannot be mistaken for anything but text, by any reader of YAML.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.:-]*[A-Za-z0-9/_-]|[1-9][0-9]*[A-Za-z]*|0")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a program was told, parsed and checked. Sizes are bytes, times are seconds.

    A key that its program does not have is None, or () for `master`.
    """

    program: str
    path: str | None
    """The file that was read; None: there was none, and every default holds."""
    sources: Mapping[str, str]
    """Where each value comes from: `default`, `FILE:LINE`, `environment` or `command line`."""
    local: str
    local_mode: int
    local_group: str | None
    data_dir: str
    pid_file: str
    log_file: str
    log_level: str
    log_format: str
    curve: bool
    user: str | None
    group: str | None
    max_message: int
    high_water: int
    link_buffer: int
    replay_window: int
    max_subscriptions: int
    max_pending: int
    heartbeat: float
    session_timeout: float
    slow_after: float
    drain_timeout: float
    listen: str | None
    publish: str | None
    accepted_keys: str | None
    name: str | None
    master: tuple[str, ...]
    master_key: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs between two settings."""

    name: str
    old: object
    new: object
    needs_restart: bool

    def __str__(self) -> str:
        kind = _BY_NAME[self.name].kind
        return f"{self.name}: {_shown(kind, self.old)} -> {_shown(kind, self.new)}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read and written. `parse` raises ValueError(what was expected)."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    many: bool = False
    """The file may give a list, the environment commas; the value is a tuple."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose defaults are asked for. `so_far` holds the values of the options above in the table."""

    program: str
    environ: Mapping[str, str]
    uid: int
    so_far: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the configuration. A default is the text that a user would write; None: no value."""

    name: str
    kind: Kind
    default: str | Callable[[Place], str | None] | None
    help: str
    programs: tuple[str, ...] = PROGRAMS
    live: bool = False
    """A reload changes it in the running daemon; otherwise it needs a restart."""


# -- kinds of values --------------------------------------------------------------------------------------


def _number(text: str, units: Mapping[str, float], expected: str) -> float:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", text)
    if found is None or found[2] not in units:
        raise ValueError(expected)
    return float(found[1]) * units[found[2]]


def _duration(least: float, most: float) -> Kind:
    limits = f"{_show_duration(least)} to {_show_duration(most)}"
    expected = f"a duration such as 500ms, 2s, 5m or 1h, from {limits}"

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


def _size(least: int) -> Kind:
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


def _count(text: str) -> int:
    # libzmq keeps its high-water marks in a C int; a larger one would wrap.
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) < 2**31:
        raise ValueError("a whole number, 1 or more")
    return int(text)


def _one_of(*words: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text.lower()

    return Kind(parse)


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("on or off")
    return _SWITCH[text.lower()]


def _show_switch(on: bool) -> str:
    return "on" if on else "off"


def _path(text: str) -> str:
    # A daemon works in /, so a relative path would mean another place after the start than before it.
    if not text.startswith("/") or "\0" in text:
        raise ValueError("an absolute path")
    return os.path.normpath(text)


def _mode(text: str) -> int:
    expected = 'an octal file mode in which the owner may read and write, such as "0600" or "0660"'
    if not re.fullmatch(r"(?:0|0o)?[0-7]{3}", text):
        raise ValueError(expected)
    mode = int(text[-3:], 8)
    if mode & 0o600 != 0o600 or mode & 0o111:
        raise ValueError(expected)
    return mode


def _user(text: str) -> str:
    try:
        pwd.getpwnam(text)
    except KeyError:
        raise ValueError("a user of this host") from None
    return text


def _group(text: str) -> str:
    try:
        grp.getgrnam(text)
    except KeyError:
        raise ValueError("a group of this host") from None
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("1 to 64 of a-z 0-9 . _ - (not beginning with . or -)")
    return text


def _ipc(text: str) -> str:
    path = text.removeprefix("ipc://")
    if path == text or not path.startswith("/"):
        raise ValueError("ipc:// and an absolute path, such as ipc:///run/qulo/agent.sock")
    if len(os.fsencode(path)) > IPC_PATH_MAX:
        raise ValueError(f"a socket path of at most {IPC_PATH_MAX} bytes (a limit of the kernel)")
    return f"ipc://{os.path.normpath(path)}"


def _split_tcp(text: str) -> tuple[str, int] | None:
    """Host and port of a tcp:// address, or None."""
    found = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.%A-Za-z]+\]|[A-Za-z0-9._*-]+):([0-9]{1,5})", text)
    if found is None or int(found[2]) > 65535:
        return None
    return found[1].strip("[]"), int(found[2])


def _bind(text: str) -> str:
    if _split_tcp(text) is None:
        raise ValueError("tcp://HOST:PORT, such as tcp://127.0.0.1:7370 (port 0: any free one)")
    return text


def _connect(text: str) -> str:
    parts = _split_tcp(text)
    if parts is None or parts[1] == 0 or "*" in parts[0]:
        raise ValueError("tcp://HOST:PORT, such as tcp://master.example.net:7370")
    return text


# -- defaults ---------------------------------------------------------------------------------------------


def _xdg(environ: Mapping[str, str], uid: int, variable: str, fallback: str) -> str:
    """One XDG base directory; a relative one is ignored, as the XDG specification says."""
    value = environ.get(variable, "")
    if value.startswith("/"):
        return value
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            raise ConfigError(f"user {uid} has no home: set HOME or {variable}") from None
    return os.path.join(home, fallback)


def _runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """Where sockets and PID files are."""
    if uid == 0:
        return "/run/qulo"
    value = environ.get("XDG_RUNTIME_DIR", "")
    if value.startswith("/"):
        return os.path.join(value, "qulo")
    return last_resort(uid)


def last_resort(uid: int) -> str:
    """The runtime directory of a user without XDG_RUNTIME_DIR; ask `runtime_problem` before using it."""
    return f"/tmp/qulo-{uid}"  # noqa: S108 - that is what runtime_problem() is for


def runtime_problem(path: str, uid: int) -> str | None:
    """Why /tmp/qulo-UID, the runtime directory of last resort, cannot be trusted; None: it can.

    A directory that does not exist is fine: whoever makes it has to ask again afterwards.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077:
        return None
    return f"{path} is not a directory of user {uid} alone (mode 0700): remove it, or set XDG_RUNTIME_DIR"


def _default_file(program: str, environ: Mapping[str, str], uid: int) -> str:
    base = "/etc" if uid == 0 else _xdg(environ, uid, "XDG_CONFIG_HOME", ".config")
    return f"{base}/qulo/{program}.yaml"


def _default_local(place: Place) -> str:
    # qulod is its host's own agent: programs find it where they would find a qagent.
    name = "master" if place.program == "qmaster" else "agent"
    return f"ipc://{_runtime_dir(place.environ, place.uid)}/{name}.sock"


def _default_data(place: Place) -> str:
    base = "/var/lib" if place.uid == 0 else _xdg(place.environ, place.uid, "XDG_DATA_HOME", ".local/share")
    return f"{base}/qulo"


def _default_pid(place: Place) -> str:
    return f"{_runtime_dir(place.environ, place.uid)}/{place.program}.pid"


def _default_log(place: Place) -> str:
    base = "/var/log" if place.uid == 0 else _xdg(place.environ, place.uid, "XDG_STATE_HOME", ".local/state")
    return f"{base}/qulo/{place.program}.log"


def _default_accepted(place: Place) -> str:
    return f"{place.so_far['data_dir']}/accepted"


def _default_name(_place: Place) -> str:
    return socket.gethostname().split(".")[0].lower()


def _for_hubs(text: str) -> Callable[[Place], str | None]:
    return lambda place: None if place.program == "qagent" else text


# -- the table --------------------------------------------------------------------------------------------

_HUBS = ("qmaster", "qulod")
_HOSTS = ("qagent", "qulod")

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("local", Kind(_ipc), _default_local, "socket for local programs; its PUB is beside it, .pub"),
    Option("local_mode", Kind(_mode, "{:04o}".format), "0600", "file mode of that socket; 0660 for a group"),
    Option("local_group", Kind(_group), None, "group of that socket"),
    Option("listen", Kind(_bind), _for_hubs("tcp://127.0.0.1:7370"), "address for agents and programs"),
    Option("publish", Kind(_bind), _for_hubs("tcp://127.0.0.1:7371"), "its publishing half"),
    Option("name", Kind(_name), _default_name, "name of this host", _HOSTS),
    Option("master", Kind(_connect, many=True), "tcp://127.0.0.1:7370",
           "the master's address, or a list of addresses of the same master", ("qagent",)),
    Option("master_key", Kind(_path), None, "file of the master's public key; curve: on needs it", ("qagent",)),
    Option("curve", Kind(_switch, _show_switch), "off", "encrypt and authenticate everything on TCP"),
    Option("data_dir", Kind(_path), _default_data, "directory of everything that is kept"),
    Option("accepted_keys", Kind(_path), _default_accepted, "directory of the accepted *.pub keys"),
    Option("user", Kind(_user), None, "run as this user (when started as root)"),
    Option("group", Kind(_group), None, "run as this group; null: the user's own"),
    Option("pid_file", Kind(_path), _default_pid, "the PID file; its lock is what counts"),
    Option("log_file", Kind(_path), _default_log, "the log, or an existing directory for it", live=True),
    Option("log_level", _one_of("debug", "info", "warning", "error"), "info", "least level", live=True),
    Option("log_format", _one_of("text", "json"), "text", "form of a log line", live=True),
    Option("max_message", _size(1024), "1M", "largest message accepted"),
    Option("high_water", Kind(_count), "1000", "frames queued to one subscriber at most"),
    Option("link_buffer", _size(1024), "4M", "bytes a session may hold unacknowledged"),
    Option("replay_window", _size(0), "64M", "bytes kept to repair what subscribers missed"),
    Option("max_subscriptions", Kind(_count), "1000", "patterns per peer", live=True),
    Option("max_pending", Kind(_count), "10000", "requests per peer without an answer yet", live=True),
    Option("heartbeat", _duration(0.05, 3600), "2s", "time between heartbeats"),
    Option("session_timeout", _duration(0.1, 86400), "30s", "silence that ends a session", live=True),
    Option("slow_after", _duration(0.1, 3600), "5s", "lag at which a subscriber is slow", live=True),
    Option("drain_timeout", _duration(0, 3600), "10s", "longest orderly end, then it stops", live=True),
)
# fmt: on

_BY_NAME = {option.name: option for option in OPTIONS}
_NO_OVERRIDES: Mapping[str, str] = MappingProxyType({})


def options_of(program: str) -> tuple[Option, ...]:
    """The keys that `program` has, in the order in which they are written."""
    return tuple(option for option in OPTIONS if program in option.programs)


# -- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as somebody wrote it, with its place for messages."""

    text: str | tuple[str, ...]
    source: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    key: str | None = None

    def error(self, message: str, item: int | None = None) -> ConfigError:
        key = self.key if item is None else f"{self.key}[{item}]"
        return ConfigError(message, file=self.file, line=self.line, column=self.column, key=key)


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
    file = path if path is not None else _default_file(program, environ, uid)
    read = _read_file(program, file, required=path is not None)
    given = {**(read or {}), **_read_environ(program, environ), **_read_overrides(overrides)}
    values: dict[str, Any] = {"master": ()}
    values.update({option.name: None for option in OPTIONS if program not in option.programs and not option.kind.many})
    for option in options_of(program):
        place = Place(program, environ, uid, values)
        values[option.name] = _value(option, given.get(option.name), place)
    sources = {
        option.name: given[option.name].source if option.name in given else "default" for option in options_of(program)
    }
    settings = Settings(
        program=program, path=None if read is None else file, sources=MappingProxyType(sources), **values
    )
    _check(settings, given, uid)
    return settings


def _value(option: Option, given: _Given | None, place: Place) -> Any:
    if given is None:
        default = option.default(place) if callable(option.default) else option.default
        if default is None:
            return None
        given = _Given(default, "default", key=option.name)
    if option.kind.many:
        texts = given.text if isinstance(given.text, tuple) else (given.text,)
        return tuple(_parsed(option.kind, text, given, item) for item, text in enumerate(texts))
    if isinstance(given.text, tuple):
        raise given.error("expected one value, found a list")
    return _parsed(option.kind, given.text, given)


def _parsed(kind: Kind, text: str, given: _Given, item: int | None = None) -> Any:
    try:
        return kind.parse(text)
    except ValueError as error:
        raise given.error(f"expected {error}, found {text!r}", item) from None


def _read_environ(program: str, environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for option in options_of(program):
        variable = f"QULO_{option.name.upper()}"
        text = environ.get(variable, "")
        if text:
            value = tuple(part.strip() for part in text.split(",")) if option.kind.many else text
            given[option.name] = _Given(value, "environment", key=variable)
    return given


def _read_overrides(overrides: Mapping[str, str]) -> dict[str, _Given]:
    return {name: _Given(text, "command line", key=name) for name, text in overrides.items()}


def _read_file(program: str, file: str, *, required: bool) -> dict[str, _Given] | None:
    """What the file says, by key; None when there is no file and none is required."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError("there is no such file", file=file) from None
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 (byte {error.start})", file=file) from error
    return _read_mapping(program, file, _compose(file, text))


def _compose(file: str, text: str) -> Node | None:
    """The tree of nodes; it is never constructed into objects, so nothing in a file can run or explode."""
    try:
        node: Node | None = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not YAML: {message}", file=file, line=line, column=column) from error
    except YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", file=file) from error
    return node


def _read_mapping(program: str, file: str, root: Node | None) -> dict[str, _Given]:
    if root is None or _is_null(root):
        return {}
    if not isinstance(root, MappingNode):
        raise ConfigError("expected `key: value` lines", **_place(file, root))
    seen: dict[str, int] = {}
    given: dict[str, _Given] = {}
    for key, value in root.value:
        name = _key(program, file, key)
        if name in seen:
            raise ConfigError(f"is there twice; first in line {seen[name]}", key=name, **_place(file, key))
        seen[name] = key.start_mark.line + 1
        if not _is_null(value):
            given[name] = _read_value(file, name, value)
    return given


def _place(file: str, node: Node) -> dict[str, Any]:
    return {"file": file, "line": node.start_mark.line + 1, "column": node.start_mark.column + 1}


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in _NULLS


def _key(program: str, file: str, node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise ConfigError("expected a key, found a list or mapping", **_place(file, node))
    name = str(node.value)
    known = [option.name for option in options_of(program)]
    if name in known:
        return name
    if name in _BY_NAME:
        message = f"{program} does not have this key; it is one of {', '.join(_BY_NAME[name].programs)}"
    else:
        near = difflib.get_close_matches(name, known, n=1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}")
    raise ConfigError(message, key=name, **_place(file, node))


def _read_value(file: str, name: str, node: Node) -> _Given:
    place = _place(file, node)
    if isinstance(node, ScalarNode):
        text: str | tuple[str, ...] = str(node.value)
    elif isinstance(node, SequenceNode) and node.value and all(isinstance(item, ScalarNode) for item in node.value):
        text = tuple(str(item.value) for item in node.value)
    else:
        found = "a mapping" if isinstance(node, MappingNode) else "a list that is empty or nested"
        raise ConfigError(f"expected a value, found {found}", key=name, **place)
    return _Given(text, f"{file}:{place['line']}", key=name, **place)


# -- checks that need more than one value -----------------------------------------------------------------


def _check(settings: Settings, given: Mapping[str, _Given], uid: int) -> None:
    def fail(name: str, message: str) -> ConfigError:
        return given.get(name, _Given("", "default", key=name)).error(message)

    _check_curve(settings, fail)
    _check_addresses(settings, fail)
    if settings.session_timeout < 2 * settings.heartbeat:
        raise fail("session_timeout", "expected at least twice heartbeat, or sessions end while all is well")
    if settings.link_buffer < settings.max_message:
        raise fail("link_buffer", "expected at least max_message, or the largest message could never be sent")
    for name, path in (("local", settings.local.removeprefix("ipc://")), ("pid_file", settings.pid_file)):
        problem = runtime_problem(last_resort(uid), uid) if path.startswith(f"{last_resort(uid)}/") else None
        if problem is not None:
            raise fail(name, problem)


_Fail = Callable[[str, str], ConfigError]


def _check_curve(settings: Settings, fail: _Fail) -> None:
    if settings.curve:
        if settings.program == "qagent" and settings.master_key is None:
            raise fail("master_key", "curve: on needs the master's public key here")
        return
    addresses = [("listen", settings.listen), ("publish", settings.publish)]
    addresses += [("master", address) for address in settings.master]
    for name, address in addresses:
        if address is not None and not _is_loopback(address):
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


def _is_loopback(address: str) -> bool:
    parts = _split_tcp(address)
    host = parts[0] if parts else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name is whatever DNS says at the time


# -- writing ----------------------------------------------------------------------------------------------


def render(settings: Settings) -> str:
    """The whole configuration as YAML that `load` reads back, each value with where it comes from (`-T`)."""
    read_from = settings.path or "no file"
    lines = [f"# {settings.program}: the configuration in full, from {read_from}"]
    for option in options_of(settings.program):
        entry = f"{option.name}: {_yaml(option.kind, getattr(settings, option.name))}"
        lines.append(f"{entry:<48} # {settings.sources[option.name]}")
    return "\n".join(lines) + "\n"


def _shown(kind: Kind, value: Any) -> str:
    if value is None:
        return "null"
    return ", ".join(map(kind.show, value)) if kind.many else kind.show(value)


def _yaml(kind: Kind, value: Any) -> str:
    if value is None:
        return "null"
    if kind.many and len(value) > 1:
        return f"[{', '.join(_quoted(kind.show(item)) for item in value)}]"
    return _quoted(_shown(kind, value))


def _quoted(text: str) -> str:
    # JSON's strings are YAML's double-quoted ones.
    return text if _PLAIN.fullmatch(text) and text not in _NULLS else json.dumps(text)


def diff(old: Settings, new: Settings) -> list[Change]:
    """What differs between two settings of one program, in the table's order."""
    changes = []
    for option in options_of(new.program):
        before, after = getattr(old, option.name), getattr(new, option.name)
        if before != after:
            changes.append(Change(option.name, before, after, needs_restart=not option.live))
    return changes


def client_urls(environ: Mapping[str, str], uid: int) -> list[str]:
    """What a client tries, in order, without an address: QULO_URL, or the user's agent, then the host's."""
    urls = [url.strip() for url in environ.get("QULO_URL", "").split(",") if url.strip()]
    if urls:
        return urls
    directories = dict.fromkeys((_runtime_dir(environ, uid), _runtime_dir({}, 0)))
    # Somebody else's directory in /tmp could hold somebody else's socket.
    unsafe = last_resort(uid) if runtime_problem(last_resort(uid), uid) else None
    return [f"ipc://{directory}/agent.sock" for directory in directories if directory != unsafe]
