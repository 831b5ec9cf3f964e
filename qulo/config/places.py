"""Where things are when nobody says so: configuration, sockets, PID files, logs and data, for root and for users.

It reads the environment and the table of accounts, and looks at who owns the runtime directory of last resort. It
must never make anything.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qulo.errors import ConfigError

# Whom a daemon becomes that root started, where the host has that account; conf/sysusers.d/qulo.conf makes it.
ACCOUNT = "qulo"

# Where the sample units put a hub's socket, if that is not where its default is.
UNIT_DIRECTORIES = {"master": ("/run/qulo-master",)}

STAYS_ROOT = (
    f"runs as root, because this host has no account {ACCOUNT}: make it (systemd-sysusers, with"
    f" conf/sysusers.d/qulo.conf; or: useradd --system --user-group --home-dir /var/lib/qulo --shell /usr/sbin/nologin"
    f" {ACCOUNT}) and restart, or configure `user: root`"
)

# In data_dir: where the master is and what it calls us, as the token that we joined with said.
JOINED = "joined.json"
JOINED_KEY = "joined.pub"  # and its public key


@dataclass(frozen=True, slots=True)
class Place:
    """Whose defaults are asked for. `so_far` holds the values of the options above in the table."""

    program: str
    environ: Mapping[str, str]
    uid: int
    so_far: Mapping[str, Any]


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


def default_file(program: str, environ: Mapping[str, str], uid: int) -> str:
    base = "/etc" if uid == 0 else _xdg(environ, uid, "XDG_CONFIG_HOME", ".config")
    return f"{base}/qulo/{program}.yaml"


def default_local(place: Place) -> str:
    # qulod is its host's own agent: programs find it where they would find a qagent.
    name = "master" if place.program == "qmaster" else "agent"
    return f"ipc://{_runtime_dir(place.environ, place.uid)}/{name}.sock"


def data_dir(environ: Mapping[str, str], uid: int) -> str:
    """Where things are kept; raises ConfigError for a user without a home."""
    base = "/var/lib" if uid == 0 else _xdg(environ, uid, "XDG_DATA_HOME", ".local/share")
    return f"{base}/qulo"


def default_data(place: Place) -> str:
    return data_dir(place.environ, place.uid)


def default_pid(place: Place) -> str:
    return f"{_runtime_dir(place.environ, place.uid)}/{place.program}.pid"


def default_log(place: Place) -> str:
    base = "/var/log" if place.uid == 0 else _xdg(place.environ, place.uid, "XDG_STATE_HOME", ".local/state")
    return f"{base}/qulo/{place.program}.log"


def default_audit(place: Place) -> str:
    """Beside the log; in it, where that is a directory."""
    log = Path(place.so_far["log_file"])
    return str((log if log.is_dir() else log.parent) / f"{place.program}.audit.log")


def default_accepted(place: Place) -> str:
    return f"{place.so_far['data_dir']}/accepted"


class Found(NamedTuple):
    """A default that is kept in a file."""

    text: str | tuple[str, ...]
    source: str


def _joined_file(place: Place) -> str:
    return os.path.join(place.so_far["data_dir"], JOINED)


def joined(place: Place) -> dict[str, Any]:
    """What `qagent --join` kept: `master`, a list of addresses, and `name`. Nothing, when it never did."""
    try:
        kept = json.loads(Path(_joined_file(place)).read_text(encoding="utf-8"))
    except (FileNotFoundError, PermissionError):  # whoever may not read it may not start the agent either
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_joined_file(place)} cannot be read: {error}; join again") from None
    return kept if isinstance(kept, dict) else {}


def default_master(place: Place) -> Found | str:
    addresses = joined(place).get("master")
    return Found(tuple(map(str, addresses)), _joined_file(place)) if addresses else "tcp://127.0.0.1:7370"


def default_master_key(place: Place) -> str:
    return f"{place.so_far['data_dir']}/{JOINED_KEY}"


def default_name(place: Place) -> Found | str:
    if place.program == "qagent" and (name := joined(place).get("name")):
        return Found(str(name), _joined_file(place))
    return socket.gethostname().split(".")[0].lower()


def default_user(place: Place) -> str | None:
    try:
        return pwd.getpwnam(ACCOUNT).pw_name if place.uid == 0 else None
    except KeyError:
        return None


def for_hubs(text: str) -> Callable[[Place], str | None]:
    return lambda place: None if place.program == "qagent" else text


def default_store(place: Place) -> str:
    """A hub's streams take what the disk has; an agent's spool must leave its host the rest."""
    return "256M" if place.program == "qagent" else "0"


def client_urls(environ: Mapping[str, str], uid: int, hubs: Sequence[str] = ("agent",)) -> list[str]:
    """What a client tries, in order, without an address: QULO_URL, or the user's hubs, then the host's."""
    urls = [url.strip() for url in environ.get("QULO_URL", "").split(",") if url.strip()]
    if urls:
        return urls
    directories = dict.fromkeys((_runtime_dir(environ, uid), _runtime_dir({}, 0)))
    # Somebody else's directory in /tmp could hold somebody else's socket.
    unsafe = last_resort(uid) if runtime_problem(last_resort(uid), uid) else None
    return [
        f"ipc://{directory}/{hub}.sock"
        for hub in hubs
        for directory in (*directories, *UNIT_DIRECTORIES.get(hub, ()))
        if directory != unsafe
    ]
