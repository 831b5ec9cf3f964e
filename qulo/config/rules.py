"""`permissions:` of the configuration: a list of rules, each with its place, and back to YAML.

    permissions:
      - allow: [publish, subscribe]        # or deny
        names: ["web*", "web*/local"]
        topics: ["metrics.>"]

No list, or an empty one, is no rule at all: then nobody may do anything. Without the key the default holds.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from qulo.errors import ConfigError, QuloError
from qulo.protocol.permissions import VERBS, Rule
from qulo.protocol.topics import check_pattern

_KEYS = ("allow", "deny", "names", "topics")

# Principals and the two wildcards; a name in a rule that no principal can have would be a mistake nobody notices.
_NAME = re.compile(r"[a-z0-9._*?-]{1,64}(/(local|plain|\*))?")


def read(file: str, node: Node | None) -> tuple[Rule, ...]:
    """The rules that `node` (None: there is nothing) says. Raises ConfigError with the place."""
    if node is None:
        return ()
    if not isinstance(node, SequenceNode):
        raise _error(file, node, "permissions", "expected a list of rules, each with allow or deny, names and topics")
    return tuple(_rule(file, index, item) for index, item in enumerate(node.value))


def _rule(file: str, index: int, node: Node) -> Rule:
    key = f"permissions[{index}]"
    if not isinstance(node, MappingNode):
        raise _error(file, node, key, "expected a rule: allow or deny, names and topics")
    found: dict[str, tuple[str, ...]] = {}
    for name_node, value in node.value:
        name = str(name_node.value)
        if name not in _KEYS:
            raise _error(file, name_node, key, _unknown("key", name, _KEYS))
        if name in found:
            raise _error(file, name_node, key, f"{name} is there twice")
        found[name] = tuple(_text(file, f"{key}.{name}", name, item) for item in _items(value))
        if not found[name]:
            raise _error(file, value, f"{key}.{name}", "expected one at least: a rule of nothing would decide nothing")
    if ("allow" in found) == ("deny" in found):
        raise _error(file, node, key, "expected either allow or deny, with the verbs")
    for name in ("names", "topics"):
        if name not in found:
            raise _error(file, node, key, f"expected {name}")
    allow = "allow" in found
    place = f"{file}:{node.start_mark.line + 1}"
    return Rule(allow, found["allow" if allow else "deny"], found["names"], found["topics"], place)


def _items(node: Node) -> list[Node]:
    return list(node.value) if isinstance(node, SequenceNode) else [node]


def _text(file: str, key: str, name: str, node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise _error(file, node, key, "expected a word, found a list or mapping")
    text = str(node.value)
    if name in ("allow", "deny") and text not in VERBS:
        raise _error(file, node, key, _unknown("verb", text, VERBS))
    if name == "names" and not _NAME.fullmatch(text):
        raise _error(file, node, key, f"{text!r} can be nobody's name: a-z 0-9 . _ -, with * and ?, and /local behind")
    if name == "topics":
        try:
            check_pattern(text)
        except QuloError as error:
            raise _error(file, node, key, str(error)) from None
    return text


def _unknown(what: str, word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"unknown {what} {word!r}" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}")


def _error(file: str, node: Node, key: str, message: str) -> ConfigError:
    place: dict[str, Any] = {"line": node.start_mark.line + 1, "column": node.start_mark.column + 1}
    return ConfigError(message, file=file, key=key, **place)


def render(rules: tuple[Rule, ...]) -> str:
    """The rules as `read` reads them, one a line."""
    if not rules:
        return "permissions: []"
    lines = ["permissions:"]
    for rule in rules:
        kind = "allow" if rule.allow else "deny"
        parts = {kind: rule.verbs, "names": rule.names, "topics": rule.topics}
        lines.append(f"  - {{{', '.join(f'{name}: {json.dumps(list(value))}' for name, value in parts.items())}}}")
    return "\n".join(lines)
