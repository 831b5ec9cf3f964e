"""Where the functional tests run: `QULO_FT_ENVIRONMENT` and what docker says decide, and the reason is told.

It must never skip anything, and never take another environment than the one that was asked for by name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

VARIABLE = "QULO_FT_ENVIRONMENT"
DOCKER, HOST = "docker", "host"

# Compose as a plugin of docker, and as the program of its own that it was before; the first that works is used.
_COMPOSE = ("docker compose", "docker-compose")

# Seconds: an engine answers in a tenth of one. A socket that somebody left behind may never answer.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Engine:
    """What there is of docker."""

    version: str | None
    """Of the engine; None: it does not answer."""
    compose: str | None
    """The command that works; None: there is none."""
    problem: str = ""
    """Why not, in docker's own words."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The environment, and why it is that one."""

    name: str
    why: str
    compose: str = ""


class WrongEnvironment(Exception):
    """What was asked for cannot be had; says how to go on."""


def choose(asked: str | None, look: Callable[[], Engine]) -> Choice:
    """The environment of this run. An empty variable is one that is not set. Raises WrongEnvironment."""
    if asked not in (None, "", DOCKER, HOST):
        raise WrongEnvironment(
            f"{VARIABLE}={asked}: there is no such environment; it is {DOCKER}, {HOST}, or not set"
            f" ({DOCKER} if an engine answers, else {HOST})"
        )
    if asked == HOST:
        return Choice(HOST, f"{VARIABLE}={HOST}")
    engine = look()
    if engine.version and engine.compose:
        return Choice(DOCKER, f"docker engine {engine.version}, {engine.compose}", engine.compose)
    lacking = "docker compose is not installed" if engine.version else "no docker engine answers"
    lacking += f" ({engine.problem})" if engine.problem else ""
    if asked == DOCKER:
        raise WrongEnvironment(
            f"{VARIABLE}={DOCKER}, but {lacking}. Start one: tests/functional/engine.sh up."
            f" Or run the same tests without: {VARIABLE}={HOST}"
        )
    return Choice(HOST, lacking)


def look() -> Engine:
    """Ask docker."""
    version, problem = _ask("docker version --format {{.Server.Version}}")
    if version is None:
        return Engine(None, None, problem)
    for command in _COMPOSE:
        found, problem = _ask(f"{command} version")
        if found is not None:
            return Engine(version, command)
    return Engine(version, None, problem)


def _ask(command: str) -> tuple[str | None, str]:
    """What the command says, or None and the last line of why not."""
    try:
        done = subprocess.run(
            command.split(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        return None, f"{command.split(maxsplit=1)[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip(), ""
    return None, (done.stderr.strip().splitlines() or [f"{command}: exit status {done.returncode}"])[-1]
