"""qagent's privileged half: a process of its own that answers questions on one socket, out of one table of verbs.

    python -I -B -m qulo.fleet.executor FD     FD: its end of an AF_UNIX SOCK_SEQPACKET pair

One message is one question `[id, verb, argument]`, one answer `[id, code, value]`, in msgpack; code "" is success,
else `value` is an error's text. The agent's network process, which may be anybody's by then, is on the other end:
what it sends can ask for what is in VERBS and for nothing else, and can neither end nor block this process. Its life
ends with its agent's: when nobody has the other end any more.

It must never read anything but the socket, never wait for anything but the next question, and never import what it
does not need: no ZeroMQ, no event loop, no configuration. The signals it ignores are ignored by what it starts, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from qulo._version import __version__
from qulo.errors import ProtocolError, QuloError, TooLarge

# Bytes of one message, either way. A script of a job fits; what would be larger belongs into a file.
LIMIT = 64 * 1024

# Ids of questions are 32-bit numbers, so that any language could ask.
IDS = 2**32

# What `ps -e` and `top` show; the kernel keeps 15 characters.
NAME = "qagent-executor"

# Its agent's end is its end, and nothing else: a Ctrl-C or a supervisor's TERM for the whole group is the agent's.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_HUNG_UP = select.POLLHUP | select.POLLRDHUP | select.POLLERR


class Server:
    """Answers what comes in on `connection`, a blocking SOCK_SEQPACKET socket, until nobody is at its other end."""

    def __init__(self, connection: socket.socket, verbs: Mapping[str, Verb] | None = None) -> None:
        self._socket = connection
        self._verbs = VERBS if verbs is None else verbs
        self.dropped = 0
        """Messages without an id that could be answered, and answers that the agent did not take."""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLRDHUP)

    def run(self) -> None:
        """Returns when the agent is gone."""
        while (message := self._receive()) is not None:
            answer = self._answer(message)
            if answer is None:
                self.dropped += 1
            else:
                self._send(answer)

    def _receive(self) -> bytes | None:
        """The next message; None: there will be no more. Descriptors sent along are closed by the kernel."""
        try:
            message = self._socket.recv(LIMIT + 1)
        except ConnectionError:  # the agent ended with answers it had not read
            return None
        if not message and self._hung_up():
            return None  # otherwise it was a message of no bytes, which looks the same
        return message

    def _hung_up(self) -> bool:
        return any(events & _HUNG_UP for _, events in self._poll.poll(0))

    def _send(self, answer: bytes) -> None:
        # An agent that does not read must not stop this process: it gets what it has room for.
        try:
            self._socket.send(answer, socket.MSG_DONTWAIT)
        except OSError:  # full, or gone, which the next receive will tell
            self.dropped += 1

    def _answer(self, message: bytes) -> bytes | None:
        """None: there is nobody to answer."""
        try:
            question = _unpack(message)
        except ProtocolError:
            return None
        if type(question) is not list or not question or not _is_id(question[0]):
            return None
        code, value = self._outcome(question)
        try:
            answer: bytes = msgpack.packb([question[0], code, value])
        except Exception as error:  # noqa: BLE001 - whatever a verb returned, this process goes on
            return _refusal(question[0], QuloError(f"an answer that cannot be sent: {type(error).__name__}"))
        if len(answer) > LIMIT:
            return _refusal(question[0], TooLarge(f"the answer has {len(answer)} bytes; the limit is {LIMIT}"))
        return answer

    def _outcome(self, question: list[Any]) -> tuple[str, Any]:
        """Code and value of the answer."""
        try:
            return "", self._carry_out(question)
        except QuloError as error:
            return error.code, str(error)
        except Exception as error:  # noqa: BLE001 - a verb's bug is its asker's answer, not the end of all the others
            return QuloError.code, f"{type(error).__name__}: {error}"

    def _carry_out(self, question: list[Any]) -> Any:
        if len(question) != 3 or type(question[1]) is not str:
            raise ProtocolError("a question is [id, verb, argument]")
        verb = self._verbs.get(question[1])
        if verb is None:
            raise ProtocolError(f"there is no verb {question[1][:32]!r}")
        return verb(self, question[2])


Verb = Callable[[Server, Any], Any]
"""What a verb does with its argument, which it checks: the answer's value. Raises QuloError."""


def _ping(server: Server, argument: Any) -> dict[str, Any]:
    if argument is not None:
        raise ProtocolError("ping has no argument")
    return {"pid": os.getpid(), "uid": os.getuid(), "version": __version__, "dropped": server.dropped}


# Everything that can be asked of this process.
VERBS: Mapping[str, Verb] = {
    "ping": _ping,
}


def _unpack(message: bytes) -> Any:
    if len(message) > LIMIT:
        raise ProtocolError(f"a message has at most {LIMIT} bytes")
    try:
        return msgpack.unpackb(message)
    except Exception as error:  # noqa: BLE001 - hostile input: whatever msgpack raises, it is not the protocol
        raise ProtocolError(f"not msgpack: {type(error).__name__}") from None


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < IDS


def _refusal(number: int, error: QuloError) -> bytes:
    answer: bytes = msgpack.packb([number, error.code, str(error)])
    return answer


def main(argv: Sequence[str]) -> int:
    """The process; the exit code."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the agent held its own back while it started us
    try:
        connection = socket.socket(fileno=int(argv[1]))
    except (IndexError, ValueError, OSError):
        raise SystemExit("the executor is started by its agent, with a socket") from None
    connection.set_inheritable(False)  # nothing it starts shall talk to the agent
    # Without a /proc it is called what it was.
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(NAME)
    with connection:
        Server(connection).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
