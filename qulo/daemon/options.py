"""The command line that the three daemons share, and its help, which is their manual page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from qulo._version import __version__
from qulo.daemon import exits

COMMANDS = ("reload", "reopen", "drain", "stop", "status")

_EPILOG = """\
signals:
  HUP    read the configuration again; if it is not valid the old one stays and the log says why
  USR1   open the log files again, after they were rotated
  USR2   write the state to the log
  TERM   drain: finish what is under way, at most drain_timeout, then exit
  TERM again, or INT: stop now

files (of root; otherwise the same names in the XDG directories):
  /etc/qulo/{program}.yaml      the configuration; it need not exist
  /var/log/qulo/{program}.log   the log; errors also go to syslog, facility daemon
  /run/qulo/{program}.pid       the PID file; its lock is held while the daemon runs
  /run/qulo/{program}.state     the addresses it is bound to
  /var/lib/qulo               what is kept

environment:
  QULO_KEY overrides the key of the configuration, QULO_LOG_LEVEL=debug for example; the command line
  overrides both. NOTIFY_SOCKET (set by systemd for Type=notify) implies --foreground.

exit status:
  0   it runs (the daemon is ready when this command returns), or what was asked for is done
  1   any other failure        69  an address or the PID file's lock is taken
  3   -s: it is not running    73  a file or directory cannot be made
  64  wrong usage              77  not permitted
                               78  the configuration is not valid

examples:
  {program}                      start in the background; anything that fails is said here
  {program} -t                   is the configuration valid?
  {program} -T | less            what holds, and where each value comes from
  {program} -f -v                stay in the foreground, log everything to stderr
  {program} -s reload            read the configuration again
  {program} -s drain && {program}   an orderly restart
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, parsed. Paths are absolute: the daemon works in another directory."""

    config: str | None
    check: bool
    show: bool
    foreground: bool
    command: str | None
    pid_file_given: bool
    token: str | None
    overrides: Mapping[str, str]
    """Keys of the configuration that the command line sets."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(exits.USAGE, f"{self.prog}: {message} (--help says more)\n")


def parse(program: str, summary: str, argv: Sequence[str] | None, *, joins: bool = False) -> Arguments:
    """Parse `argv`; `joins` programs have --join. Raises SystemExit: 64 for wrong usage, 0 after --help."""
    parser = _parser(program, summary, joins)
    found = parser.parse_args(argv)
    token = found.token if joins else None
    if token is not None and (found.check or found.show or found.command is not None):
        parser.error("--join starts the agent: it goes with none of -t, -T and -s")
    if token == "-":  # noqa: S105 - whoever lists processes shall not see it
        token = sys.stdin.readline().strip()
    overrides = {
        "pid_file": found.pid_file and os.path.abspath(found.pid_file),
        "log_file": found.log_file and os.path.abspath(found.log_file),
        "log_format": found.log_format,
        "log_level": "debug" if found.verbose else None,
    }
    return Arguments(
        config=found.config and os.path.abspath(found.config),
        check=found.check,
        show=found.show,
        foreground=found.foreground,
        command=found.command,
        pid_file_given=found.pid_file is not None,
        token=token,
        overrides={name: value for name, value in overrides.items() if value},
    )


def _parser(program: str, summary: str, joins: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description=f"{program} - {summary}",
        epilog=_EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a script's --f must not change its meaning with the next option
    )
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", help="read this configuration instead of the default one")
    add("-P", "--pid-file", metavar="FILE", help="lock and write this PID file")
    add("-l", "--log-file", metavar="FILE", help="log to this file, or into this directory")
    add("--log-format", choices=("text", "json"), help="form of a log line")
    add("-v", "--verbose", action="store_true", help="log everything, as log_level: debug does")
    add(
        "-f",
        "--foreground",
        action="store_true",
        help="stay in the foreground, and log to stderr unless a log file is configured",
    )
    if joins:
        add(
            "--join",
            dest="token",
            metavar="TOKEN",
            help="have this host's key accepted by the master that made TOKEN (`qulo token new`), remember where it"
            " is, and start; - reads TOKEN from standard input",
        )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("-t", dest="check", action="store_true", help="test the configuration and exit")
    one.add_argument("-T", dest="show", action="store_true", help="test it, print it in full and exit")
    one.add_argument(
        "-s",
        dest="command",
        choices=COMMANDS,
        help="tell the running daemon to reload its configuration, reopen its log, drain (end in order)"
        " or stop (now) - these two wait until it is gone -, or print its status",
    )
    add("--version", action="version", version=f"{program} {__version__}")
    return parser
