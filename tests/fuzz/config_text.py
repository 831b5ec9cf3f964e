"""Reading a configuration, permissions rules included: any text gives settings or ConfigError, and -T reads back."""

from __future__ import annotations

import tempfile
from pathlib import Path

from qulo import config
from qulo.config import PROGRAMS, reading, rules
from qulo.errors import ConfigError
from tests.fuzz.chooser import Chooser

ENVIRON = {"HOME": "/nowhere"}
UID = 4711  # no root: nothing depends on this host's accounts


def check(data: bytes) -> None:
    """Read it for one of the programs; what is valid is written and read back."""
    chooser = Chooser(data)
    program = chooser.pick(PROGRAMS)
    text = chooser.rest().decode("utf-8", "replace")
    try:
        given = reading.read_text(program, "FILE", text)
    except ConfigError:
        return
    for each in given.values():
        for rule in each.rules:
            str(rule)
    written = rules.render(tuple(rule for each in given.values() for rule in each.rules))
    again = reading.read_text(program, "FILE", written)["permissions"].rules
    assert again == tuple(rule for each in given.values() for rule in each.rules)
    _load(program, text)


def _load(program: str, text: str) -> None:
    """The whole way, with every kind of value."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "file.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            settings = config.load(program, str(file), environ=ENVIRON, uid=UID)
        except ConfigError:
            return
        file.write_text(config.render(settings), encoding="utf-8")
        assert not config.diff(settings, config.load(program, str(file), environ=ENVIRON, uid=UID))
