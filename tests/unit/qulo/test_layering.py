"""The direction of imports and the purity of the core, held by reading the sources; nothing is imported here.

A new top-level module of qulo needs a line in ALLOWED, which is the picture in one table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

_BASE = frozenset({"errors", "config", "protocol", "plain"})
_MIDDLE = frozenset({"net", "store", "daemon", "fleet"})
_TOP = frozenset({"client", "sync", "qmaster", "qagent", "qulod", "qulolist"})
_ROLE = _BASE | _MIDDLE | {"_version"}

# Which parts of qulo a part may import. Siblings are not there, but for the two exceptions with a reason.
ALLOWED: dict[str, frozenset[str]] = {
    "_version": frozenset(),
    "errors": frozenset(),
    "plain": frozenset(),  # what may be shown
    "arguments": frozenset(),  # option types of several command lines
    "config": frozenset({"errors", "protocol"}),  # what a rule is
    "protocol": frozenset({"errors"}),
    "net": _BASE,
    "store": _BASE,
    "daemon": frozenset({"errors", "config", "plain", "_version"}),  # knows no messaging
    "fleet": _BASE | {"_version"},
    "client": _ROLE,
    "handover": _BASE,  # threads and the loop of the blocking front
    "sync": _ROLE | {"client", "handover"},  # the blocking front IS the client on a loop of its own
    "qmaster": _ROLE,
    "qagent": _ROLE,
    "qulod": _ROLE,
    "qulolist": _ROLE | {"client", "sync", "arguments"},  # a plain client, no daemon
    "cli": _ROLE | _TOP | {"__init__", "arguments"},
    "__init__": _ROLE | {"client", "sync"},  # the public names
}

# With these the core could wait, look at a clock, throw dice or touch the world.
IMPURE = frozenset(
    "zmq asyncio sqlite3 time os random logging socket threading secrets uuid".split()  # noqa: SIM905 - readable
)

# Outside of qulo, who alone may import it.
ONLY = {"zmq": "net", "sqlite3": "store"}

# (file, module): why this one is imported inside a function.
INSIDE_FUNCTIONS: dict[tuple[str, str], str] = {
    ("qulo/cli/hub.py", "qulo.sync"): "ZeroMQ is loaded by verbs that talk to a hub, not by `qulo --version`",
    ("qulo/cli/hub.py", "qulo.client"): "as above",
    ("qulo/cli/hub.py", "qulo.config"): "as above, for YAML",
    ("qulo/cli/join.py", "qulo.client.joined"): "as above",
    ("qulo/cli/put.py", "qulo.cli.putting"): "as above, for asyncio",
    ("qulo/cli/options.py", "qulo.config.kinds"): "as above, for YAML",
    ("qulo/cli/asking.py", "qulo.client"): "as above",
    ("qulo/cli/asking.py", "qulo.protocol.topics"): "as above",
    ("qulo/cli/restoring.py", "qulo.config"): "as above, for YAML",
    ("qulo/cli/restoring.py", "qulo.daemon.pidfile"): "as above",
    ("qulo/cli/restoring.py", "qulo.store.sqlite"): "as above, for SQLite",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, where it is written."""

    module: str
    """As precise as can be: `qulo.net.hub`, not `qulo.net`, for `from qulo.net import hub`."""
    line: int
    in_function: bool


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_module_name(path): path for path in sorted((ROOT / "qulo").rglob("*.py"))}


def _imports(name: str, path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return list(_walk(tree, package, in_function=False))


def _walk(node: ast.AST, package: str, *, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for module in _modules(child, package):
            yield Import(module, getattr(child, "lineno", 0), in_function)
        inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(child, package, in_function=inside)


def _modules(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in SOURCES else base


def _part(module: str) -> str:
    """The top-level part of qulo that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def _is_ours(module: str) -> bool:
    return module == "qulo" or module.startswith("qulo.")


every_module = pytest.mark.parametrize("name", sorted(SOURCES))


@every_module
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    part = _part(name)
    assert part in ALLOWED, f"qulo.{part} has no layer yet: give it a line in ALLOWED"
    wrong = [
        f"line {found.line}: {found.module}"
        for found in _imports(name, SOURCES[name])
        if _is_ours(found.module) and _part(found.module) not in ALLOWED[part] | {part}
    ]
    assert not wrong, f"{name} may import from {sorted(ALLOWED[part])} only"


@every_module
def test_the_protocol_is_pure(name: str) -> None:
    if _part(name) != "protocol":
        return
    wrong = [found for found in _imports(name, SOURCES[name]) if found.module.split(".")[0] in IMPURE]
    assert not wrong, f"{name} is part of the pure core: time, ids and chance are arguments"


@every_module
def test_zmq_and_sqlite_have_one_user_each(name: str) -> None:
    tops = {found.module.split(".")[0] for found in _imports(name, SOURCES[name])}
    wrong = [f"{module} belongs to qulo/{owner}/" for module, owner in ONLY.items() if module in tops]
    assert all(_part(name) == ONLY[message.split()[0]] for message in wrong), wrong


@every_module
def test_imports_are_at_the_top(name: str) -> None:
    file = str(SOURCES[name].relative_to(ROOT))
    wrong = [
        found
        for found in _imports(name, SOURCES[name])
        if found.in_function and (file, found.module) not in INSIDE_FUNCTIONS
    ]
    assert not wrong, "an import inside a function hides a dependency; state its reason in INSIDE_FUNCTIONS"


def test_there_are_no_cycles() -> None:
    graph = {
        name: {found.module for found in _imports(name, path) if found.module in SOURCES} - {name}
        for name, path in SOURCES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_the_test_sees_what_it_looks_for() -> None:
    lines = (
        "import zmq.asyncio",
        "from . import topics",
        "from ..errors import X",
        "def f():",
        "    import os",
    )
    source = "\n".join(lines)
    found = list(_walk(ast.parse(source), "qulo.protocol", in_function=False))
    assert [(each.module, each.in_function) for each in found] == [
        ("zmq.asyncio", False),
        ("qulo.protocol.topics" if "qulo.protocol.topics" in SOURCES else "qulo.protocol", False),
        ("qulo.errors", False),
        ("os", True),
    ]
