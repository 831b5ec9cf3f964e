"""Where the bodies of `pub` and `put` come from: the command line, a file, or standard input, whole or by lines.

It must never read before it was said that what was asked for contradicts itself.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterable
from typing import BinaryIO

from qulo.cli import body
from qulo.errors import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    """BODY and the options that stand for it."""
    add = parser.add_argument
    add("body", metavar="BODY", nargs="?", help="the body, as text")
    add("-f", "--file", metavar="FILE", help="the body is the file's content (with -l: each of its lines)")
    add("--stdin", action="store_true", help="the body is all of standard input")
    add("-l", "--lines", action="store_true", help="each line of standard input is a message")
    add("-H", "--header", metavar="K:V", action="append", default=[], help="a header; may be repeated")


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError when there is more than one source."""
    sources = {
        "BODY": arguments.body is not None,
        "--file": arguments.file is not None,
        "--stdin": arguments.stdin,
    }
    given = [name for name, there in sources.items() if there]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: a message has one body")
    if arguments.lines and given not in ([], ["--file"]):
        raise UsageError(f"--lines reads lines from standard input or --file, not from {given[0]}")


def headers(arguments: argparse.Namespace) -> dict[str, str] | None:
    """What -H said."""
    return dict(body.parse_header(each) for each in arguments.header) or None


def opened(arguments: argparse.Namespace) -> BinaryIO:
    """Where bodies are read from. Raises UsageError when that cannot be opened, before anything is sent."""
    if arguments.file is None and (arguments.stdin or arguments.lines):
        return open(0, "rb", closefd=False)  # standard input is not ours to close
    if arguments.file is None:
        return io.BytesIO(os.fsencode(arguments.body or ""))
    try:
        return open(arguments.file, "rb")
    except OSError as error:
        raise UsageError(f"{arguments.file} cannot be read: {error.strerror}") from None


def texts(arguments: argparse.Namespace, file: BinaryIO) -> Iterable[bytes]:
    """The bodies, one by one as they can be read."""
    if arguments.lines:
        return (line.rstrip(b"\r\n") for line in file)
    return [file.read()]
