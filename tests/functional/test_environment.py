"""Where the functional tests run is chosen by name, or by what docker says; nothing is ever skipped in silence."""

from __future__ import annotations

import pytest

from tests.functional.environment import Choice, Engine, WrongEnvironment, choose

RUNS = Engine("20.10", "docker-compose")
SILENT = Engine(None, None, "Cannot connect to the Docker daemon")
NO_COMPOSE = Engine("27.0", None, "docker-compose is not installed")


@pytest.mark.parametrize("asked", [None, "", "docker"])
def test_an_engine_that_answers_is_used(asked: str | None) -> None:
    assert choose(asked, lambda: RUNS) == Choice("docker", "docker engine 20.10, docker-compose", "docker-compose")


def test_the_host_is_taken_when_asked_for_and_docker_is_not_asked() -> None:
    assert choose("host", lambda: pytest.fail("asked")) == Choice("host", "QULO_FT_ENVIRONMENT=host")


@pytest.mark.parametrize("asked", [None, ""])
@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (SILENT, "no docker engine answers (Cannot connect to the Docker daemon)"),
        (NO_COMPOSE, "docker compose is not installed (docker-compose is not installed)"),
    ],
)
def test_without_docker_it_is_the_host_and_says_why(asked: str | None, engine: Engine, why: str) -> None:
    assert choose(asked, lambda: engine) == Choice("host", why)


@pytest.mark.parametrize("engine", [SILENT, NO_COMPOSE])
def test_docker_by_name_and_none_there_is_an_error_that_says_how_to_go_on(engine: Engine) -> None:
    with pytest.raises(WrongEnvironment) as caught:
        choose("docker", lambda: engine)
    assert engine.problem in str(caught.value)
    assert "tests/functional/engine.sh up" in str(caught.value)
    assert "QULO_FT_ENVIRONMENT=host" in str(caught.value)


@pytest.mark.parametrize("asked", ["podman", "DOCKER", " host", "1"])
@pytest.mark.parametrize("engine", [RUNS, SILENT])
def test_any_other_environment_is_an_error(asked: str, engine: Engine) -> None:
    with pytest.raises(WrongEnvironment, match="there is no such environment; it is docker, host, or not set"):
        choose(asked, lambda: engine)
