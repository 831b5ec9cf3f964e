"""`qulo`: the command line for people and scripts. One verb per module; this one takes a command line there.

What goes wrong is one line, `qulo: …`, and an exit code of `cli.exits`. It must never show a traceback for
what another program, the hub or the user did, and never load ZeroMQ for a command line that needs no hub.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qulo import plain
from qulo.cli import (
    auth,
    bench,
    consume,
    dead,
    doctor,
    exits,
    join,
    keys,
    options,
    ping,
    pub,
    put,
    reply,
    request,
    stream,
    sub,
    token,
)
from qulo.cli.options import Verb
from qulo.errors import EndpointError, QuloError

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        *(pub.VERB, sub.VERB, request.VERB, reply.VERB, ping.VERB, bench.VERB),
        *(stream.VERB, put.VERB, consume.VERB, dead.VERB, doctor.VERB),
        *(join.VERB, token.VERB, keys.VERB, auth.VERB),
    )
}

# Second line after "no hub": what the reader most likely has to do.
HINT = "start one with `qulod`, or name another with --url (`qulo --help` says how addresses are found)"


def main(argv: Sequence[str] | None = None) -> int:
    """The executable: carry out `argv` (None: this process's own) and return the exit code."""
    verb, arguments = options.parse(VERBS, sys.argv[1:] if argv is None else argv)
    try:
        code = verb.run(arguments)
        sys.stdout.flush()  # here, where what it fails with is understood
        return code
    except KeyboardInterrupt:
        return verb.interrupted
    except BrokenPipeError:
        _drop_output()  # `qulo sub … | head` has had enough
        return exits.OK
    except (QuloError, OSError) as error:
        _say(exits.text_of(error))
        if isinstance(error, EndpointError) and verb is not join.VERB:  # there the token names the address
            _say(HINT)
        try:
            sys.stdout.flush()
        except OSError:  # that was the error: the disk is full, for example
            _drop_output()
        return exits.code_of(error)


def _drop_output() -> None:
    """What Python would flush at its end has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    print(f"qulo: {plain.shown(line)}", file=sys.stderr)
