"""Reading what somebody wrote: the YAML file, the environment and the command line, each value with its place.

The tree of YAML nodes is never constructed into objects, so nothing in a file can run or explode, and every value
is text, whoever wrote it.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from qulo.config import rules
from qulo.config.table import BY_NAME, options_of
from qulo.errors import ConfigError
from qulo.protocol.permissions import Rule

# Characters of what a YAML parser says; it quotes what it did not understand.
LONGEST_REASON = 200

NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it, with its place for messages."""

    text: str | tuple[str, ...]
    source: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    key: str | None = None
    rules: tuple[Rule, ...] = ()
    """The value of a key that is `nested`; it has no text."""

    def error(self, message: str, item: int | None = None) -> ConfigError:
        key = self.key if item is None else f"{self.key}[{item}]"
        return ConfigError(message, file=self.file, line=self.line, column=self.column, key=key)


def read_environ(program: str, environ: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    for option in options_of(program):
        if option.nested:
            continue
        variable = f"QULO_{option.name.upper()}"
        text = environ.get(variable, "")
        if text:
            value = tuple(part.strip() for part in text.split(",")) if option.kind.many else text
            given[option.name] = Given(value, "environment", key=variable)
    return given


def read_overrides(overrides: Mapping[str, str]) -> dict[str, Given]:
    return {name: Given(text, "command line", key=name) for name, text in overrides.items()}


def read_file(program: str, file: str, *, required: bool) -> dict[str, Given] | None:
    """What the file says, by key; None when there is no file and none is required."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError("there is no such file", file=file) from None
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 (byte {error.start})", file=file) from error
    return read_text(program, file, text)


def read_text(program: str, file: str, text: str) -> dict[str, Given]:
    """What `text`, the contents of `file`, says; raises ConfigError."""
    return _read_mapping(program, file, _compose(file, text))


def _compose(file: str, text: str) -> Node | None:
    """The tree of nodes; it is never constructed into objects, so nothing in a file can run or explode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)  # what YAML would guess about, such as an anchor defined twice
            node: Node | None = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not YAML: {message}", file=file, line=line, column=column) from error
    except (YAMLError, YAMLWarning) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())[:LONGEST_REASON]}", file=file) from error
    return node


def _read_mapping(program: str, file: str, root: Node | None) -> dict[str, Given]:
    if root is None or _is_null(root):
        return {}
    if not isinstance(root, MappingNode):
        raise ConfigError("expected `key: value` lines", **_place(file, root))
    seen: dict[str, int] = {}
    given: dict[str, Given] = {}
    for key, value in root.value:
        name = _key(program, file, key)
        if name in seen:
            raise ConfigError(f"is there twice; first in line {seen[name]}", key=name, **_place(file, key))
        seen[name] = key.start_mark.line + 1
        if BY_NAME[name].nested:
            node = None if _is_null(value) else value
            source = f"{file}:{value.start_mark.line + 1}"
            given[name] = Given("", source, key=name, rules=rules.read(file, node), **_place(file, value))
        elif not _is_null(value):
            given[name] = _read_value(file, name, value)
    return given


def _place(file: str, node: Node) -> dict[str, Any]:
    return {"file": file, "line": node.start_mark.line + 1, "column": node.start_mark.column + 1}


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in NULLS


def _key(program: str, file: str, node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise ConfigError("expected a key, found a list or mapping", **_place(file, node))
    name = str(node.value)
    known = [option.name for option in options_of(program)]
    if name in known:
        return name
    if name in BY_NAME:
        message = f"{program} does not have this key; it is one of {', '.join(BY_NAME[name].programs)}"
    else:
        near = difflib.get_close_matches(name, known, n=1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}")
    raise ConfigError(message, key=name, **_place(file, node))


def _read_value(file: str, name: str, node: Node) -> Given:
    place = _place(file, node)
    if isinstance(node, ScalarNode):
        text: str | tuple[str, ...] = str(node.value)
    elif isinstance(node, SequenceNode) and node.value and all(isinstance(item, ScalarNode) for item in node.value):
        text = tuple(str(item.value) for item in node.value)
    else:
        found = "a mapping" if isinstance(node, MappingNode) else "a list that is empty or nested"
        raise ConfigError(f"expected a value, found {found}", key=name, **place)
    return Given(text, f"{file}:{place['line']}", key=name, **place)
