"""The state file is replaced whole and believed only from the daemon that runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qulo.daemon import state
from qulo.errors import FileError


def test_it_is_beside_the_pid_file_and_reads_back(place: Path) -> None:
    pid_file = f"{place}/qmaster.pid"
    assert state.read(pid_file, os.getpid()) is None
    state.write(pid_file, {"listen": "tcp://127.0.0.1:1"})
    state.write(pid_file, {"listen": "tcp://127.0.0.1:2"})
    assert [path.name for path in place.iterdir()] == ["qmaster.state"]
    assert state.read(pid_file, os.getpid()) == {"listen": "tcp://127.0.0.1:2"}
    assert state.read(pid_file, 0) == {"listen": "tcp://127.0.0.1:2"}  # a PID that cannot be seen from here
    assert state.read(pid_file, os.getpid() + 1) is None
    state.remove(pid_file)
    state.remove(pid_file)
    assert list(place.iterdir()) == []


def test_it_says_when_it_cannot_be_written(place: Path) -> None:
    with pytest.raises(FileError, match=r"none/a\.state cannot be made: No such file or directory"):
        state.write(f"{place}/none/a.pid", {})
