"""The configuration: what is read, what is refused and with which place, and what is written back."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qulo import config
from qulo.config import OPTIONS, PROGRAMS, Settings, places, reading
from qulo.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf"
KEY = "/etc/qulo/master.pub"
HOME = {"HOME": "/home/ada"}


def load(
    text: str = "",
    program: str = "qmaster",
    *,
    uid: int = 0,
    tmp: Path,
    environ: Mapping[str, str] = HOME,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    file = tmp / f"{program}.yaml"
    file.write_text(text)
    return config.load(program, str(file), environ=environ, uid=uid, overrides=overrides or {})


def refused(text: str, program: str = "qmaster", *, tmp: Path, uid: int = 0) -> str:
    """The reason why `text` is refused, with the file's name shortened to FILE."""
    with pytest.raises(ConfigError) as caught:
        load(text, program, tmp=tmp, uid=uid)
    return str(caught.value).replace(str(tmp / f"{program}.yaml"), "FILE")


@pytest.fixture(autouse=True)
def without_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has no account for daemons, whatever the real one has."""
    monkeypatch.setattr(places, "ACCOUNT", "nobody-has-this-account")


# -- defaults


@pytest.mark.parametrize(("program", "sock"), [("qmaster", "master"), ("qagent", "agent"), ("qulod", "agent")])
def test_roots_defaults_are_the_systems_directories(program: str, sock: str, tmp_path: Path) -> None:
    settings = load(program=program, tmp=tmp_path)
    assert settings.local == f"ipc:///run/qulo/{sock}.sock"
    assert settings.pid_file == f"/run/qulo/{program}.pid"
    assert settings.data_dir == "/var/lib/qulo"
    assert settings.log_file == f"/var/log/qulo/{program}.log"


def test_a_users_defaults_are_the_xdg_directories(tmp_path: Path) -> None:
    xdg = {f"XDG_{name}": f"/x/{name.lower()}" for name in ("RUNTIME_DIR", "DATA_HOME", "STATE_HOME")}
    settings = load(tmp=tmp_path, uid=4711, environ=HOME | xdg)
    assert settings.local == "ipc:///x/runtime_dir/qulo/master.sock"
    assert settings.pid_file == "/x/runtime_dir/qulo/qmaster.pid"
    assert settings.data_dir == "/x/data_home/qulo"
    assert settings.accepted_keys == "/x/data_home/qulo/accepted"
    assert settings.log_file == "/x/state_home/qulo/qmaster.log"


def test_without_xdg_variables_the_specifications_fallbacks_hold(tmp_path: Path) -> None:
    settings = load(tmp=tmp_path, uid=4711, environ=HOME | {"XDG_DATA_HOME": "relative/is/ignored"})
    assert settings.pid_file == "/tmp/qulo-4711/qmaster.pid"
    assert settings.data_dir == "/home/ada/.local/share/qulo"
    assert settings.log_file == "/home/ada/.local/state/qulo/qmaster.log"


@pytest.mark.parametrize("program", PROGRAMS)
def test_root_becomes_qulo_where_the_host_has_that_account(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(program=program, tmp=tmp_path).user is None
    monkeypatch.setattr(places, "ACCOUNT", "nobody")
    settings = load(program=program, tmp=tmp_path)
    assert (settings.user, settings.group, settings.sources["user"]) == ("nobody", None, "default")
    assert load("user: null", program, tmp=tmp_path).user == "nobody"
    assert load("user: root", program, tmp=tmp_path).user == "root"
    assert load(program=program, tmp=tmp_path, uid=4711).user is None
    assert re.search(r"^user: nobody +# default$", config.render(settings), flags=re.MULTILINE)


def test_the_default_file_is_read_when_it_is_there_and_need_not_be(tmp_path: Path) -> None:
    environ = HOME | {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config.load("qagent", None, environ=environ, uid=4711).path is None
    file = tmp_path / "qulo" / "qagent.yaml"
    file.parent.mkdir()
    file.write_text("log_level: debug\n")
    settings = config.load("qagent", None, environ=environ, uid=4711)
    assert (settings.path, settings.log_level) == (str(file), "debug")


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/none\.yaml: there is no such file"):
        config.load("qmaster", f"{tmp_path}/none.yaml", environ=HOME, uid=0)


def test_programs_have_only_their_own_keys(tmp_path: Path) -> None:
    master, agent, qulod = (load(program=program, tmp=tmp_path) for program in PROGRAMS)
    assert (master.name, master.master, master.master_key) == (None, (), None)
    assert (agent.listen, agent.publish) == (None, None)
    assert agent.master == ("tcp://127.0.0.1:7370",)
    assert (qulod.master, qulod.listen) == ((), "tcp://127.0.0.1:7370")
    assert agent.name == qulod.name == socket.gethostname().split(".")[0].lower()


# -- values


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("local_mode: 0660", "local_mode", 0o660),
        ('local_mode: "0600"', "local_mode", 0o600),
        ("curve: on", "curve", True),
        ("curve: true", "curve", True),
        ("curve: OFF", "curve", False),
        ("max_message: 64K", "max_message", 65536),
        ("link_buffer: 1.5G", "link_buffer", 3 * 2**29),
        ("replay_window: 1048577", "replay_window", 1048577),
        ("heartbeat: 500ms", "heartbeat", 0.5),
        ("drain_timeout: 5m", "drain_timeout", 300.0),
        ("drain_timeout: 0", "drain_timeout", 0.0),
        ("session_timeout: 1h", "session_timeout", 3600.0),
        ("slow_after: 3", "slow_after", 3.0),
        ("listen: tcp://[::1]:0", "listen", "tcp://[::1]:0"),
        ("log_format: JSON", "log_format", "json"),
        ("user: root", "user", "root"),
        ("heartbeat:", "heartbeat", 2.0),
        ("heartbeat: null", "heartbeat", 2.0),
    ],
)
def test_values_are_parsed(text: str, field: str, value: object, tmp_path: Path) -> None:
    assert getattr(load(text, tmp=tmp_path), field) == value


def test_an_agent_takes_one_address_or_a_list_of_its_master(tmp_path: Path) -> None:
    one = load("master: tcp://localhost:1\n", "qagent", tmp=tmp_path)
    two = load("master:\n  - tcp://127.0.0.1:1\n  - tcp://[::1]:2\n", "qagent", tmp=tmp_path)
    assert one.master == ("tcp://localhost:1",)
    assert two.master == ("tcp://127.0.0.1:1", "tcp://[::1]:2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("listne: x", "FILE:1:1: listne: unknown key; did you mean 'listen'?"),
        ("qqqq: x", "FILE:1:1: qqqq: unknown key; there are local, local_mode"),
        ("master: x", "FILE:1:1: master: qmaster does not have this key; it is one of qagent"),
        ("curve: off\n\ncurve: on", "FILE:3:1: curve: is there twice; first in line 1"),
        (
            "log_level:  loud",
            "FILE:1:13: log_level: expected one of debug, info, warning, error, found 'loud'",
        ),
        ("curve: maybe", "FILE:1:8: curve: expected on or off, found 'maybe'"),
        ("local_mode: 0644x", "FILE:1:13: local_mode: expected an octal file mode"),
        ("local_mode: 0444", "FILE:1:13: local_mode: expected an octal file mode"),
        ("local_mode: 0755", "FILE:1:13: local_mode: expected an octal file mode"),
        ("max_message: 1T", "FILE:1:14: max_message: expected a size such as"),
        ("max_message: 0", "FILE:1:14: max_message: expected a size such as"),
        ("max_message: -1", "FILE:1:14: max_message: expected a size such as"),
        (
            "heartbeat: 0",
            "FILE:1:12: heartbeat: expected a duration such as 500ms, 2s, 5m, 1h or 7d, from 50ms to 1h",
        ),
        ("heartbeat: 2 weeks", "FILE:1:12: heartbeat: expected a duration"),
        ("max_pending: 0", "FILE:1:14: max_pending: expected a whole number, 1 or more, found '0'"),
        ("max_pending: 1.5", "FILE:1:14: max_pending: expected a whole number"),
        ("max_rate: -1", "FILE:1:11: max_rate: expected a whole number, 0 for any number, found '-1'"),
        ("max_handshakes: none", "FILE:1:17: max_handshakes: expected a whole number, 0 for any number"),
        ("data_dir: lib", "FILE:1:11: data_dir: expected an absolute path, found 'lib'"),
        ("data_dir: [a, b]", "FILE:1:11: data_dir: expected one value, found a list"),
        ("data_dir: {a: b}", "FILE:1:11: data_dir: expected a value, found a mapping"),
        ("listen: 127.0.0.1:1", "FILE:1:9: listen: expected tcp://HOST:PORT"),
        ("listen: tcp://127.0.0.1:65536", "FILE:1:9: listen: expected tcp://HOST:PORT"),
        ("publish: tcp://127.0.0.1:7370", "FILE:1:10: publish: expected an address of its own"),
        ("local: /run/x.sock", "FILE:1:8: local: expected ipc:// and an absolute path"),
        ("local: ipc://@abstract", "FILE:1:8: local: expected ipc:// and an absolute path"),
        ("user: nobody-has-this-name", "FILE:1:7: user: expected a user of this host"),
        ("local_group: no-such-group", "FILE:1:14: local_group: expected a group of this host"),
        ("session_timeout: 3s", "FILE:1:18: session_timeout: expected at least twice heartbeat"),
        ("max_message: 8M", "link_buffer: expected at least max_message"),
        ("- a", "FILE:1:1: expected `key: value` lines"),
        ("just text", "FILE:1:1: expected `key: value` lines"),
        ("[a]: b", "FILE:1:1: expected a key, found a list or mapping"),
        ("curve: on\nlisten: [a", "FILE:2:11: not YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("curve: on: off", "FILE:1:10: not YAML: mapping values are not allowed here"),
        ("curve: off\n---\ncurve: off", "FILE:2:1: not YAML: expected a single document"),
        ("curve: \x01", "FILE: not YAML: "),
        ("curve: &a on\nlog_level: &a info", "FILE: not YAML: found duplicate anchor 'a'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, reason: str, tmp_path: Path) -> None:
    assert refused(text, tmp=tmp_path).startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: Web1", "FILE:1:7: name: expected 1 to 64 of a-z 0-9"),
        ("name: ..", "FILE:1:7: name: expected 1 to 64"),
        (f"name: {'a' * 65}", "FILE:1:7: name: expected 1 to 64"),
        ("master: [tcp://localhost:1, tcp://x:0]", "FILE:1:9: master[1]: expected tcp://HOST:PORT"),
        ("master: []", "FILE:1:9: master: expected a value, found a list that is empty or nested"),
        ("master_key: abc", "FILE:1:13: master_key: expected an absolute path"),
        ("listen: tcp://127.0.0.1:1", "publish: listen and publish belong together"),
    ],
)
def test_what_is_wrong_for_an_agent(text: str, reason: str, tmp_path: Path) -> None:
    assert refused(text, "qagent", tmp=tmp_path).startswith(reason)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        config.load("qulod", str(file), environ=HOME, uid=0)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load("qulod", str(tmp_path), environ=HOME, uid=0)


def test_a_socket_path_that_the_kernel_would_cut_is_refused(tmp_path: Path) -> None:
    fits = "/" + "a" * (config.IPC_PATH_MAX - 1)
    assert load(f"local: ipc://{fits}", tmp=tmp_path).local == f"ipc://{fits}"
    assert "at most 100 bytes" in refused(f"local: ipc://{fits}a", tmp=tmp_path)


# -- curve


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://10.0.0.1:1", "tcp://[::]:1", "tcp://eth0:1"]
)
def test_without_curve_nothing_but_loopback_is_bound(address: str, tmp_path: Path) -> None:
    for key in ("listen", "publish"):
        reason = refused(f'curve: off\n{key}: "{address}"', tmp=tmp_path)
        assert re.search(rf"FILE:2:\d+: {key}: .* is not loopback and curve is off.*Set curve: on", reason)
    assert load(f'listen: "{address}"', tmp=tmp_path).curve


def test_without_curve_no_remote_master_is_dialled(tmp_path: Path) -> None:
    text = "curve: off\nmaster: [tcp://127.0.0.1:1, tcp://hub.example.net:7370]"
    assert "tcp://hub.example.net:7370 is not loopback and curve is off" in refused(text, "qagent", tmp=tmp_path)
    settings = load(f"{text.removeprefix('curve: off')}\nmaster_key: '{KEY}'", "qagent", tmp=tmp_path)
    assert settings.master_key == KEY


# -- precedence and sources


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    environ = HOME | {
        "QULO_LOG_LEVEL": "error",
        "QULO_LOG_FORMAT": "json",
        "QULO_URL": "x",
        "QULO_MASTER": "x",
    }
    text = "heartbeat: 1s\nlog_level: debug\nlog_format: text\n"
    settings = load(text, tmp=tmp_path, environ=environ, overrides={"log_level": "warning"})
    assert (settings.log_level, settings.log_format, settings.heartbeat) == ("warning", "json", 1.0)
    assert {name: settings.sources[name] for name in ("log_level", "log_format", "heartbeat", "curve")} == {
        "log_level": "command line",
        "log_format": "environment",
        "heartbeat": f"{tmp_path}/qmaster.yaml:1",
        "curve": "default",
    }


def test_a_bad_value_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^QULO_HEARTBEAT: expected a duration.*found 'soon'"):
        load(tmp=tmp_path, environ={"QULO_HEARTBEAT": "soon"})


def test_the_environment_lists_masters_with_commas(tmp_path: Path) -> None:
    environ = {"QULO_MASTER": "tcp://127.0.0.1:1, tcp://127.0.0.1:2", "QULO_HEARTBEAT": ""}
    settings = load(program="qagent", tmp=tmp_path, environ=environ)
    assert settings.master == ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    assert settings.sources["heartbeat"] == "default"


# -- writing


def values(settings: Settings) -> dict[str, object]:
    return {option.name: getattr(settings, option.name) for option in config.options_of(settings.program)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_rendered_reads_back_the_same(program: str, tmp_path: Path) -> None:
    text = "data_dir: '/with: colon #and hash'\nheartbeat: 333ms\nmax_message: 12345\nlocal_mode: 0660\n"
    if program == "qagent":
        text += f"master: [tcp://127.0.0.1:1, 'tcp://[::1]:2']\nmaster_key: '{KEY}'\ncurve: on\n"
    settings = load(text, program, tmp=tmp_path)
    rendered = config.render(settings)
    assert f"# {tmp_path}/{program}.yaml:2" in rendered
    again = tmp_path / "again.yaml"
    again.write_text(rendered)
    assert values(config.load(program, str(again), environ={}, uid=4711)) == values(settings)


@hypothesis_settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.floats(0.05, 3600))
def test_any_duration_is_written_so_that_it_reads_back(seconds: float) -> None:
    kind = next(option.kind for option in OPTIONS if option.name == "heartbeat")
    once = kind.parse(f"{seconds:.6f}")
    assert kind.parse(kind.show(once)) == once


@hypothesis_settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.text())
def test_no_text_breaks_the_reader_with_anything_but_a_config_error(text: str) -> None:
    file: str | None = "f"
    try:
        reading.read_text("qmaster", "f", text)
    except ConfigError as error:
        file = error.file
    assert file == "f"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_samples_are_the_defaults_with_every_key(program: str, tmp_path: Path) -> None:
    sample = (CONF / f"{program}.yaml").read_text()
    defaults = load(program=program, tmp=tmp_path)
    assert values(load(sample, program, tmp=tmp_path)) == values(defaults)
    uncommented = re.sub(r"^#(\w+:|  - \{)", r"\1", sample, flags=re.MULTILINE)
    settings = load(uncommented, program, tmp=tmp_path)
    assert values(settings) == values(defaults)
    keys = re.findall(r"^(\w+):(?:.*?)(# \[reload\])?$", uncommented, flags=re.MULTILINE)
    assert {key: bool(live) for key, live in keys} == {
        option.name: option.live for option in config.options_of(program)
    }


# -- differences


def test_a_difference_says_what_needs_a_restart(tmp_path: Path) -> None:
    old = load("log_level: info\nmax_message: 64K\n", tmp=tmp_path)
    new = load("log_level: debug\nmax_message: 1M\nuser: root\n", tmp=tmp_path)
    changes = config.diff(old, new)
    assert [(change.name, change.needs_restart) for change in changes] == [
        ("user", True),
        ("log_level", False),
        ("max_message", True),
    ]
    assert [str(change) for change in changes] == [
        "user: null -> root",
        "log_level: info -> debug",
        "max_message: 64K -> 1M",
    ]
    assert config.diff(new, new) == []


# -- clients, and the directory of last resort


def test_a_client_tries_qulo_url_or_the_users_agent_then_the_hosts() -> None:
    assert config.client_urls({"QULO_URL": "tcp://a:1, ipc:///b"}, 0) == ["tcp://a:1", "ipc:///b"]
    assert config.client_urls({}, 0) == ["ipc:///run/qulo/agent.sock"]
    assert config.client_urls({"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == [
        "ipc:///run/user/7/qulo/agent.sock",
        "ipc:///run/qulo/agent.sock",
    ]


@pytest.fixture
def last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "last-resort"
    monkeypatch.setattr(places, "last_resort", lambda _uid: str(path))
    return path


def test_a_runtime_directory_in_tmp_has_to_be_the_users_alone(last_resort: Path, tmp_path: Path) -> None:
    uid = os.getuid() or 4711
    assert config.client_urls({}, uid)[0] == f"ipc://{last_resort}/agent.sock"
    last_resort.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(last_resort, uid, uid)
    assert load(tmp=tmp_path, uid=uid).pid_file == f"{last_resort}/qmaster.pid"
    last_resort.chmod(0o770)
    assert "is not a directory of user" in refused("", tmp=tmp_path, uid=uid)
    last_resort.chmod(0o700)
    assert "is not a directory of user" in refused("", tmp=tmp_path, uid=uid + 1)
    assert config.client_urls({}, uid + 1) == ["ipc:///run/qulo/agent.sock"]
    last_resort.rename(tmp_path / "real")
    last_resort.symlink_to(tmp_path / "real")
    assert "is not a directory of user" in refused("", tmp=tmp_path, uid=uid)
