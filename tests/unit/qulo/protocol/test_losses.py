"""What agents have lost is told to whom it concerns, in bounded tables and in one walk, whatever a frame says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from qulo.protocol import wire
from qulo.protocol.hub import Hub
from qulo.protocol.losses import MOST, PER_TICK, Losses
from qulo.protocol.permissions import PING, Permissions, Rule
from qulo.protocol.router import GAPS_TOLD, Router
from qulo.protocol.session import Listener, Session
from tests.unit.qulo.protocol.test_hub import hello, make_hub, say

MAY_BE_AN_AGENT = Rule(True, ("respond",), ("*",), (PING,))
ALL = Rule(True, ("publish", "subscribe"), ("*",), (">",))


class Site:
    """A hub with an agent, and a program that subscribes."""

    def __init__(self, *patterns: str, rules: tuple[Rule, ...] = (MAY_BE_AN_AGENT, ALL)) -> None:
        self.hub: Hub
        self.listener: Listener
        self.hub, self.listener = make_hub()
        self.hub.authority.permissions = Permissions(rules)
        self._numbers = {b"a": 0, b"p": 0}
        self.say(b"a", hello(instance=b"theagent", kind="agent"), plain=True)
        self.say(b"p", hello(instance=b"theother"), plain=True)
        self.agent, self.program = self.hub.sessions.values()
        self.say(b"p", *([wire.SUBSCRIBE, sid, pattern, None] for sid, pattern in enumerate(patterns)))

    def say(self, who: bytes, *records: object, plain: bool = False) -> list[wire.Record]:
        """A frame from the agent (b"a") or the program (b"p"); what the hub sends in that turn."""
        self._numbers[who] += not plain
        number = 0 if plain else self._numbers[who]
        return say(self.hub, self.listener, *records, number=number, user=f"{who.decode()}#1", route=who)

    def lose(self, *patterns: str) -> list[tuple[Any, ...]]:
        """The agent says that it lost these; (sid, pattern, reason) of the Gaps that are told."""
        return gaps(self.say(b"a", *([wire.LOST, pattern, "overflow"] for pattern in patterns)))

    def tick(self) -> list[tuple[Any, ...]]:
        """Time passes; the Gaps that are told."""
        self.hub.tick(1.0)
        self.hub.flush()
        return gaps([record for _, _, frame in self.hub.take_out() for record in wire.decode(frame)[2]])


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows with each walk over the subscriptions."""
    walks: list[Any] = []
    tell = Router.pass_gaps

    def walk(self: Router, told: Mapping[str, str], *rest: Any, **more: Any) -> None:
        walks.append(told)
        tell(self, told, *rest, **more)

    monkeypatch.setattr(Router, "pass_gaps", walk)
    return walks


def gaps(records: list[wire.Record]) -> list[tuple[Any, ...]]:
    return [(record[1], record[2], record[6]) for record in records if record[0] == wire.GAP]


def table(*patterns: str) -> dict[str, str]:
    losses, site = Losses(), Site()
    for pattern in patterns:
        losses.add(site.agent, pattern, "overflow")
    ((_, told),) = losses.take(0)
    return told


def test_a_loss_is_told_to_whom_it_concerns_at_the_end_of_the_turn() -> None:
    site = Site("a.*", "b.>", "a.x")
    assert sorted(site.lose("a.x")) == [(0, "a.x", "overflow"), (2, "a.x", "overflow")]


def test_a_reason_is_short() -> None:
    site = Site("a")
    assert gaps(site.say(b"a", [wire.LOST, "a", "x" * 1000])) == [(0, "a", "x" * 32)]


def test_a_frame_full_of_losses_is_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = watched(monkeypatch)
    site = Site("x.y", "a.b")
    told = site.lose(*(f"*.{number}.>" for number in range(3000)), "*.*")
    assert (len(walks), len(told)) == (1, 2)


def test_there_is_one_walk_per_tick_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = watched(monkeypatch)
    site = Site(">")
    told = site.lose("first")
    for number in range(10):
        told += site.lose(f"later.{number}")
    assert (len(walks), told) == (1, [(0, "first", "overflow")])
    assert {pattern for _, pattern, _ in site.tick()} == {f"later.{number}" for number in range(10)}
    assert len(walks) == 2


def test_after_a_long_walk_there_is_a_longer_pause() -> None:
    losses, site = Losses(), Site()
    losses.add(site.agent, "a", "overflow")
    losses.take(3 * PER_TICK)
    losses.add(site.agent, "b", "overflow")
    due = []
    for _ in range(5):
        losses.tick()
        due.append(losses.due)
    assert due == [False, False, False, True, True]


def test_an_agent_that_leaves_has_said_what_it_lost() -> None:
    site = Site("a")
    assert site.lose("b") == []
    site.say(b"a", [wire.LOST, "a", "overflow"], [wire.BYE])
    assert site.agent.life.value == "down"
    assert site.tick() == [(0, "a", "overflow")]


