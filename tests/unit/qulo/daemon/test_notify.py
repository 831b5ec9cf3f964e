"""sd_notify's protocol, and that a supervisor that is not there stops nothing."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from qulo.daemon.notify import Notifier
from tests.unit.qulo.aio_tools import _run


def test_without_a_supervisor_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({})
    notifier.ready("serving")
    _run(notifier.feed_watchdog())
    assert not caplog.records


@pytest.mark.parametrize("abstract", [False, True])
def test_it_speaks_to_sockets_in_files_and_abstract_ones(place: Path, abstract: bool) -> None:
    name = f"{place}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind("\0" + name if abstract else name)
        supervisor.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name if abstract else name}).stopping()
        assert supervisor.recv(100) == b"STOPPING=1"


def test_a_supervisor_that_is_gone_is_logged(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Notifier({"NOTIFY_SOCKET": f"{place}/none"}).stopping()
    assert "does not listen: No such file or directory" in caplog.text


def test_the_watchdog_is_fed_only_when_it_is_this_processs(place: Path) -> None:
    other = {"NOTIFY_SOCKET": f"{place}/none", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    _run(Notifier(other).feed_watchdog())  # returns at once
    assert Notifier(other | {"WATCHDOG_PID": str(os.getpid())})._interval == 0.0005
