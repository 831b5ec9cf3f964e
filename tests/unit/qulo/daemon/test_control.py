"""What a role sees: events in order, and an end."""

from __future__ import annotations

from qulo.daemon.control import Control, Event
from tests.unit.qulo.aio_tools import _run


def test_events_come_in_order_and_stop_is_the_last() -> None:
    async def use() -> list[str]:
        control = Control(lambda _addresses: None)
        for event in (Event("dump"), Event("drain"), Event("stop"), Event("dump")):
            control.put(event)
        return [event.kind async for event in control]

    assert _run(use()) == ["dump", "drain", "stop"]


def test_ready_hands_the_addresses_on() -> None:
    told: list[dict[str, str]] = []
    Control(lambda addresses: told.append(dict(addresses))).ready({"listen": "tcp://127.0.0.1:1"})
    assert told == [{"listen": "tcp://127.0.0.1:1"}]
