"""`make demo`: a real daemon in a directory of its own, and programs that talk over it. Needs no root.

    python examples/demo.py [LOGFILE]

Starts qulod in the background, follows LOGFILE (by default the daemon's own log), publishes this host's metrics,
prints what arrives, asks a question, lists who is there, and stops the daemon. It leaves nothing behind. If a step
fails it says which, shows the daemon's log, and exits 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
# Where pip puts programs. Not beside sys.executable: Debian's own python is in /usr/bin, and what pip installs is not.
BIN = Path(sysconfig.get_path("scripts"))

# Seconds for any one step; all of them together take a few.
STEP_TIMEOUT = 30.0

CONFIG = """\
local: ipc://{place}/agent.sock
listen: tcp://127.0.0.1:0
publish: tcp://127.0.0.1:0
data_dir: {place}/data
pid_file: {place}/qulod.pid
log_file: {place}/qulod.log
"""
# Root's daemons become the user qulo where a host has that account; here they stay in a directory of root alone.
AS_ROOT = "user: root\n"


Argv = Sequence[str | Path]
"""A command line."""


class StepFailedError(Exception):
    """A step of the demonstration failed."""


def step(title: str, argv: Argv, environ: Mapping[str, str]) -> None:
    """Run a program to its end, showing what it prints. Raises StepFailedError."""
    print(f"\n== {title}\n$ {shown(argv)}", flush=True)
    try:
        subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, timeout=STEP_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise StepFailedError(f"{title}: {error}") from None


def shown(argv: Argv) -> str:
    """A command line as one would type it."""
    words = [Path(word).name if Path(word).parent == BIN else str(word) for word in argv]
    return " ".join(words)


@contextlib.contextmanager
def daemon(place: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """qulod, running in the background: the command returns when it is ready. Stopped at the end."""
    config = place / "qulod.yaml"
    config.write_text(CONFIG.format(place=place) + (AS_ROOT if os.geteuid() == 0 else ""))
    step("start the daemon", [BIN / "qulod", "-c", config], environ)
    try:
        yield
    finally:
        step("stop the daemon", [BIN / "qulod", "-c", config, "-s", "stop"], environ)


@contextlib.contextmanager
def background(title: str, argv: Argv, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program beside the others; it has connected and subscribed when it is given. Ended at the end."""
    print(f"\n== {title}\n$ {shown(argv)} &", flush=True)
    with subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        # Whatever hangs, this ends it, and what waits for its output sees the end of that.
        timer = threading.Timer(STEP_TIMEOUT, process.terminate)
        timer.start()
        try:
            wait_until_connected(process, title, environ)
            yield process
        finally:
            timer.cancel()
            process.terminate()


def wait_until_connected(process: subprocess.Popen[str], title: str, environ: Mapping[str, str]) -> None:
    """Ask the hub until it knows the program. Raises StepFailedError when that ends instead."""
    argv: Argv = [BIN / "qulolist", "--json", "--clients", f"*-{process.pid}.*"]
    while subprocess.run(argv, env=environ, capture_output=True, timeout=STEP_TIMEOUT, check=False).returncode:
        if process.poll() is not None:
            raise StepFailedError(f"{title}: it ended with {process.returncode}")
        time.sleep(0.05)  # between two looks


def show_arrivals(process: subprocess.Popen[str], wanted: Counter[str]) -> None:
    """Print what a subscriber got, until so many messages came on these kinds of topics. Raises StepFailedError."""
    print("\n== what the subscriber got", flush=True)
    for line in process.stdout or ():
        print(line, end="", flush=True)
        wanted -= Counter(kind for kind in wanted if line.startswith(kind))
        if not wanted:
            return
    raise StepFailedError(f"the subscriber got too little; missing: {dict(wanted)}")


def demonstrate(place: Path, log: Path | None, environ: Mapping[str, str]) -> None:
    """Everything between the daemon's start and its stop."""
    subscriber: Argv = [BIN / "qulo", "sub", "logs.>", "host.metrics.*"]
    # Every connection is a line of the daemon's own log: it is being written meanwhile.
    follower: Argv = [sys.executable, EXAMPLES / "log_follower.py", log or place / "qulod.log"]
    metrics: Argv = [sys.executable, EXAMPLES / "host_metrics.py", "--count", "3", "--interval", "0.3"]
    with (
        background("a subscriber to logs and metrics", subscriber, environ) as arrivals,
        background("follow a log", follower, environ),
    ):
        step("publish what this host is doing", metrics, environ)
        step("ask, and be answered", [sys.executable, EXAMPLES / "request_reply.py"], environ)
        step("who is there, and what is published", [BIN / "qulolist"], environ)
        # Another log may be a quiet one.
        show_arrivals(arrivals, Counter({"host.metrics.": 3, "logs.": 0 if log else 3}))


def main() -> int:
    parser = argparse.ArgumentParser(description="show what qulo does, on this machine")
    parser.add_argument("log", nargs="?", type=Path, help="a log file to follow; the daemon's own by default")
    options = parser.parse_args()

    # A short name: the path of a socket has about a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="qulo-", dir="/tmp") as name:
        place = Path(name)
        environ = {**os.environ, "QULO_URL": f"ipc://{place}/agent.sock"}
        try:
            with daemon(place, environ):
                demonstrate(place, options.log, environ)
        except StepFailedError as error:
            print(f"\ndemo: failed: {error}", file=sys.stderr)
            with contextlib.suppress(FileNotFoundError):
                print("the daemon's log:", (place / "qulod.log").read_text(), sep="\n", file=sys.stderr)
            return 1
    print("\ndemo: done; nothing was left behind")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
