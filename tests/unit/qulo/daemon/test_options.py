"""The command line that the daemons share; its exit codes are in test_runner.py."""

from __future__ import annotations

import os
import re

import pytest

from qulo.config import PROGRAMS
from qulo.daemon import options


def test_paths_become_absolute_because_the_daemon_works_elsewhere() -> None:
    found = options.parse("qmaster", "x", ["-c", "a.yaml", "-P", "a.pid", "-l", "/var/a.log", "-v"])
    here = os.getcwd()
    assert found.config == f"{here}/a.yaml"
    assert found.pid_file_given
    assert found.overrides == {"pid_file": f"{here}/a.pid", "log_file": "/var/a.log", "log_level": "debug"}


def test_nothing_given_overrides_nothing() -> None:
    found = options.parse("qmaster", "x", [])
    assert (found.config, found.command, found.overrides) == (None, None, {})
    assert not any((found.check, found.show, found.foreground, found.pid_file_given))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_names_every_option_and_fits_a_page(program: str) -> None:
    text = options._parser(program, "what it is").format_help()
    for option in ("-c", "-t", "-T", "-P", "-l", "-f", "-v", "-s", "--log-format", "--version"):
        assert re.search(rf"^ +(-\w.*, )?{option}\b", text, re.MULTILINE), option
    assert "{" not in text.partition("signals:")[2]
    assert max(map(len, text.splitlines())) <= 110
