"""A daemon's life as an operator and a supervisor see it: real processes, real locks, real signals."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.qulo.daemon.conftest import Toy, until

# -- starting


def test_the_parent_returns_only_when_the_daemon_is_ready(toy: Toy) -> None:
    gate = toy.place / "gate"
    parent = toy.start(toy=str(gate))
    until(toy.events)  # serve runs, and is not ready
    assert parent.poll() is None
    assert toy.run("-s", "status")[1].startswith("qmaster: starting, PID ")
    gate.touch()
    assert parent.wait(10) == 0
    pid = toy.pid()
    assert pid
    assert pid != parent.pid
    assert toy.pid_file.read_text() == f"{pid}\n"
    assert json.loads(toy.state_file.read_text())["pid"] == pid
    assert f"ready: listen tcp://127.0.0.1:4711, local ipc://{toy.place}/run/toy.sock" in toy.log()


def test_the_daemon_is_detached_from_whoever_started_it(toy: Toy) -> None:
    kept, other = os.pipe()
    os.set_inheritable(kept, True)
    assert toy.run()[0] == 0
    pid = toy.pid()
    assert pid
    assert os.getsid(pid) not in (os.getsid(0), pid)  # its own session, and not the leader: no terminal ever
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    files = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert [files[name] for name in "012"] == ["/dev/null"] * 3
    assert not [target for target in files.values() if target.startswith("pipe:")]
    os.close(kept)
    os.close(other)


def test_what_is_made_is_private_except_for_what_others_have_to_read(toy: Toy) -> None:
    toy.run()
    modes = {path.name: path.stat().st_mode & 0o777 for path in toy.place.rglob("*") if path.name != "trace"}
    mine = 0o755 if os.getuid() == 0 else 0o700
    assert modes == {
        "toy.yaml": modes["toy.yaml"],
        "run": mine,
        "log": mine,
        "data": 0o700,
        "toy.pid": 0o644,
        "toy.state": 0o644,
        "toy.log": 0o640,
        "qmaster.audit.log": 0o640,
    }


def test_of_twenty_starts_at_once_one_wins_and_the_others_name_it(toy: Toy) -> None:
    starts = [toy.start() for _ in range(20)]
    results = [(start.communicate(timeout=30)[1], start.returncode) for start in starts]
    pid = toy.pid()
    assert pid
    assert sorted(code for _err, code in results) == [0] + [69] * 19
    refused = [err for err, code in results if code]
    assert refused == [f"qmaster: already running: PID {pid} holds the lock of {toy.pid_file}\n"] * 19
    assert toy.run("-s", "status")[1].startswith(f"qmaster: running, PID {pid}\n  listen: tcp://")


@pytest.mark.parametrize("stale", ["4194303\n", f"{os.getpid()}\n", "1\n", "", "not a number, and much longer\n"])
def test_whatever_an_unlocked_pid_file_says_it_does_not_stop_a_start(toy: Toy, stale: str) -> None:
    toy.pid_file.parent.mkdir()
    toy.pid_file.write_text(stale)
    toy.state_file.write_text("left by a daemon that was killed")
    assert toy.run("-s", "status")[0] == 3
    assert toy.run()[0] == 0
    assert toy.pid_file.read_text() == f"{toy.pid()}\n"


def test_a_start_after_kill_9_just_works(toy: Toy) -> None:
    toy.run()
    toy.kill(signal.SIGKILL)
    until(lambda: toy.pid() is None)
    assert toy.run("-s", "status")[0] == 3
    assert toy.run()[0] == 0
    assert toy.run("-s", "status")[0] == 0


@pytest.mark.parametrize(
    ("behaviour", "code", "reason"),
    [
        ("endpoint", 69, "qmaster: tcp://127.0.0.1:4711 is taken\n"),
        ("bug", 1, "qmaster: ValueError: a bug\n"),
        ("beside-fails", 1, "qmaster: nothing beside it\n"),
        ("killed", 1, "qmaster: died before it was ready, without a word; see its log\n"),
    ],
)
@pytest.mark.parametrize("how", [(), ("-f",)])
def test_a_failure_before_ready_is_said_with_its_exit_code(
    toy: Toy, how: tuple[str, ...], behaviour: str, code: int, reason: str
) -> None:
    if how and behaviour == "killed":
        return  # in the foreground a supervisor sees the signal itself
    assert toy.run(*how, toy=behaviour) == (code, "", reason)
    assert toy.pid() is None
    assert not toy.state_file.exists()
    assert ("Traceback" in toy.log()) == (behaviour == "bug")


def test_a_configuration_that_is_not_valid_ends_it_before_anything_is_made(toy: Toy) -> None:
    toy.configure("heartbeat: soon\n")
    code, out, err = toy.run()
    assert (code, out) == (78, "")
    assert err.startswith(f"qmaster: {toy.config}:5:12: heartbeat: expected a duration")
    assert toy.run("-t") == (78, "", err)
    assert sorted(path.name for path in toy.place.iterdir()) == ["toy.yaml"]


def test_a_directory_that_cannot_be_made_is_said(toy: Toy) -> None:
    (toy.place / "log").write_text("in the way")
    code, _out, err = toy.run()
    assert code == 73
    assert err == f"qmaster: {toy.place}/log is not a directory\n"
    assert toy.pid() is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_it_gives_up_root_and_can_still_do_its_work(toy: Toy) -> None:
    toy.place.chmod(0o755)
    (toy.place / "trace").touch()
    (toy.place / "trace").chmod(0o666)
    toy.configure("user: nobody\n")
    assert toy.run()[0] == 0
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{toy.pid()}/status").read_text().splitlines())
    nobody = pwd.getpwnam("nobody")
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert "0" not in status["Groups"].split()
    assert (toy.place / "data").stat().st_uid == nobody.pw_uid
    toy.kill(signal.SIGHUP)
    until(lambda: toy.kinds() == ["reload"])
    assert toy.run("-s", "stop")[0] == 0
    assert not toy.state_file.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_directory_its_user_cannot_write_to_is_said(toy: Toy) -> None:
    toy.place.chmod(0o755)
    (toy.place / "data").mkdir()
    toy.configure("user: nobody\n")
    code, _out, err = toy.run()
    assert code == 73
    assert f"{toy.place}/data is not writable for user" in err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_what_runs_beside_it_is_made_with_the_privileges_that_it_gives_up(toy: Toy) -> None:
    toy.place.chmod(0o755)
    (toy.place / "trace").touch()
    (toy.place / "trace").chmod(0o666)
    toy.configure("user: nobody\n")
    assert toy.run(toy="beside") == (69, "", "qmaster: made by user 0\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root has privileges to keep")
def test_root_without_an_account_for_daemons_stays_root_and_says_so_once(toy: Toy) -> None:
    toy.configure("user:\n")
    toy.environ["TOY_ACCOUNT"] = "nobody-has-this-account"
    toy.run()
    assert toy.run("-s", "stop")[0] == 0
    (line,) = [line for line in toy.log().splitlines() if " WARNING " in line]
    for word in ("runs as root", "no account qulo", "systemd-sysusers", "useradd --system", "`user: root`"):
        assert word in line
    toy.configure("user: root\n")
    toy.run()
    assert toy.log().count("runs as root") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_account_for_daemons_without_being_told(toy: Toy) -> None:
    toy.place.chmod(0o755)
    (toy.place / "trace").touch()
    (toy.place / "trace").chmod(0o666)
    toy.configure("user:\n")
    toy.environ["TOY_ACCOUNT"] = "nobody"
    assert toy.run()[0] == 0
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{toy.pid()}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
    assert "WARNING" not in toy.log()


# -- signals and -s


def test_hup_brings_the_new_settings_and_says_what_changed(toy: Toy) -> None:
    toy.run()
    toy.configure("log_level: debug\nmax_message: 2M\n")
    assert toy.run("-s", "reload")[0] == 0
    until(lambda: toy.kinds() == ["reload"])
    assert toy.events()[1] == (
        "reload",
        "debug",
        ["log_level: info -> debug", "max_message: 1M -> 2M"],
    )
    assert "reloaded log_level: info -> debug\n" in toy.log()
    assert "reloaded max_message: 1M -> 2M: NEEDS A RESTART\n" in toy.log()


def test_what_still_needs_a_restart_is_named_by_every_reload(toy: Toy) -> None:
    toy.run()
    toy.configure("max_message: 2M\n")
    toy.kill(signal.SIGHUP)
    until(lambda: len(toy.kinds()) == 1)
    toy.kill(signal.SIGHUP)
    until(lambda: len(toy.kinds()) == 2)
    assert toy.events()[2] == ("reload", "info", ["max_message: 1M -> 2M"])


@pytest.mark.parametrize("how", ["invalid", "missing", "log"])
def test_hup_with_a_bad_configuration_keeps_the_old_one_and_logs_one_line(toy: Toy, how: str) -> None:
    toy.run()
    before = len(toy.log().splitlines())
    if how == "invalid":
        toy.configure("log_level: debug\nheartbeat: soon\n")
        reason = f"{toy.config}:6:12: heartbeat: expected a duration"
    elif how == "missing":
        toy.config.unlink()
        reason = f"{toy.config}: there is no such file"
    else:
        text = toy.config.read_text()
        toy.config.write_text(text.replace(str(toy.log_file), "/proc/cannot/be"))
        reason = "log /proc/cannot/be cannot be opened: No such file or directory"
    toy.kill(signal.SIGHUP)
    until(lambda: reason in toy.log())
    (line,) = toy.log().splitlines()[before:]
    assert " ERROR " in line
    assert "reload refused, what runs stays as it is: " in line
    toy.kill(signal.SIGUSR2)
    until(lambda: toy.kinds() == ["dump"])  # no reload reached it


def test_reload_from_outside_looks_at_the_configuration_first(toy: Toy) -> None:
    toy.run()
    toy.configure("heartbeat: soon\n")
    code, _out, err = toy.run("-s", "reload")
    assert code == 78
    assert ":5:12: heartbeat: " in err


def test_a_broken_configuration_does_not_keep_a_daemon_alive(toy: Toy) -> None:
    toy.run()
    toy.configure("heartbeat: soon\n")
    assert toy.run("-s", "stop")[0] == 78
    code, out, err = toy.run("-s", "stop", "-P", str(toy.pid_file))
    assert (code, "has stopped" in out) == (0, True)
    assert "going on with the PID file that was given" in err


def test_usr1_opens_the_log_again_after_it_was_renamed(toy: Toy) -> None:
    toy.run()
    rotated = toy.log_file.rename(toy.log_file.with_suffix(".1"))
    toy.kill(signal.SIGUSR2)
    until(lambda: toy.kinds() == ["dump"])
    assert not toy.log_file.exists()
    assert toy.run("-s", "reopen")[0] == 0
    until(lambda: "log reopened" in toy.log())
    assert "log reopened" not in rotated.read_text()


def test_term_drains_and_the_daemon_ends_in_order(toy: Toy) -> None:
    toy.run()
    code, out, _err = toy.run("-s", "drain")
    assert (code, "has stopped" in out) == (0, True)
    assert toy.kinds() == ["drain"]
    assert toy.log().endswith("INFO qulo.daemon.supervisor: stopped\n")
    assert toy.pid_file.exists()
    assert not toy.state_file.exists()


def test_a_second_term_stops_now(toy: Toy) -> None:
    toy.run(toy="stubborn")
    toy.kill(signal.SIGTERM)
    until(lambda: toy.kinds() == ["drain"])
    toy.kill(signal.SIGTERM)
    until(lambda: toy.pid() is None)
    assert toy.kinds() == ["drain", "stop"]
    assert "stopping now: a second SIGTERM" in toy.log()


def test_a_drain_that_takes_too_long_becomes_a_stop(toy: Toy) -> None:
    toy.configure("drain_timeout: 100ms\n")
    toy.run(toy="stubborn")
    assert toy.run("-s", "drain")[0] == 0
    assert toy.kinds() == ["drain", "stop"]
    assert "stopping now: drain_timeout is over" in toy.log()


def test_a_role_that_does_not_listen_is_cancelled(toy: Toy) -> None:
    process = toy.start("-f", toy="deaf")
    until(toy.state_file.exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 1
    assert "had to be cancelled" in toy.log()
    assert not toy.state_file.exists()


def test_status_and_stop_of_a_daemon_that_does_not_run(toy: Toy) -> None:
    for command in ("status", "stop", "drain", "reload", "reopen"):
        code, out, _err = toy.run("-s", command)
        assert (code, out.startswith("qmaster: not running")) == (3, True)


def test_a_signal_during_the_start_waits_until_the_daemon_can_act_on_it(toy: Toy) -> None:
    gate = toy.place / "gate"
    parent = toy.start(toy=str(gate))
    until(toy.pid)  # locked, and perhaps without a loop yet
    toy.kill(signal.SIGHUP)
    until(toy.events)
    gate.touch()
    assert parent.wait(10) == 0
    until(lambda: toy.kinds() == ["reload"])


# -- what goes wrong later


def test_an_exception_while_running_is_logged_and_the_exit_code_is_1(toy: Toy) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(f"{toy.place}/dev-log")
        syslog.settimeout(10)
        process = toy.start("-f", toy="dies")
        until(toy.state_file.exists)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(10) == 1
        line = syslog.recv(4096).decode()
    assert line.startswith(f"<26>qmaster[{process.pid}]: qulo.daemon.runner: qmaster died: RuntimeError: a bug\\nwith")
    assert "Traceback" not in line
    assert "\n  Traceback (most recent call last):\n" in toy.log()
    assert process.communicate()[1] == ""


def test_without_dev_log_the_operator_is_told_once_without_a_traceback(toy: Toy) -> None:
    code, out, err = toy.run()
    assert (code, out) == (0, "")
    note = f"no syslog at {toy.place}/dev-log (No such file or directory): errors are in the log only"
    assert err == f"qmaster: {note}\n"
    for _ in range(2):
        toy.kill(signal.SIGUSR1)
    until(lambda: "log reopened" in toy.log())
    assert toy.log().count(note) == 1


# -- foreground, supervisors


def receive(supervisor: socket.socket, wanted: str) -> list[str]:
    """Datagrams up to the one that begins with `wanted`."""
    found = [""]
    while not found[-1].startswith(wanted):
        found.append(supervisor.recv(4096).decode())
    return found


def test_a_supervisor_hears_of_everything_and_notify_socket_implies_foreground(toy: Toy) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"{toy.place}/notify")
        supervisor.settimeout(10)
        toy.environ |= {"NOTIFY_SOCKET": f"{toy.place}/notify", "WATCHDOG_USEC": "50000"}
        process = toy.start()
        assert receive(supervisor, "READY=1")[-1] == "READY=1\nSTATUS=serving"
        receive(supervisor, "WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        assert "\nMONOTONIC_USEC=" in receive(supervisor, "RELOADING=1")[-1]
        receive(supervisor, "READY=1")
        process.send_signal(signal.SIGTERM)
        receive(supervisor, "STOPPING=1")
        assert process.wait(10) == 0


def test_in_the_foreground_without_a_configured_log_it_logs_to_stderr(toy: Toy) -> None:
    toy.config.write_text(toy.config.read_text().replace("log_file:", "#"))
    process = toy.start("-f", "--log-format", "json", "-v")
    until(toy.state_file.exists)
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    note, *lines = sorted(err.splitlines())  # as it happens, "q" comes before "{"
    assert note.startswith("qmaster: no syslog")
    records = [json.loads(line) for line in err.splitlines() if line in lines]
    assert [record["message"] for record in records if record["logger"].startswith("qulo")][-1] == "stopped"
    assert {"debug", "info"} <= {record["level"] for record in records}
    assert not (toy.place / "log").exists()


def test_a_parent_that_goes_away_leaves_no_half_started_daemon(toy: Toy) -> None:
    gate = toy.place / "gate"
    parent = toy.start(toy=str(gate))
    until(toy.events)
    parent.kill()
    parent.wait(10)
    gate.touch()
    until(lambda: toy.pid() is None)
    assert "whoever started it went away before it was ready" in toy.log()


# -- -t and -T


def test_t_tests_and_big_t_shows_without_touching_anything(toy: Toy) -> None:
    assert toy.run("-t") == (0, f"qmaster: the configuration is valid ({toy.config})\n", "")
    code, out, err = toy.run("-T", "-P", "relative.pid", "-v")
    assert (code, err) == (0, "")
    assert f"\ndata_dir: {toy.place}/data" in out
    assert f"# {toy.config}:2\n" in out
    assert f"\npid_file: {Path.cwd()}/relative.pid" in out or "relative.pid" in out
    assert "\nlog_level: debug                                 # command line\n" in out
    assert sorted(path.name for path in toy.place.iterdir()) == ["toy.yaml"]


def test_wrong_usage_is_64(toy: Toy) -> None:
    for args in (("--no-such",), ("-s", "dance"), ("-t", "-T"), ("argument",), ("--fore",)):
        process: tuple[int, str, str] = toy.run(*args)
        assert process[0] == 64, args
        assert "--help says more" in process[2]


def test_help_and_version(toy: Toy) -> None:
    code, out, _err = toy.run("--help")
    assert code == 0
    for word in ("signals:", "exit status:", "examples:", "/etc/qulo/qmaster.yaml", "NOTIFY_SOCKET"):
        assert word in out
    assert toy.run("--version")[1].startswith("qmaster 0.")
    assert isinstance(toy.started[0], subprocess.Popen)
