"""The chosen environment as fixtures: a clean `cluster`, and a `site` whose daemons run.

`Cannot` becomes a skip with its reason here, and the end of the run counts them. A failure shows what every daemon
said. It must never hide a test: what does not run is named.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.functional import environment
from tests.functional.cluster import AGENTS, HOSTS, MASTER, PROGRAM, Cannot, Cluster
from tests.functional.waiting import until

HERE = Path(__file__).parent

_CHOICE = pytest.StashKey[environment.Choice]()
_CLUSTER = pytest.StashKey[Cluster]()

# Lines of each log that a failure shows. The whole of them would bury the assertion.
_TAIL = 80


def pytest_configure(config: pytest.Config) -> None:
    """Choose before anything is collected: a wrong environment is said at once."""
    asked = os.environ.get(environment.VARIABLE)
    try:
        choice = environment.choose(asked, environment.look)
    except environment.WrongEnvironment as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_CHOICE] = choice


def pytest_report_header(config: pytest.Config) -> str:
    """The environment, and why."""
    choice = config.stash[_CHOICE]
    return f"functional tests: {choice.name} ({choice.why})"


def pytest_sessionstart(session: pytest.Session) -> None:
    """With --quiet pytest has no header; this line is needed there, too."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and reporter.verbosity < 0:
        reporter.write_line(pytest_report_header(session.config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything that asks for hosts is marked, so that `-m 'not functional'` leaves it out."""
    for item in items:
        if isinstance(item, pytest.Function) and "hosts" in item.fixturenames:
            item.add_marker(pytest.mark.functional)


# -- the hosts


@pytest.fixture(scope="session")
def docker_compose_command(pytestconfig: pytest.Config) -> str:
    """Compose v2 or v1, whichever this machine has."""
    from tests.functional import docker  # noqa: PLC0415 - only the chosen one is imported

    return docker.compose_command(pytestconfig.stash[_CHOICE].compose)


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """The five containers."""
    return str(HERE / "compose.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    """One for each run: two runs on one machine do not meet."""
    return f"qulo-ft-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Compose v1 has no --wait; `docker.open` waits by itself."""
    return ["build", "up -d"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """Containers, networks and volumes; the image stays, the next run starts from it."""
    return ["down -v -t 0"]


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The hosts of this run, clean. For `cluster` and `site`: a test asks for one of those."""
    opened: contextlib.AbstractContextManager[Cluster]
    if request.config.stash[_CHOICE].name == environment.DOCKER:
        from tests.functional import docker  # noqa: PLC0415 - only the chosen one is imported

        opened = docker.open(request)
    else:
        from tests.functional import host  # noqa: PLC0415

        opened = host.open()
    with opened as cluster:
        cluster.reset()
        yield cluster


@pytest.fixture
def cluster(request: pytest.FixtureRequest, hosts: Cluster) -> Iterator[Cluster]:
    """Five hosts, configured; no daemon runs. Nothing of what the test does to them is left to the next one."""
    request.node.stash[_CLUSTER] = hosts
    yield hosts
    hosts.reset()


@pytest.fixture
def site(cluster: Cluster) -> Cluster:
    """The same with its master and three agents running, each agent up in the master's list."""
    launched = cluster.launch(MASTER)
    assert launched.code == 0, launched
    with ThreadPoolExecutor(len(AGENTS)) as pool:
        for done in pool.map(cluster.launch, AGENTS):
            assert done.code == 0, done
    until(lambda: _up(cluster) >= set(AGENTS))
    return cluster


def _up(cluster: Cluster) -> set[str]:
    listed = cluster.run(MASTER, "qulolist", "--json", "--agents")
    lines = [json.loads(line) for line in listed.out.splitlines()]
    return {line["name"] for line in lines if line.get("state") == "up"}


# -- what cannot be done here


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """A fixture may say that it cannot."""
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test may come to what cannot be done."""
    return (yield from _skipping(item))


def _skipping(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    except Cannot as cannot:
        reason = str(cannot)
    item.user_properties.append(("cannot", reason))
    pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many ran in this environment, and what it could not do."""
    ran = Counter[str]()
    reasons = Counter[str]()
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            if "functional" not in getattr(report, "keywords", {}):
                continue
            ran[outcome] += 1
            if outcome == "skipped":
                reasons[_reason(report)] += 1
    if not ran:
        return
    counted = ", ".join(f"{number} {outcome}" for outcome, number in ran.items())
    listed = "; ".join(f"{reason} ({number})" for reason, number in reasons.items())
    choice = config.stash[_CHOICE]
    terminalreporter.write_line(
        f"functional: {choice.name} ({choice.why}): {counted}" + (f": {listed}" if listed else "")
    )


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return "no reason"


# -- what a failure shows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the log, the syslog and the state of every daemon that was involved."""
    report = yield
    cluster = item.stash.get(_CLUSTER, None)
    if report.failed and report.when != "teardown" and cluster is not None:
        for name in HOSTS:
            report.sections += _sections(cluster, name)
    return report


def _sections(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """What there is to see of a host. A host that the test left paused or broken must not hide the failure."""
    seen = []
    if name in PROGRAM:
        with _no_matter():
            if cluster.pid(name):
                cluster.signal(name, "USR2")  # its whole state, into the log below
                seen.append((f"{name}: {PROGRAM[name]} -s status", cluster.control(name, "status").out))
        with _no_matter():
            seen.append((f"{name}: {PROGRAM[name]}.log", _tail(cluster.log(name))))
        with _no_matter():
            seen.append((f"{name}: syslog", _tail(cluster.syslog(name))))
    return [(title, text) for title, text in seen if text.strip()]


def _no_matter() -> contextlib.AbstractContextManager[None]:
    return contextlib.suppress(Cannot, AssertionError, OSError, subprocess.SubprocessError, pytest.fail.Exception)


def _tail(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([f"({len(lines) - _TAIL} lines before)", *lines[-_TAIL:]] if len(lines) > _TAIL else lines)
