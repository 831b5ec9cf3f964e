"""From the command line to a running daemon, in the one order in which nothing fails out of sight.

    parse → configuration → readiness pipe, fork, setsid, fork → lock the PID file → directories
    → what runs beside it → drop privileges → logs → loop, and in it the role: context, store, bind → ready
    → the parent exits 0

A role is a `Program` and `def main() -> int: return runner.main(PROGRAM)`. Anything the role needs that must
not be shared with a parent (zmq contexts, threads, databases) it makes in `serve`, never at import.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qulo import config
from qulo._version import __version__
from qulo.config import Settings
from qulo.daemon import commands, daemonize, directories, exits, options, privileges, signals, state
from qulo.daemon.control import Control, Event, Serve
from qulo.daemon.daemonize import Outcome, Tell
from qulo.daemon.logs import Logs
from qulo.daemon.notify import Notifier
from qulo.daemon.options import Arguments
from qulo.daemon.pidfile import PidFile
from qulo.daemon.supervisor import Supervisor
from qulo.errors import ConfigError, QuloError

__all__ = ["Program", "Control", "Event", "main"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """A daemon: its name, one line for --help, and the coroutine that serves."""

    name: str
    summary: str
    serve: Serve
    joins: bool = False
    """Has --join TOKEN, which `serve` finds in its control."""
    beside: Callable[[], object] | None = None
    """Makes what needs the privileges that `serve` does not have any more; it gets the result as `control.beside`."""


def main(program: Program, argv: Sequence[str] | None = None) -> int:
    """Run `program` with the command line `argv` (None: this process's own); the exit code.

    In the background this returns in the process that was started; the daemon itself ends inside.
    """
    arguments = options.parse(program.name, program.summary, argv, joins=program.joins)
    start = _Start(program, arguments, dict(os.environ), os.geteuid())
    try:
        if arguments.command is not None:
            return start.command(arguments.command)
        settings = start.load()
    except (QuloError, OSError) as error:
        _say(program.name, exits.text_of(error))
        return exits.code_of(error)
    if arguments.check:
        print(f"{program.name}: the configuration is valid ({settings.path or 'no file, defaults only'})")
        return exits.OK
    if arguments.show:
        print(config.render(settings), end="")
        return exits.OK
    return start.foreground(settings) if start.stays else start.background(settings)


def _say(program: str, *lines: str) -> None:
    for line in lines:
        print(f"{program}: {line}", file=sys.stderr)


@dataclass(slots=True)
class _Start:
    """One command line, with the environment and user it was given in; a reload reads by them again."""

    program: Program
    arguments: Arguments
    environ: Mapping[str, str]
    uid: int
    file: str | None = field(init=False)
    """What to read: once a file has been read it may not go missing, or defaults would hold silently."""

    def __post_init__(self) -> None:
        self.file = self.arguments.config

    @property
    def stays(self) -> bool:
        """Whether it stays in the foreground."""
        return self.arguments.foreground or bool(self.environ.get("NOTIFY_SOCKET"))

    def load(self) -> Settings:
        """The settings as they are now. Raises ConfigError."""
        settings = config.load(
            self.program.name,
            self.file,
            environ=self.environ,
            uid=self.uid,
            overrides=self.arguments.overrides,
        )
        self.file = settings.path or self.file
        return settings

    def command(self, command: str) -> int:
        """`-s`. A configuration that is broken keeps nobody from stopping a daemon, given its PID file."""
        try:
            settings = self.load()
        except ConfigError as error:
            if not self.arguments.pid_file_given or command == "reload":
                raise
            _say(self.program.name, str(error), "going on with the PID file that was given")
            settings = config.load(
                self.program.name, os.devnull, environ={}, uid=self.uid, overrides=self.arguments.overrides
            )
        return commands.run(self.program.name, command, settings.pid_file, settings.drain_timeout)

    def foreground(self, settings: Settings) -> int:
        """Run here; the exit code."""
        os.umask(daemonize.UMASK)
        return self._run(settings, lambda outcome: _say(self.program.name, *outcome.lines))

    def background(self, settings: Settings) -> int:
        """Run in a daemon; the exit code, once it is ready or has failed."""
        outcome = daemonize.launch(lambda tell: self._run(settings, tell))
        _say(self.program.name, *outcome.lines)
        return outcome.code

    def _run(self, settings: Settings, tell: Tell) -> int:
        """Everything after the last fork; the exit code. What fails before the logs are open is told only."""
        signals.hold()
        logs = Logs(self.program.name, to_stderr=self.stays and settings.sources["log_file"] == "default")
        try:
            beside = self._prepare(settings, logs)
        except Exception as error:  # noqa: BLE001 - whoever started it has to hear of anything
            tell(Outcome(exits.code_of(error), (exits.text_of(error),)))
            return exits.code_of(error)
        try:
            return self._serve(settings, logs, tell, beside)
        finally:
            state.remove(settings.pid_file)  # before the lock goes, which it does with the process
            logging.shutdown()

    def _prepare(self, settings: Settings, logs: Logs) -> object:
        """What is done with all privileges, and giving them up; what the program made beside itself."""
        identity = privileges.identity(settings.user, settings.group)
        owner = None if identity is None else (identity.uid, identity.gid)
        directories.make(os.path.dirname(settings.pid_file), self.uid, owner)
        PidFile.lock(settings.pid_file)
        state.remove(settings.pid_file)  # of a daemon that was killed
        wanted = directories.wanted(settings, log_to_file=not logs.to_stderr)
        for path in wanted:
            directories.make(path, self.uid, owner, private=path == settings.data_dir)
        beside = None if self.program.beside is None else self.program.beside()
        if identity is not None:
            privileges.drop(identity)
        directories.check_writable(wanted)
        logs.apply(settings)
        return beside

    def _serve(self, settings: Settings, logs: Logs, tell: Tell, beside: object) -> int:
        name = self.program.name
        log.info("%s %s starts, PID %d, with %s", name, __version__, os.getpid(), settings.path or "defaults only")
        if self.uid == 0 and settings.user is None:
            log.warning("%s", config.STAYS_ROOT)
        supervisor = Supervisor(
            serve=self.program.serve,
            settings=settings,
            load=self.load,
            logs=logs,
            notifier=Notifier(self.environ),
            token=self.arguments.token,
            told_ready=lambda: tell(Outcome(exits.OK, tuple(logs.notes))),
            beside=beside,
        )
        try:
            return asyncio.run(supervisor.run())
        except BaseException as error:  # the edge of the program: it is told or logged, and ends
            if supervisor.is_ready:
                log.critical("%s died: %s", name, exits.text_of(error), exc_info=error)
                return exits.FAILED
            expected = isinstance(exits.cause_of(error), QuloError)
            if not (expected and logs.to_stderr):  # there it will be told anyway
                trace = None if expected else error
                log.error("%s did not start: %s", name, exits.text_of(error), exc_info=trace)
            tell(Outcome(exits.code_of(error), (exits.text_of(error),)))
            return exits.code_of(error)
