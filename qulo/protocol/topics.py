"""Topics and patterns: what is valid, what matches, and what a prefix on PUB can express.

A topic is 1 to 255 bytes of dot-separated tokens without white space or control characters. A pattern is a
topic in which a token may be `*` (exactly one token) and the last may be `>` (one or more tokens).
`$qulo.>` is the system's own and never matched by a pattern that starts with a wildcard; `local.>` stays
on its host.

Pure: no I/O, no state but a bounded cache of validations.
"""

from __future__ import annotations

import re
from functools import lru_cache

from qulo.errors import BadTopic

MAX_TOPIC = 255  # bytes of UTF-8; fits one length byte in any index and keeps XPUB's trie shallow
SYSTEM = "$qulo"
LOCAL = "local"
SESSIONS = b"$qulo.s."  # what the sessions' own PUB frames begin with

# \x00 ends the topic on PUB; white space and control characters make logs and command lines ambiguous.
_BAD = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")

# A program uses few topics over and over; the bound keeps a hostile peer from growing the cache.
_CACHE = 4096


def _check_tokens(text: str, what: str) -> list[str]:
    if not text:
        raise BadTopic(f"the {what} is empty")
    if _BAD.search(text):
        raise BadTopic(f"the {what} {text[:80]!r} has white space or a control character")
    if len(text.encode()) > MAX_TOPIC:
        raise BadTopic(f"the {what} starting {text[:40]!r} has more than {MAX_TOPIC} bytes")
    tokens = text.split(".")
    if "" in tokens:
        raise BadTopic(f"the {what} {text!r} has an empty token: dots separate tokens, they do not end them")
    return tokens


@lru_cache(_CACHE)
def check_topic(topic: str) -> str:
    """Return `topic` if a message can be published on it, else raise BadTopic with the reason."""
    tokens = _check_tokens(topic, "topic")
    if "*" in tokens or ">" in tokens:
        raise BadTopic(f"the topic {topic!r} has a wildcard: wildcards are for subscriptions")
    return topic


@lru_cache(_CACHE)
def check_pattern(pattern: str) -> str:
    """Return `pattern` if it can be subscribed to, else raise BadTopic with the reason."""
    if ">" in _check_tokens(pattern, "pattern")[:-1]:
        raise BadTopic(f"the pattern {pattern!r} has '>' before its end: '>' stands for all the rest")
    return pattern


def is_system(topic: str) -> bool:
    """Is this a topic or pattern in `$qulo.>`?"""
    return topic.partition(".")[0] == SYSTEM


def is_local(topic: str) -> bool:
    """Is this a topic or pattern in `local.>`, which never leaves the host?"""
    return topic.startswith("local.") or topic == LOCAL


def is_wide(pattern: str) -> bool:
    """Has it a wildcard, so that it can match more than one topic?"""
    tokens = pattern.split(".")
    return "*" in tokens or tokens[-1] == ">"


def matches(pattern: str, topic: str) -> bool:
    """Does `pattern` match `topic`? Both must be valid."""
    if pattern == topic:
        return True
    if topic[0] == "$" and pattern[0] in "*>":
        return False
    want, have = pattern.split("."), topic.split(".")
    if want[-1] == ">":
        want.pop()
        if len(have) <= len(want):
            return False
    elif len(have) != len(want):
        return False
    return all(w in (h, "*") for w, h in zip(want, have, strict=False))


def covers(wide: str, narrow: str) -> bool:
    """Does `wide` match every topic that `narrow` (a topic or a pattern) matches?"""
    if narrow[0] == "$" and wide[0] in "*>":
        return False
    have, want = wide.split("."), narrow.split(".")
    rest = have[-1] == ">"
    if rest:
        have.pop()
        if len(want) <= len(have):
            return False
    elif len(want) != len(have) or want[-1] == ">":
        return False
    return all(h in (w, "*") and w != ">" for h, w in zip(have, want, strict=False))


def overlap(a: str, b: str) -> bool:
    """Is there a topic that both patterns match?"""
    if (a[0] == "$" and b[0] in "*>") or (b[0] == "$" and a[0] in "*>"):
        return False
    one, two = a.split("."), b.split(".")
    for x, y in zip(one, two, strict=False):
        if ">" in (x, y):
            return True
        if x != y and "*" not in (x, y):
            return False
    return len(one) == len(two)


def prefix(pattern: str) -> bytes | None:
    """What to subscribe to on PUB so that exactly this pattern's topics come, or None if no prefix says that.

    PUB frames of messages begin with `key(topic)`; an exact topic and `a.b.>` can be said as a prefix of it,
    a pattern with `*` cannot. Nor can one whose prefix would bring the sessions' own frames, which begin with
    their secret tokens.
    """
    tokens = pattern.split(".")
    if "*" in tokens:
        return None
    said = key(pattern)
    if tokens[-1] == ">":
        said = said[:-2]  # without '>' and the end of the topic
    return None if SESSIONS.startswith(said) or said.startswith(SESSIONS) else said


def key(topic: str) -> bytes:
    """What a PUB frame on `topic` begins with.

    A leading dot sets users' topics apart from `$qulo` ones, so that the prefix of `>` leaves those out.
    """
    return (b"" if topic[0] == "$" else b".") + topic.encode() + b"\0"
