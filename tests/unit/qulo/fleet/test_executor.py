"""The privileged process, as its network process sees it; the fuzz at the end plays one that was taken over."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from qulo._version import __version__
from qulo.errors import Denied
from qulo.fleet.executor import IGNORED, LIMIT, VERBS, Server
from qulo.fleet.handle import PATH
from tests.unit.qulo.fleet.conftest import PATIENCE, Peer


def test_ping_says_who_it_is(peer: Peer) -> None:
    about = {"pid": peer.process.pid, "uid": os.getuid(), "version": __version__, "dropped": 0}
    assert peer.ask(7, "ping", None) == [7, "", about]


def test_there_are_no_other_verbs(peer: Peer) -> None:
    assert list(VERBS) == ["ping"]


# -- what it has, and what it has not


def test_it_has_its_socket_and_nothing_else_of_its_agent(peer: Peer) -> None:
    files = peer.files()
    assert [files.pop(name) for name in "012"] == ["/dev/null"] * 3
    assert [target.partition(":")[0] for target in files.values()] == ["socket"]
    environ = peer.proc("environ").read_bytes().decode().split("\0")
    assert environ == [f"PATH={PATH}", "LANG=C", ""]
    assert peer.proc("cwd").readlink() == Path("/")
    assert os.getsid(peer.process.pid) == peer.process.pid  # no terminal of whoever started the agent
    status = dict(line.split(":\t", 1) for line in peer.proc("status").read_text().splitlines())
    assert (status["Umask"], status["SigBlk"]) == ("0077", "0" * 16)
    ignored = int(status["SigIgn"], 16)
    assert all(ignored >> number - 1 & 1 for number in IGNORED)
    assert peer.proc("comm").read_text() == "qagent-executor\n"


def test_it_loads_neither_sockets_of_zeromq_nor_a_loop_nor_what_reads_files_of_others() -> None:
    code = "import sys; import qulo.fleet.executor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"zmq", "asyncio", "ssl", "ruamel", "subprocess", "logging"} & set(loaded)
    ours = {"qulo", "qulo._version", "qulo.errors", "qulo.fleet", "qulo.fleet.executor"}
    assert {name for name in loaded if name.split(".")[0] == "qulo"} == ours


def test_signals_for_its_agent_do_not_end_it(peer: Peer) -> None:
    for number in IGNORED:
        os.kill(peer.process.pid, number)
    assert peer.dropped() == 0
    assert peer.process.poll() is None


def test_started_by_hand_it_says_what_it_is() -> None:
    for argv in ((), ("x",), ("0",)):
        done = subprocess.run(
            [sys.executable, "-I", "-m", "qulo.fleet.executor", *argv],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "the executor is started by its agent, with a socket\n")


# -- its end


def test_it_ends_when_nobody_has_the_other_end(peer: Peer) -> None:
    peer.socket.close()
    assert peer.process.wait(PATIENCE) == 0


def test_it_ends_when_the_other_end_is_closed_with_answers_unread(peer: Peer) -> None:
    for number in range(10):
        peer.send([number, "ping", None])
    assert peer.receive()[0] == 0
    peer.socket.close()
    assert peer.process.wait(PATIENCE) == 0


def test_it_ends_when_it_is_told_that_no_more_will_come(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.process.wait(PATIENCE) == 0


# -- what is not a question


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ([1, "no-such", None], "there is no verb 'no-such'"),
        ([1, "__class__", None], "there is no verb '__class__'"),
        ([1, "x" * 60_000, None], f"there is no verb '{'x' * 32}'"),
        ([1, b"ping", None], "a question is [id, verb, argument]"),
        ([1, ["ping"], None], "a question is [id, verb, argument]"),
        ([1], "a question is [id, verb, argument]"),
        ([1, "ping"], "a question is [id, verb, argument]"),
        ([1, "ping", None, None], "a question is [id, verb, argument]"),
        ([1, "ping", {}], "ping has no argument"),
        ([1, "ping", False], "ping has no argument"),
    ],
)
def test_what_it_does_not_understand_is_answered_with_an_error(peer: Peer, question: list[Any], text: str) -> None:
    assert peer.ask(*question) == [1, "protocol", text]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 60_000,
        b"\x01",
        b"\x90",
        msgpack.packb({"id": 1}),
        msgpack.packb([-1, "ping", None]),
        msgpack.packb([2**32, "ping", None]),
        msgpack.packb([True, "ping", None]),
        msgpack.packb([1.0, "ping", None]),
        msgpack.packb(["1", "ping", None]),
        msgpack.packb([1, "ping", None]) + b"\x00",
        msgpack.packb([1, "ping", b"x" * LIMIT]),
    ],
    ids=repr,
)
def test_what_nobody_could_be_answered_for_is_dropped_and_counted(peer: Peer, message: bytes) -> None:
    for count in (1, 2):
        peer.socket.send(message)
        assert peer.dropped() == count


def test_descriptors_that_are_sent_to_it_are_not_kept(peer: Peer) -> None:
    before = peer.files()
    with open("/dev/null", "rb") as null:
        for _ in range(10):
            socket.send_fds(peer.socket, [msgpack.packb([1, "ping", None])], [null.fileno()] * 10)
            assert peer.receive()[:2] == [1, ""]
    assert peer.files() == before


def test_a_network_process_that_reads_no_answers_does_not_stop_it(peer: Peer) -> None:
    peer.socket.setblocking(False)
    sent = 0
    while sent < 20_000:
        try:
            peer.send([sent, "ping", None])
        except BlockingIOError:
            continue  # it has not read them yet; it must, though nobody reads its answers
        sent += 1
    # Now somebody reads. A question is answered again as soon as there is room for its answer.
    peer.socket.settimeout(0.05)
    deadline = time.monotonic() + PATIENCE
    answered: set[int] = set()
    while max(answered, default=0) < sent:
        assert time.monotonic() < deadline
        try:
            answered.add(peer.receive()[0])
        except TimeoutError:
            peer.send([sent, "ping", None])
    peer.socket.settimeout(PATIENCE)
    assert 0 < len(answered) < sent
    assert peer.dropped() >= sent + 1 - len(answered)


# -- what a verb may do to it


def _explode(_server: Server, _argument: Any) -> Any:
    raise ZeroDivisionError("a bug")


def _talk(_server: Server, _argument: Any) -> Any:
    return "x" * LIMIT


def _refuse(_server: Server, argument: Any) -> Any:
    raise Denied(f"not {argument}")


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        (_explode, [1, "error", "ZeroDivisionError: a bug"]),
        (_refuse, [1, "denied", "not that"]),
        (_talk, [1, "too-large", f"the answer has {LIMIT + 8} bytes; the limit is {LIMIT}"]),
        (lambda _server, _argument: object(), [1, "error", "an answer that cannot be sent: TypeError"]),
        (lambda _server, argument: argument, [1, "", "that"]),
    ],
)  # fmt: skip
def test_a_verb_that_fails_is_an_answer(verb: Callable[[Server, Any], Any], answer: list[Any]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        thread = threading.Thread(target=Server(theirs, {"verb": verb}).run)
        thread.start()
        with ours:
            ours.settimeout(PATIENCE)
            for _ in range(2):
                ours.send(msgpack.packb([1, "verb", "that"]))
                assert msgpack.unpackb(ours.recv(LIMIT)) == answer
        thread.join(PATIENCE)
        assert not thread.is_alive()


# -- one that was taken over


def _garbage(dice: random.Random) -> bytes:
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(dice.choice((0, 1, 7, 300, LIMIT, LIMIT + 1)))
    if kind == 1:  # nearly a question
        message = bytearray(msgpack.packb([dice.randrange(2**32), "ping", None]))
        message[dice.randrange(len(message))] = dice.randrange(256)
        return bytes(message)
    if kind == 2:
        return bytes(
            msgpack.packb([dice.randrange(2**32), dice.choice(("", "run", "ping\0", "päng")), _value(dice, 4)])
        )
    if kind == 3:
        return bytes(msgpack.packb(_value(dice, 6)))
    whole = msgpack.packb([1, "ping", _value(dice, 4)])
    return bytes(whole[: dice.randrange(len(whole))])


def _value(dice: random.Random, depth: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: dice.random() < 0.5,
        lambda: dice.randrange(-(2**63), 2**64),
        lambda: dice.uniform(-1e300, 1e300),
        lambda: dice.randbytes(dice.randrange(40)),
        lambda: "x" * dice.randrange(40),
        lambda: msgpack.ExtType(dice.randrange(128), dice.randbytes(dice.randrange(20))),
        lambda: [_value(dice, depth - 1) for _ in range(dice.randrange(4))],
        lambda: {str(number): _value(dice, depth - 1) for number in range(dice.randrange(4))},
    ]
    return dice.choice(kinds if depth else kinds[:7])()


def test_after_ten_thousand_messages_of_garbage_it_answers_and_has_nothing_more_than_before(peer: Peer) -> None:
    dice = random.Random(4711)
    before = peer.files()
    answered = 0
    for number in range(10_000):
        peer.socket.send(_garbage(dice))
        if number % 20 == 0:  # what was answered is read, or it would be dropped
            answered += _read_up_to(peer, 4712)
    answered += _read_up_to(peer, 4712)
    assert answered + peer.dropped() == 10_000
    assert answered > 1_000
    assert peer.files() == before
    assert not list(peer.proc(f"task/{peer.process.pid}").joinpath("children").read_text().split())
    os.kill(peer.process.pid, signal.SIGTERM)
    assert peer.process.poll() is None


def _read_up_to(peer: Peer, mark: int) -> int:
    """Read the answers so far; how many there were."""
    peer.send([mark, "ping", None])
    count = 0
    while (found := peer.receive())[0] != mark:
        assert found[1] == "protocol" or found[2]["pid"] == peer.process.pid, found  # some of it is a ping
        count += 1
    return count
