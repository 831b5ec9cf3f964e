"""Log lines, and what happens to them when there is nowhere to put them."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from pathlib import Path

import pytest

from qulo import config
from qulo.config import Settings
from qulo.daemon import logs
from qulo.errors import FileError
from tests.unit.qulo.daemon.conftest import python

# Logs belong to a whole process (root logger, hooks, faulthandler), so each test gives them one of their own.
SETUP = """
import logging, os, sys, threading
from qulo import config
from qulo.daemon import logs
place, log_file = sys.argv[1:3]
logs.DEV_LOG = f"{place}/dev-log"
def settings(log_file=log_file, log_format="text"):
    more = {"log_file": log_file, "log_format": log_format}
    return config.load("qmaster", os.devnull, environ={}, uid=0, overrides=more)
it = logs.Logs("qmaster", to_stderr=False)
it.apply(settings())
log = logging.getLogger("test")
"""


def run(code: str, place: Path, log_file: str | None = None) -> None:
    """Run `code` with Logs set up; nothing may be printed, whatever happens."""
    done = python(SETUP + code, str(place), log_file or f"{place}/x.log")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def lines(place: Path) -> list[str]:
    """The log, without the note on the missing syslog."""
    return [line for line in (place / "x.log").read_text().splitlines() if "no syslog" not in line]


@pytest.fixture
def settings(place: Path) -> Settings:
    overrides = {"log_file": f"{place}/x.log"}
    return config.load("qmaster", "/dev/null", environ={}, uid=0, overrides=overrides)


def record(message: str, *args: object, error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("bad\nluck")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("qulo.x", logging.ERROR, __file__, 1, message, args, info)


def test_a_text_line_has_the_time_in_utc_and_cannot_be_forged() -> None:
    text = logs._Text().format(record("from %s", "peer\n2026-01-01T00:00:00Z INFO all is well\x1b[2J"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR qulo\.x: from peer\\n2026.*\\x1b\[2J", text)


def test_a_traceback_is_indented_so_that_it_cannot_look_like_lines() -> None:
    first, *rest = logs._Text().format(record("died", error=True)).splitlines()
    assert first.endswith("ERROR qulo.x: died")
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in rest)


def test_json_is_one_object_a_line() -> None:
    found = json.loads(logs._Json().format(record("a\nb", error=True)))
    assert (found["level"], found["logger"], found["message"]) == ("error", "qulo.x", "a\nb")
    assert found["exception"].endswith("ValueError: bad\nluck")
    assert found["time"].endswith("Z")


def test_syslog_gets_one_line_without_a_traceback() -> None:
    assert logs._Line().format(record("died", error=True)) == "qulo.x: died (ValueError: bad\\nluck)"


def test_errors_go_to_syslog_too_and_the_rest_does_not(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(f"{place}/dev-log")
        syslog.setblocking(False)
        run("log.info('one'); log.error('two')", place)
        # 27 is facility daemon (3 * 8) and severity error (3).
        assert re.fullmatch(rb"<27>qmaster\[\d+\]: test: two", syslog.recv(4096))
        with pytest.raises(BlockingIOError):
            syslog.recv(4096)
    assert [line.split(" ", 2)[2] for line in lines(place)] == ["test: one", "test: two"]


def test_a_log_that_cannot_be_written_is_said_once_to_syslog(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(f"{place}/dev-log")
        syslog.setblocking(False)
        run("log.info('one'); log.info('two'); sys.stdout.flush(); os._exit(0)", place, "/dev/full")
        assert b"cannot log to /dev/full: [Errno 28] No space left on device" in syslog.recv(4096)
        with pytest.raises(BlockingIOError):
            syslog.recv(4096)


def test_a_syslog_that_went_away_is_said_once_in_the_log(place: Path) -> None:
    syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    syslog.bind(f"{place}/dev-log")
    with syslog:
        run(
            "os.unlink(logs.DEV_LOG); it._handlers[-1].socket.close(); log.error('one'); log.error('two')",
            place,
        )
    found = [line.split(" ", 2)[2] for line in lines(place)]
    assert sorted(found)[1:] == ["test: one", "test: two"]
    assert found[0 if found[0].startswith("qulo") else 1].startswith(f"qulo.daemon.logs: cannot log to {place}/dev-log")


def test_a_log_file_that_is_a_directory_gets_the_programs_name(place: Path) -> None:
    run("log.info('one')", place, str(place))
    assert "test: one" in (place / "qmaster.log").read_text()


def test_what_cannot_be_opened_changes_nothing(place: Path) -> None:
    code = """
