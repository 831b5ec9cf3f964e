"""The sample units: what systemd makes for a daemon is what the daemon uses, and its accounts exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from qulo import config

CONF = Path(__file__).parents[3] / "conf"
PROGRAMS = ("qmaster", "qagent", "qulod")


def unit(program: str) -> dict[str, list[str]]:
    """The keys of a unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in (CONF / "systemd" / f"{program}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def settings_of(program: str) -> config.Settings:
    """What the daemon of a unit is told; ExecStart=! is root's beginning."""
    found = unit(program)
    environ = dict(word.split("=", 1) for line in found.get("Environment", []) for word in line.split())
    environ["HOME"] = "/nowhere"
    command = found["ExecStart"][0].split()
    log = command[command.index("--log-file") + 1]
    uid = 0 if command[0].startswith("!") else 990
    return config.load(program, None, environ=environ, uid=uid, overrides={"log_file": log})


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_daemon_keeps_is_in_the_directories_that_its_unit_makes(program: str) -> None:
    found, settings = unit(program), settings_of(program)
    runtime, state = f"/run/{found['RuntimeDirectory'][0]}", f"/var/lib/{found['StateDirectory'][0]}"
    logs = f"/var/log/{found['LogsDirectory'][0]}"
    assert settings.data_dir == state
    assert Path(settings.local.removeprefix("ipc://")).parent == Path(runtime)
    assert Path(settings.pid_file).parent == Path(runtime)
    assert {Path(settings.log_file).parent, Path(settings.audit_file).parent} == {Path(logs)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_account_of_a_unit_is_made_and_its_memory_is_bounded(program: str) -> None:
    found = unit(program)
    made = [line.split()[1] for line in (CONF / "sysusers.d" / "qulo.conf").read_text().splitlines() if line[0] == "u"]
    assert found["User"][0] in made
    assert found["Group"] == found["User"]
    assert found["MemoryMax"] in (["1G"], ["2G"])


def test_a_master_and_an_agent_on_one_host_share_neither_account_nor_directory() -> None:
    for key in ("User", "RuntimeDirectory", "StateDirectory", "LogsDirectory"):
        assert unit("qmaster")[key] != unit("qagent")[key]


def test_the_commands_for_a_master_find_the_socket_of_its_unit() -> None:
    assert settings_of("qmaster").local in config.client_urls({}, 0, ("master", "agent"))
    assert settings_of("qagent").local in config.client_urls({}, 0)


def test_the_logs_of_every_unit_are_rotated() -> None:
    rotated = (CONF / "logrotate" / "qulo").read_text()
    for program in PROGRAMS:
        assert f"/var/log/{unit(program)['LogsDirectory'][0]}/*.log {{" in rotated
