"""The double fork and its pipe, in a process that may be forked."""

from __future__ import annotations

import pytest

from tests.unit.qulo.daemon.conftest import python

LAUNCH = """
import os, sys
from qulo.daemon.daemonize import Outcome, launch
def run(tell):
    {body}
outcome = launch(run)
print(outcome.code, *outcome.lines, sep="|")
"""


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        ("tell(Outcome(0, ('a note',))); return 0", "0|a note"),
        ("tell(Outcome(0)); tell(Outcome(5, ('too late',))); return 0", "0"),
        ("tell(Outcome(78, ('x', 'y'))); return 78", "78|x|y"),
        ("print('nobody sees this'); raise KeyError('k')", "1|KeyError: 'k'"),
        ("sys.exit(3)", "1|SystemExit: 3"),
        ("return 0", "1|died before it was ready, without a word; see its log"),
        ("os.abort()", "1|died before it was ready, without a word; see its log"),
        ("tell(Outcome(0, ('é' * 100000,))); return 0", "0|" + "é" * 100000),
    ],
)
def test_the_parent_gets_the_daemons_one_word(body: str, printed: str) -> None:
    done = python(LAUNCH.format(body=body))
    assert (done.stdout, done.stderr, done.returncode) == (f"{printed}\n", "", 0)


def test_what_was_buffered_before_the_fork_is_printed_once() -> None:
    done = python("print('before')\n" + LAUNCH.format(body="tell(Outcome(0)); return 0"))
    assert done.stdout == "before\n0\n"
