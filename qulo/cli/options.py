"""The command line and its help, which is the manual page.

The global options may stand before the verb and after it; after it wins. Nothing here needs a hub.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from qulo import plain
from qulo._version import __version__
from qulo.arguments import seconds
from qulo.cli import exits

_EPILOG = """\
addresses:
  Without --url: those in QULO_URL (with commas between them, tried in order),
  else the user's own hub and then the host's: agent.sock in
  $XDG_RUNTIME_DIR/qulo, and in /run/qulo. An address is tcp://HOST:PORT or
  ipc:///PATH. A hub with `curve: on` needs --server-key (its master.pub) and
  --key (your own secret key; the hub has to accept its public half).

topics:
  Tokens with dots between them: sensors.kitchen.temperature. To sub and reply,
  * stands for one token and > for all the rest: 'sensors.*.temperature',
  'sensors.>'. Quote them, the shell has its own idea of both. local.> stays on
  this host.

exit status:
  0  done                              64  wrong usage
  1  the responder failed; bench:      69  no hub; it says which addresses
     messages are missing                  were tried
  3  timed out; ping: hosts missing    77  denied
  4  nobody answers; no host matches;  78  a key file that is not one
     there is no such stream
  130  ended by Ctrl-C (to sub and reply that is the usual end: 0)

examples:
  qulod                                             # a hub, in the background
  qulo sub --count 1 'hello.>' & sleep 1            # wait for one message
  qulo pub hello.world 'good morning'
  qulo reply time --command 'date +%T' --count 1 &  # answer one request
  sleep 1; qulo request time
  qulolist                                          # who is there
  qulo ping                                         # and do all hosts answer
  qulo pub --help                                   # all about one verb
"""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its manual page and what carries it out."""

    name: str
    summary: str
    manual: str
    """What --help shows below the options."""
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Returns the exit code. Raises QuloError or OSError."""
    interrupted: int
    """The exit code after Ctrl-C."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, f"qulo: {message} (`{self.prog} --help` says more)\n")


def parse(verbs: Mapping[str, Verb], argv: Sequence[str]) -> tuple[Verb, argparse.Namespace]:
    """The verb and its arguments. Raises SystemExit: 64 for wrong usage, 0 after --help and --version."""
    parser = _global_parser(verbs)
    found = parser.parse_args(argv)
    if found.verb is None:
        parser.error(f"a verb is expected: {', '.join(verbs)}")
    verb = verbs.get(found.verb)
    if verb is None:
        parser.error(_unknown(found.verb, verbs))
    # Whatever was given before the verb is the default after it.
    defaults = argparse.Namespace(**_given(found))
    # Intermixed: options may also stand between TOPIC and BODY.
    return verb, _verb_parser(verb).parse_intermixed_args(found.arguments, defaults)


def _unknown(name: str, verbs: Mapping[str, Verb]) -> str:
    near = difflib.get_close_matches(name, verbs, n=1)
    return f"there is no verb {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(verbs)}")


def _given(found: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(found).items() if name not in ("verb", "arguments")}


def _global_parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {verb.name:<10} {verb.summary}" for verb in verbs.values())
    parser = _Parser(
        prog="qulo",
        usage="qulo [OPTIONS] VERB ...",
        description=f"qulo - publish, subscribe, ask and answer from the command line\n\nverbs:\n{listed}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a script's --t must not change its meaning with the next option
    )
    _add_globals(parser)
    parser.set_defaults(url=None, server_key=None, key=None, timeout=None)
    parser.add_argument("--version", action="version", version=f"qulo {__version__}")
    parser.add_argument("verb", metavar="VERB", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _verb_parser(verb: Verb) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"qulo {verb.name}",
        description=f"qulo {verb.name} - {verb.summary}",
        epilog=verb.manual,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_options(parser)
    _add_globals(parser.add_argument_group("options of all verbs"))
    return parser


def _add_globals(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    none = argparse.SUPPRESS  # the defaults are set once, by the global parser
    add("-u", "--url", metavar="URL", default=none, help="the hub's address")
    add("--server-key", metavar="FILE", default=none, help="the hub's public key, for curve")
    add("--key", metavar="FILE", default=none, help="your secret key, for curve")
    add(
        "-W",
        "--timeout",
        metavar="S",
        type=seconds,
        default=none,
        help="seconds to wait: for the hub (2 by default), then for what the verb waits for",
    )


# The longest duration that any option takes: a hundred years are "for ever", and still fit where milliseconds go.
LONGEST = 36_500 * 86_400.0


def duration(least: float = 0.0, most: float = LONGEST) -> Callable[[str], float]:
    """Seconds, written as in the configuration (500ms, 5m, 7d), as the type of an option."""

    def parse(text: str) -> float:
        from qulo.config import kinds  # noqa: PLC0415 - YAML is loaded by what reads some only

        try:
            found: float = kinds.duration(least, most).parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {error}, found {text!r}") from None
        return found

    return parse


def size(text: str) -> int:
    """Bytes, written as in the configuration (64K, 1G), as the type of an option."""
    from qulo.config import kinds  # noqa: PLC0415 - as above

    try:
        found: int = kinds.size(0).parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}, found {text!r}") from None
    return found


def whole(text: str) -> int:
    """A whole number, 0 or more, as an option."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # the hub counts to 2**62
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def count(text: str) -> int:
    """A whole number, 1 or more, as an option."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def note(line: str) -> None:
    """A line to stderr beside what goes to stdout."""
    print(f"qulo: {plain.shown(line)}", file=sys.stderr, flush=True)
