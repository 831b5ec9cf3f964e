"""The one table of keys. Defaults, parsing, `-T`, the samples under conf/ and differences all come from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qulo.config import kinds, places
from qulo.config.kinds import Kind
from qulo.config.places import Found, Place

PROGRAMS = ("qmaster", "qagent", "qulod")


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the configuration. A default is the text that a user would write; None: no value."""

    name: str
    kind: Kind
    default: str | Callable[[Place], str | Found | None] | None
    help: str
    programs: tuple[str, ...] = PROGRAMS
    live: bool = False
    """A reload changes it in the running daemon; otherwise it needs a restart."""
    nested: bool = False
    """A list of mappings that `rules` reads: in the file only, never in the environment."""


_HUBS = ("qmaster", "qulod")
_HOSTS = ("qagent", "qulod")

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("local", Kind(kinds.ipc), places.default_local, "socket for local programs; its PUB is beside it, .pub"),
    Option("local_mode", Kind(kinds.mode, "{:04o}".format), "0600", "file mode of that socket; 0660 for a group"),
    Option("local_group", Kind(kinds.group), None, "group of that socket"),
    Option("listen", Kind(kinds.bind), places.for_hubs("tcp://127.0.0.1:7370"), "address for agents and programs"),
    Option("publish", Kind(kinds.bind), places.for_hubs("tcp://127.0.0.1:7371"), "its publishing half"),
    Option("data_dir", Kind(kinds.path), places.default_data, "directory of everything that is kept"),
    Option("name", Kind(kinds.name), places.default_name, "name of this host", _HOSTS),
    Option("master", Kind(kinds.connect, many=True), places.default_master,
           "the master's address, or a list of addresses of the same master", ("qagent",)),
    Option("master_key", Kind(kinds.path), places.default_master_key,
           "file of the master's public key; qagent --join makes it", ("qagent",)),
    Option("curve", Kind(kinds.switch, kinds.show_switch), "on", "encrypt and authenticate everything on TCP"),
    Option("accepted_keys", Kind(kinds.path), places.default_accepted, "directory of the accepted *.pub keys"),
    Option("permissions", Kind(str), None, "who may do what; default: whoever is let in may do all", live=True,
           nested=True),
    Option("user", Kind(kinds.user), places.default_user,
           "run as this user when started as root; null: qulo, where there is one"),
    Option("group", Kind(kinds.group), None, "run as this group; null: the user's own"),
    Option("pid_file", Kind(kinds.path), places.default_pid, "the PID file; its lock is what counts"),
    Option("log_file", Kind(kinds.path), places.default_log, "the log, or an existing directory for it", live=True),
    Option("audit_file", Kind(kinds.path), places.default_audit, "who was denied what, and let in", live=True),
    Option("log_level", kinds.one_of("debug", "info", "warning", "error"), "info", "least level", live=True),
    Option("log_format", kinds.one_of("text", "json"), "text", "form of a log line", live=True),
    Option("max_message", kinds.size(1024), "1M", "largest message accepted"),
    Option("high_water", Kind(kinds.count), "1000", "frames queued to one subscriber at most"),
    Option("link_buffer", kinds.size(1024), "4M", "bytes a session may hold unacknowledged"),
    Option("replay_window", kinds.size(0), "64M", "bytes kept to repair what subscribers missed"),
    Option("max_store", kinds.size(0), places.default_store,
           "bytes that streams, or an agent's spool, may take on disk; 0: as much as there is"),
    Option("max_subscriptions", Kind(kinds.count), "1000", "patterns per peer", live=True),
    Option("max_pending", Kind(kinds.count), "10000", "requests per peer without an answer yet", live=True),
    Option("max_sessions", Kind(kinds.count), "1000", "sessions of one key, or of one user of this host", live=True),
    Option("max_rate", Kind(kinds.count_or_none), "0", "messages per second that a peer may publish; 0: any number",
           live=True),
    Option("max_handshakes", Kind(kinds.count_or_none), "500",
           "new connections per second from one address; 0: any number", live=True),
    Option("heartbeat", kinds.duration(0.05, 3600), "2s", "time between heartbeats"),
    Option("session_timeout", kinds.duration(0.1, 86400), "30s", "silence that ends a session", live=True),
    Option("slow_after", kinds.duration(0.1, 3600), "5s", "lag at which a subscriber is slow", live=True),
    Option("drain_timeout", kinds.duration(0, 3600), "10s", "longest orderly end, then it stops", live=True),
)
# fmt: on

BY_NAME = {option.name: option for option in OPTIONS}


def options_of(program: str) -> tuple[Option, ...]:
    """The keys that `program` has, in the order in which they are written."""
    return tuple(option for option in OPTIONS if program in option.programs)
