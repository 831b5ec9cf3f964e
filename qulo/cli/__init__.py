"""`qulo`: the command line for people and scripts. One verb per module; this one takes a command line there.

What goes wrong is one line, `qulo: …`, and an exit code of `cli.exits`. It must never show a traceback for
what another program, the hub or the user did, and never load ZeroMQ for a command line that needs no hub.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qulo.cli import auth, bench, exits, join, keys, options, ping, pub, reply, request, sub, token
from qulo.cli.options import Verb
from qulo.errors import EndpointError, QuloError

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        *(pub.VERB, sub.VERB, request.VERB, reply.VERB, ping.VERB, bench.VERB),
        *(join.VERB, token.VERB, keys.VERB, auth.VERB),
    )
}

# Second line after "no hub": what the reader most likely has to do.
HINT = "start one with `qulod`, or name another with --url (`qulo --help` says how addresses are found)"


def main(argv: Sequence[str] | None = None) -> int:
    """The executable: carry out `argv` (None: this process's own) and return the exit code."""
    verb, arguments = options.parse(VERBS, sys.argv[1:] if argv is None else argv)
    try:
        return verb.run(arguments)
    except KeyboardInterrupt:
        return verb.interrupted
    except BrokenPipeError:
        # `qulo sub … | head` has had enough. What Python would flush at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except (QuloError, OSError) as error:
        _say(exits.text_of(error))
        if isinstance(error, EndpointError) and verb is not join.VERB:  # there the token names the address
            _say(HINT)
        return exits.code_of(error)


def _say(line: str) -> None:
    print(f"qulo: {line}", file=sys.stderr)
