"""What a program was told, parsed and checked; and what differs between two of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qulo.config.kinds import shown
from qulo.config.table import BY_NAME
from qulo.protocol.permissions import Rule


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
    audit_file: str
    log_level: str
    log_format: str
    curve: bool
    user: str | None
    group: str | None
    max_message: int
    high_water: int
    link_buffer: int
    replay_window: int
    max_store: int
    max_subscriptions: int
    max_pending: int
    max_sessions: int
    max_rate: int
    max_handshakes: int
    heartbeat: float
    session_timeout: float
    slow_after: float
    drain_timeout: float
    listen: str | None
    publish: str | None
    accepted_keys: str | None
    permissions: tuple[Rule, ...]
    name: str | None
    master: tuple[str, ...]
    master_key: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs between two settings."""

    name: str
    old: Any
    new: Any
    needs_restart: bool

    def __str__(self) -> str:
        if BY_NAME[self.name].nested:
            return f"{self.name}: {len(self.old)} rules -> {len(self.new)} rules"
        kind = BY_NAME[self.name].kind
        return f"{self.name}: {shown(kind, self.old)} -> {shown(kind, self.new)}"