def test_of_many_topics_one_subscription_hears_one_gap_on_its_own_pattern() -> None:
    site = Site("many.*", "many.3")
    told = site.lose(*(f"many.{number}" for number in range(GAPS_TOLD + 1)))
    assert sorted(told) == [(0, "many.*", "overflow"), (1, "many.3", "overflow")]


def test_a_table_that_is_full_makes_the_loss_wider() -> None:
    told = table(*(f"t{number}" for number in range(MOST + 1)))
    assert len(told) == MOST + 1
    assert ">" in told


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (("a.>", "a.b.*"), {"a.>"}),
        (("a.b.*", "a.>"), {"a.>"}),
        (("a.>", "b.>"), {">"}),
        (("a.>", "b"), {"a.>", "b"}),
    ],
)
def test_a_table_has_one_pattern_with_wildcards(patterns: tuple[str, ...], told: set[str]) -> None:
    assert table(*patterns).keys() == told


def test_what_it_may_not_publish_on_is_lost_only_where_it_had_published() -> None:
    mine = Rule(True, ("publish",), ("a/local",), ("mine.>",))
    others = Rule(True, ("subscribe",), ("*",), (">",))
    site = Site("mine.*", "secret.a", rules=(MAY_BE_AN_AGENT, mine, others))
    site.say(b"a", [wire.PUBLISH, "mine.x", 0, [b"1"]])
    assert site.lose(">", "secret.a", "secret.*") == [(0, "mine.x", "overflow")]


def test_an_agent_that_is_lost_is_one_walk_over_all_its_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site("t.*", "t.7")
    site.say(b"a", *([wire.PUBLISH, f"t.{number}", 0, [b"1"]] for number in range(500)))
    walks = watched(monkeypatch)
    site.hub.end(site.agent, "expired", 1.0)
    site.hub.flush()
    told = gaps([record for _, _, frame in site.hub.take_out() for record in wire.decode(frame)[2]])
    assert (len(walks), sorted(told)) == (1, [(0, "t.*", "restart"), (1, "t.7", "restart")])


# -- what an agent may hold


def denied(records: list[wire.Record]) -> list[int]:
    return [record[1] for record in records if record[0] == wire.DENIED]


def small(session: Session, hub: Hub) -> int:
    """Limits of three patterns; returns them."""
    limits = hub.limits
    object.__setattr__(limits, "max_subscriptions", 3)
    return limits.max_subscriptions * session.weight


RESPOND = Rule(True, ("respond",), ("*",), (">", PING))


def test_an_agent_has_a_hundred_times_a_programs_topics_but_not_its_wildcards() -> None:
    site = Site(rules=(RESPOND, ALL))
    most = small(site.agent, site.hub)
    told = site.say(b"a", *([wire.SUBSCRIBE, sid, f"topic.{sid}", None] for sid in range(most - 10)))
    assert not denied(told)
    wide = [*([wire.SUBSCRIBE, 1000 + sid, f"*.{sid}", None] for sid in range(2)), [wire.RESPOND, 1002, "*.a"]]
    assert not denied(site.say(b"a", *wide))
    beyond = [[wire.SUBSCRIBE, 1003, ">", None], [wire.SUBSCRIBE, 1004, "b.>", "group"], [wire.RESPOND, 1005, "c.*"]]
    assert denied(site.say(b"a", *beyond)) == [1003, 1004, 1005]


def test_one_peers_members_and_responders_on_one_topic_are_bounded_and_those_on_others_are_not() -> None:
    site = Site(rules=(RESPOND, ALL))
    small(site.agent, site.hub)
    told = site.say(b"a", *([wire.RESPOND, sid, "ask"] for sid in range(3)), [wire.SUBSCRIBE, 3, "ask", "group"])
    assert denied(told) == [3]
    told = site.say(b"a", *([wire.RESPOND, 10 + sid, f"ask.{sid}"] for sid in range(20)))
    assert not denied(told)


def test_a_place_is_free_again_and_a_registration_can_be_replaced_at_the_limit() -> None:
    site = Site(rules=(RESPOND, ALL))
    small(site.agent, site.hub)
    site.say(b"a", *([wire.SUBSCRIBE, sid, f"{sid}.*", None] for sid in range(3)))
    assert not denied(site.say(b"a", [wire.SUBSCRIBE, 1, "1.*", None], [wire.SUBSCRIBE, 2, "other.>", None]))
    assert denied(site.say(b"a", [wire.SUBSCRIBE, 9, "9.*", None])) == [9]
    site.say(b"a", [wire.UNSUBSCRIBE, 1])
    assert not denied(site.say(b"a", [wire.SUBSCRIBE, 9, "9.*", None]))
    assert site.agent.crowds == {">": 3}
