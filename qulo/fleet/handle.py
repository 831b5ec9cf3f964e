"""The unprivileged half's handle on its executor: it starts it, asks it, and notices when it is gone.

    executor = Executor.start()                  with root's privileges, before they are given up
    await executor.attach(settings…)             in the event loop; it has answered once when this returns
    await executor.ask("ping")                   …; await executor.close()

It must never give the executor anything but its end of the socket: no descriptor, no variable, no memory of an agent
that has read a network. And it must never need a privilege after `start`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack

from qulo.errors import DeadlineExceeded, Disconnected, Overloaded, QuloError, TooLarge, UsageError, from_wire
from qulo.fleet.executor import IDS, LIMIT

log = logging.getLogger(__name__)

# Where the executor finds programs; not where whoever started the agent found his.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Questions under way at a time. Small answers of so many fit into the socket's buffer; one that does not is dropped.
MOST_WAITING = 64

# Seconds until the first answer: a Python start takes a tenth of one, on a machine that boots more.
START_TIMEOUT = 30.0

# Seconds that a closed executor gets to end, and a lost one to be a child that can be reaped.
_END_TIMEOUT = 2.0

# Seconds between two looks at whether it has ended.
_LOOK_AGAIN = 0.01

# Answers taken per turn of the loop: messaging has its turn as well.
_TURN = 16

OK, LOST = "ok", "lost"


class Executor:
    """The executor of this agent. `state` is OK or LOST; `changed` is called when that changes."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.state = LOST
        self.changed: Callable[[], None] = _nothing
        self.pid = process.pid
        self.uid = -1
        """Whose it is, by its own word; known once it has answered."""
        self._socket, self._process = connection, process
        self._open = True
        self._waiting: dict[int, asyncio.Future[tuple[str, Any]]] = {}
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def start(cls) -> Executor:
        """Start one, with the privileges of this process. Raises QuloError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    # -I: nothing of this environment or directory is imported; -B: root writes no cache files.
                    [sys.executable, "-I", "-B", "-m", "qulo.fleet.executor", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),  # all others are closed
                    env={"PATH": PATH, "LANG": "C"},
                    cwd="/",
                    umask=0o077,
                    start_new_session=True,  # no terminal's signals, and no terminal
                )
            except OSError as error:
                ours.close()
                raise QuloError(f"the executor cannot be started: {error}") from error
        ours.setblocking(False)
        return cls(ours, process)

    async def attach(self, every: float, patience: float) -> None:
        """Work in the running loop: returns when it has answered, and pings it from then on.

        It is LOST when an answer takes longer than `patience`. Raises QuloError when it does not start.
        """
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        try:
            self.uid = (await self.ask("ping", timeout=START_TIMEOUT))["uid"]
        except Disconnected:
            why = await self._why()
            by_hand = f"{sys.executable} -I -m qulo.fleet.executor"
            raise QuloError(f"the executor does not start ({why}); `{by_hand}` may say more") from None
        self.state = OK
        log.info("the executor runs, PID %d, user %d", self.pid, self.uid)
        self._spawn(self._watch(every, patience))

    async def ask(self, verb: str, argument: object = None, timeout: float = 10.0) -> Any:
        """Ask it, and return its answer. Raises QuloError: the executor's own, or that there is no answer."""
        if not self._open:
            raise Disconnected("the executor is gone")
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} questions to the executor are under way")
        self._next = number = (self._next + 1) % IDS
        self._send([number, verb, argument])
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                code, value = await answer
        except TimeoutError:
            raise DeadlineExceeded(f"the executor did not answer {verb} within {timeout:g} s") from None
        finally:
            del self._waiting[number]
        if code:
            raise from_wire(code, str(value))
        return value

    async def close(self) -> None:
        """Let it end, which it does because nobody has this end of the socket any more, and wait for that."""
        for task in list(self._tasks):
            task.cancel()
        self._hang_up()
        if not await self._ended():
            log.warning("the executor, PID %d, still runs", self.pid)

    # -- the socket

    def _send(self, question: list[Any]) -> None:
        try:
            message = msgpack.packb(question)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"not for msgpack: {error}") from None
        if len(message) > LIMIT:
            raise TooLarge(f"the question has {len(message)} bytes; the limit is {LIMIT}")
        try:
            self._socket.send(message)
        except BlockingIOError:
            raise Overloaded("the executor does not read its questions") from None
        except OSError:
            self._lose()
            raise Disconnected("the executor is gone") from None

    def _readable(self) -> None:
        for _ in range(_TURN):
            try:
                message = self._socket.recv(LIMIT)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:  # the executor sends none that is empty
                self._lose()
                return
            number, code, value = msgpack.unpackb(message)
            waiting = self._waiting.get(number)  # gone when it came too late
            if waiting is not None and not waiting.done():
                waiting.set_result((code, value))

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Disconnected("the executor is gone; the outcome is unknown"))

    # -- its state

    def _lose(self) -> None:
        """It is gone for good. Nothing to tell before `attach` is done: that raises."""
        known = self.uid >= 0
        self._hang_up()
        self._become(LOST)
        if known:
            self._spawn(self._tell())

    async def _tell(self) -> None:
        text = "the executor, PID %d, is gone (%s): no job can run until this agent is restarted; messaging goes on"
        log.error(text, self.pid, await self._why())

    async def _watch(self, every: float, patience: float) -> None:
        while self._open:
            await asyncio.sleep(every)
            try:
                await self.ask("ping", timeout=patience)
            except Disconnected:
                return  # `_tell` says so
            except QuloError as error:
                if self.state == OK:
                    log.error("%s: no job can run until it does; messaging goes on", error)
                self._become(LOST)
            else:
                if self.state == LOST:
                    log.warning("the executor answers again")
                self._become(OK)

    def _become(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.changed()

    async def _why(self) -> str:
        if not await self._ended():
            return "it closed its socket, and still runs"
        code = self._process.returncode
        return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"

    async def _ended(self) -> bool:
        """Whether it ended, as a child that has been reaped, before long."""
        deadline = time.monotonic() + _END_TIMEOUT
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN)
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing() -> None:
    """Nobody wants to know."""
