"""The checker is worth something: a core with any of these bugs does not pass it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qulo.protocol import topics
from qulo.protocol.channel import Channel
from qulo.protocol.groups import Group
from qulo.protocol.hub import Hub
from qulo.protocol.link import Link
from qulo.protocol.relay import Relay
from qulo.protocol.router import Router
from qulo.protocol.tracker import Item, Run, Tracker
from qulo.protocol.window import Missed, Window
from tests.simulation.test_random import play

# A bug that this many worlds do not show is not caught.
WORLDS = 300

take, missed, deal, turn = Tracker.take, Window.missed, Group.deal, Relay.turn


def blind_to_holes(self: Tracker, prev: int, run: Run, out: list[Item]) -> bool:
    return take(self, 0, run, out)


def lost_without_a_word(self: Window, *args: Any) -> Missed:
    return Missed(missed(self, *args).frames, None)


def unsent_forgotten(self: Channel) -> dict[str, int]:
    self.__init__(self.limit)  # type: ignore[misc]
    return {}


def work_for_two(self: Group, topic: str, kind: int, bodies: list[bytes]) -> int:
    deal(self, topic, kind, bodies)
    return deal(self, topic, kind, bodies)


def never_unparked(self: Hub, now: float) -> None:
    self.blocked = not self.router.measure(now)


def always_news(self: Relay, tracker: Tracker, run: Run) -> bool:
    return True


def own_taken_for_others(self: Relay, *args: Any) -> Any:
    self.link.identity.instance, kept = b"somebody", self.link.identity.instance
    try:
        return turn(self, *args)
    finally:
        self.link.identity.instance = kept


def nothing(*args: Any) -> None:
    return None


def no(*args: Any) -> bool:
    return False


# The last column is a world that shows it, to begin with: when the core changes it may be another one.
BUGS: dict[str, tuple[object, str, Callable[..., Any], int]] = {
    "a hole before a run is not seen": (Tracker, "take", blind_to_holes, 10),
    "a loss at the tail is not seen": (Tracker, "told", no, 22),
    "what fell out of the window is not told": (Window, "missed", lost_without_a_word, 33),
    "what an agent never had is not told": (Router, "_never_came", nothing, 79),
    "a gap is passed to nobody": (Router, "pass_gap", nothing, 11),
    "nothing is sent again after a reconnection": (Channel, "rewind", nothing, 0),
    "a repair brings nothing": (Tracker, "repair", nothing, 7),
    "a new session forgets what was not sent": (Channel, "forget_sent", unsent_forgotten, 1),
    "work is given to two members": (Group, "deal", work_for_two, 0),
    "publishers that wait are never released": (Hub, "_measure", never_unparked, 25),
    "an agent does not know its own messages": (Relay, "turn", own_taken_for_others, 0),
    "overlapping patterns are published twice": (Relay, "_is_news", always_news, 0),
    "an agent does not tell what it lost": (Relay, "lost", nothing, 113),
    "local topics are like all others": (topics, "is_local", no, 1),
    "a link asks for no repair": (Link, "_ask_repair", nothing, 1),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_core_with_this_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken, first = BUGS[bug]
    monkeypatch.setattr(where, name, broken)
    for seed in range(first, first + WORLDS):
        try:
            play(seed)
        except AssertionError:
            return
    pytest.fail(f"no world of {WORLDS} showed that {bug}")
