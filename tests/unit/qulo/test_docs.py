"""What docs/streams.md and the README say of streams is true: every command and snippet is run, top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.qulo.conftest import PATIENCE, Hub, running_qulod

ROOT = Path(__file__).parents[3]

BILL = "#!/bin/sh\n# Whoever has no id cannot be billed.\ngrep -q id || { echo 'no id' >&2; exit 1; }\n"

PYTHON = """\
import asyncio, qulo

async def main():
    async with qulo.connect() as bus:
{body}

asyncio.run(main())
"""


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block, with the heading above it for the report."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def fresh(short_place: Path) -> Iterator[Hub]:
    """A hub without streams."""
    with running_qulod(short_place) as (process, addresses):
        (short_place / "bill.sh").write_text(BILL)
        (short_place / "bill.sh").chmod(0o755)
        yield Hub(short_place, process.pid, addresses, None)  # type: ignore[arg-type]


def carry_out(hub: Hub, language: str, text: str) -> None:
    argv = ["sh", "-eu"] if language == "sh" else [sys.executable, "-W", "error", "-"]
    code = text if language == "sh" else PYTHON.format(body=textwrap.indent(text, " " * 8))
    done = subprocess.run(
        argv,
        input=code.encode(),
        env=hub.environ,
        cwd=hub.place,
        capture_output=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout.decode()}\n{done.stderr.decode()}"


def test_everything_that_docs_say_of_streams_is_true(fresh: Hub) -> None:
    found = blocks("docs/streams.md")
    assert {language for language, _ in found} == {"sh", "python"}
    for language, text in found:
        carry_out(fresh, language, text)


def test_the_readme_s_commands_for_streams_are_true(fresh: Hub) -> None:
    (commands,) = [text for language, text in blocks("README.md") if language == "sh" and "qulo stream add" in text]
    carry_out(fresh, "sh", commands)
