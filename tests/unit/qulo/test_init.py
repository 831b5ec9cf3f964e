"""The public names: what programs may rely on, and that importing them costs no more than it must."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import qulo

PUBLIC = [
    "BadBody",
    "BadTopic",
    "BadVersion",
    "Bus",
    "Consumer",
    "DeadlineExceeded",
    "Delivery",
    "Denied",
    "Disconnected",
    "EndpointError",
    "Gap",
    "HandlerError",
    "Message",
    "NoResponders",
    "NoStream",
    "OutcomeUnknown",
    "Overloaded",
    "ProtocolError",
    "QuloError",
    "RequestError",
    "Responder",
    "ResponderLost",
    "StoreFailed",
    "StoreFull",
    "Stored",
    "StoredMessage",
    "Subscription",
    "TooLarge",
    "__version__",
    "connect",
    "errors",
    "sync",
]

BUS = [
    *("close", "connected", "consume", "flush", "open", "publish", "put", "read"),
    *("request", "request_many", "respond", "subscribe", "url"),
]


def test_the_public_names_are_these() -> None:
    assert sorted(qulo.__all__) == PUBLIC
    assert dir(qulo) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_explains_itself(name: str) -> None:
    value = getattr(qulo, name)
    assert value is getattr(qulo, name)
    assert name == "__version__" or (value.__doc__ or "").strip()


def test_a_bus_has_these_verbs() -> None:
    assert sorted(name for name in vars(qulo.Bus) if name[0] != "_") == BUS


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'qulo' has no attribute 'nothing'"):
        _ = qulo.nothing
    with pytest.raises(ImportError):
        exec("from qulo import nothing", {})  # noqa: S102 - as a program would


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+|\.dev\d+)?", qulo.__version__)


def loaded_by(code: str) -> set[str]:
    """Which modules a fresh interpreter has loaded after `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split())


def test_importing_the_package_loads_neither_zmq_nor_asyncio() -> None:
    assert not loaded_by("import qulo; qulo.__version__") & {"zmq", "msgpack", "ruamel", "asyncio"}
    assert not loaded_by("import qulo; qulo.QuloError; qulo.errors") & {"zmq", "ruamel"}
    assert "zmq" in loaded_by("import qulo; qulo.connect")


def test_importing_everything_starts_nothing() -> None:
    code = "import qulo, qulo.sync, qulo.qulod, threading; qulo.connect; assert threading.active_count() == 1"
    assert "zmq" in loaded_by(code)
