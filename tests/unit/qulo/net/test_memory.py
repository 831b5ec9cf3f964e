"""After a crowd memory is given back, once; else nothing is done."""

from __future__ import annotations

import pytest

from qulo.net import memory


def test_memory_is_given_back_once_after_a_crowd_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(memory, "_trim", calls.append)
    keeper = memory.Keeper()
    for sessions in (1, 50, 0, 5, memory.CROWD + 5, memory.CROWD, 6):
        keeper.look(sessions)
    assert calls == []
    keeper.look(5)
    keeper.look(5)
    assert calls == [0]


def test_it_is_there_on_glibc_and_missed_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.Keeper().look(0)
    monkeypatch.setattr(memory, "_trim", None)
    keeper = memory.Keeper()
    keeper.look(memory.CROWD)
    keeper.look(0)
