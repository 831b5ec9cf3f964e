"""One suite for every store: ask for `shop`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.qulo.store.shop import Shop


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which store."""
    return str(request.param)


@pytest.fixture
def shop(kind: str, tmp_path: Path) -> Iterator[Shop]:
    """An empty store."""
    shop = Shop(kind, tmp_path)
    yield shop
    shop.store.close()
