"""`qulo reply`: answer requests with a text, with what was asked, or with what a command says.

A command gets the request's body on standard input and its topic in QULO_TOPIC. It must never be run by a
shell: what strangers send is data.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qulo.cli import body, commands, exits, hub
from qulo.cli.options import Verb, count
from qulo.errors import HandlerError, UsageError

if TYPE_CHECKING:
    from qulo.client import Message

# Seconds that a command may take without --timeout; whoever asked has usually given up long before.
_COMMAND_TIMEOUT = 60.0

_MANUAL = """\
With BODY every request is answered with that, with --echo with its own body,
with --command with what the command prints. The command is split into words
as a shell would do it, but no shell runs it: no pipes, no variables. It gets
the request's body on standard input and the topic in QULO_TOPIC. If it does
not exit 0, or takes longer than --timeout (60 s), whoever asked gets an error
with the last line of its stderr. Several may run at once. Ctrl-C is the usual
end: exit 0.

examples:
  qulo reply ping pong
  qulo reply echo --echo
  qulo reply 'host.*.uptime' --command uptime
  qulo reply sorted --command 'sort -u'
  qulo reply once --count 1 'only the first'
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("topic", metavar="TOPIC", help="what to answer; * is one token, > the rest")
    add("body", metavar="BODY", nargs="?", help="the answer, as text")
    add("--command", metavar="CMD", help="answer with the output of this command")
    add("--echo", action="store_true", help="answer with the request's own body")
    add("-C", "--count", metavar="N", type=count, help="end after N requests")


def _run(arguments: argparse.Namespace) -> int:
    answers = _Answers(_answerer(arguments), arguments.count)
    with hub.connect(arguments) as bus:
        bus.respond(arguments.topic, answers.answer)
        answers.done.wait()
    return exits.OK


class _Answers:
    """Answers requests, of a number of them if there is one."""

    def __init__(self, answer: Callable[[Message], Any], left: int | None) -> None:
        self.done = threading.Event()
        self._answer = answer
        self._left = left
        self._lock = threading.Lock()

    def answer(self, message: Message) -> Any:
        """Called in worker threads."""
        if not self._claim():
            raise HandlerError("this responder is ending, it has answered enough")
        try:
            return self._answer(message)
        finally:
            if self._left == 0:
                self.done.set()  # closing waits for the answers under way

    def _claim(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left = max(self._left, 0) - 1
            return self._left >= 0


def _answerer(arguments: argparse.Namespace) -> Callable[[Message], Any]:
    given = (arguments.body is not None, arguments.command is not None, arguments.echo)
    if sum(given) != 1:
        raise UsageError("exactly one of BODY, --command and --echo says what to answer")
    if arguments.echo:
        return lambda message: message.body
    if arguments.command is None:
        text = os.fsencode(arguments.body)
        return lambda _message: text
    argv = commands.split(arguments.command)
    timeout = arguments.timeout or _COMMAND_TIMEOUT
    return lambda message: _carry_out(argv, message, timeout)


def _carry_out(argv: list[str], message: Message, timeout: float) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, and no shell
            argv,
            input=body.to_bytes(message.body),
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "QULO_TOPIC": message.topic},
        )
    except subprocess.TimeoutExpired:
        raise HandlerError(f"{argv[0]} took longer than {timeout:g} s") from None
    except OSError as error:
        raise HandlerError(f"{argv[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise HandlerError(f"{argv[0]} ended with {done.returncode}{commands.last_line(done.stderr)}")
    return done.stdout


VERB = Verb("reply", "answer requests", _MANUAL, _add_options, _run, exits.OK)