from qulo.errors import FileError
try:
    it.apply(settings("/proc/none/x.log", "json"))
except FileError:
    log.info("still here")
"""
    run(code, place)
    assert lines(place)[-1].endswith("INFO test: still here")


def test_warnings_and_dying_threads_are_logged_not_printed(place: Path) -> None:
    code = """
import warnings
warnings.warn("old ways")
def die():
    raise ValueError("in a thread")
thread = threading.Thread(target=die, name="writer")
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise ValueError("in a finalizer")
Bad()
"""
    run(code, place)
    text = "\n".join(lines(place))
    assert "WARNING py.warnings: " in text
    assert "ERROR qulo.daemon.logs: thread writer died" in text
    assert "ValueError: in a finalizer" in text


def test_a_log_that_exists_keeps_its_mode(place: Path, settings: Settings) -> None:
    (place / "x.log").touch()
    (place / "x.log").chmod(0o600)
    handler = logs._File(settings.log_file)
    handler.close()
    assert (place / "x.log").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileError, match="cannot be opened: Is a directory"):
        logs._File(str(place))


# -- the audit log

AUDITED = "logging.getLogger('qulo.audit').info('%s', '{\"a\": 1}')\n"


def test_audit_lines_go_to_a_file_of_their_own_beside_the_log(place: Path) -> None:
    run(AUDITED + "log.info('one')", place)
    assert (place / "qmaster.audit.log").read_text() == '{"a": 1}\n'
    assert (place / "qmaster.audit.log").stat().st_mode & 0o777 == 0o640
    assert [line.endswith("one") for line in lines(place)] == [True]


def test_where_the_log_is_a_directory_audit_lines_are_in_it(place: Path) -> None:
    run(AUDITED, place, str(place))
    assert (place / "qmaster.audit.log").read_text() == '{"a": 1}\n'


def test_log_level_leaves_no_audit_line_out(place: Path) -> None:
    quiet = "more = {'log_file': log_file, 'log_level': 'error'}\n"
    run(quiet + "it.apply(config.load('qmaster', os.devnull, environ={}, uid=0, overrides=more))\n" + AUDITED, place)
    assert (place / "qmaster.audit.log").read_text() == '{"a": 1}\n'


def test_after_a_rotation_and_reopening_audit_lines_go_to_the_new_file_and_none_is_lost(place: Path) -> None:
    rotate = "os.rename(f'{place}/qmaster.audit.log', f'{place}/old')\n"
    run(AUDITED + rotate + AUDITED + "it.apply(settings())\n" + AUDITED, place)
    assert (place / "old").read_text() == '{"a": 1}\n' * 2
    assert (place / "qmaster.audit.log").read_text() == '{"a": 1}\n'


def test_an_audit_file_that_cannot_be_opened_changes_nothing(place: Path) -> None:
    code = """
from qulo.errors import FileError
more = {"log_file": f"{place}/other.log", "audit_file": "/proc/none/x.log"}
before = len(os.listdir("/proc/self/fd"))
try:
    it.apply(config.load("qmaster", os.devnull, environ={}, uid=0, overrides=more))
except FileError as error:
    log.info("%s", error)
assert len(os.listdir("/proc/self/fd")) == before
"""
    run(code + AUDITED, place)
    assert lines(place)[-1].endswith("log /proc/none/x.log cannot be opened: No such file or directory")
    assert (place / "qmaster.audit.log").read_text() == '{"a": 1}\n'


def test_in_the_foreground_audit_lines_go_to_stderr_unless_a_file_is_named(place: Path) -> None:
    code = SETUP.replace("to_stderr=False", "to_stderr=True") + AUDITED
    done = python(code, str(place), f"{place}/x.log")
    assert done.stderr.splitlines()[-1] == '{"a": 1}'
    assert not list(place.iterdir())
    named = code.replace('"log_format": log_format}', '"log_format": log_format, "audit_file": f"{place}/a.log"}')
    done = python(named, str(place), f"{place}/x.log")
    assert '{"a": 1}' not in done.stderr
    assert (place / "a.log").read_text() == '{"a": 1}\n'


def test_an_audit_log_on_a_full_disk_is_said_once_and_stops_nothing(place: Path) -> None:
    more = "more = {'log_file': log_file, 'audit_file': '/dev/full'}\n"
    code = more + "it.apply(config.load('qmaster', os.devnull, environ={}, uid=0, overrides=more))\n" + 3 * AUDITED
    run(code, place)
    (complaint,) = lines(place)
    assert complaint.endswith("cannot log to /dev/full: [Errno 28] No space left on device")
