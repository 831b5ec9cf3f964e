"""Text that others chose, made fit for a terminal and for one line of a log.

The one place that decides what is shown as it is: what Python calls printable. Controls, line and paragraph separators,
zero-width and bidirectional characters are shown as their escapes. It must never shorten or drop anything.
"""

from __future__ import annotations


def shown(text: str, keep: str = "") -> str:
    """`text` with escapes for what is not printable, except the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def shown_json(text: str) -> str:
    """JSON as it is, but that what is not printable in its strings is escaped as JSON does."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
