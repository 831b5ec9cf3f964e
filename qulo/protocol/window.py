"""The replay window: the last frames a hub published, bounded in bytes and indexed by topic.

It answers one question: what did a subscriber of this pattern, who has everything up to `verified` and a few
newer numbers by topic, miss; and what of it is gone. It never keeps more than `limit` bytes, and a topic whose
runs are gone costs nothing: `floor` speaks for all forgotten topics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Topics with nothing in the window are forgotten beyond this many: about 300 bytes each.
MAX_TOPICS = 50_000

# What one run's entry costs beside the frame: a tuple, two ints, two deque slots.
ENTRY_OVERHEAD = 160


@dataclass(slots=True, eq=False)
class Frame:
    """One PUB frame; `data` is set when the bundle is closed."""

    topics: list[Topic] = field(default_factory=list)  # of its runs, in order
    data: bytes = b""


Entry = tuple[int, int, Frame]  # first number, last number, where


@dataclass(slots=True, eq=False)
class Topic:
    """What a hub knows of one topic. The cached routing is valid while `generation` is the hub's."""

    name: str
    local: bool
    last: int  # number of the last message on it
    gone: int = 0  # highest number that is not in the window (any more)
    runs: deque[Entry] = field(default_factory=deque)
    messages: int = 0
    generation: int = -1
    route: Any = None  # the router's
    groups: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Missed:
    """What a subscriber missed: the frames that are still there, and the span of numbers that is not."""

    frames: list[Frame]
    lost: tuple[int, int] | None


class Window:
    """All topics of one epoch and their newest runs."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.topics: dict[str, Topic] = {}
        self.floor = 0  # highest number of any topic that was forgotten
        self._enough = MAX_TOPICS  # at so many topics some are forgotten
        self._order: deque[Frame] = deque()  # oldest first

    def add(self, frame: Frame) -> None:
        """Keep a frame whose runs were entered at their topics; the oldest ones make room."""
        self._order.append(frame)
        self.size += len(frame.data) + ENTRY_OVERHEAD * len(frame.topics)
        while self.size > self.limit:
            oldest = self._order.popleft()
            self.size -= len(oldest.data) + ENTRY_OVERHEAD * len(oldest.topics)
            for topic in oldest.topics:
                topic.gone = max(topic.gone, topic.runs.popleft()[1])

    def forget_topics(self) -> None:
        """Keep the number of topics bounded: those with no run in the window go, oldest first."""
        if len(self.topics) <= self._enough:
            return
        for topic in [t for t in self.topics.values() if not t.runs][: len(self.topics) - MAX_TOPICS // 2]:
            self.floor = max(self.floor, topic.last)
            del self.topics[topic.name]
        # A walk over all topics is paid for by as many new ones, also when none could go.
        self._enough = max(MAX_TOPICS, 2 * len(self.topics))

    def missed(self, topics: Iterable[Topic], verified: int, newer: Mapping[str, int]) -> Missed:
        """What a subscriber of `topics` lacks who has all up to `verified` and, by topic, up to `newer`."""
        frames: dict[Frame, int] = {}
        lost = (verified + 1, self.floor) if self.floor > verified else None
        for topic in topics:
            have = max(verified, newer.get(topic.name, 0))
            if topic.gone > have:
                span = (have + 1, topic.gone)
                lost = span if lost is None else (min(lost[0], span[0]), max(lost[1], span[1]))
            if topic.last > have:
                for start, end, frame in topic.runs:
                    if end > have:
                        frames[frame] = min(start, frames.get(frame, start))
        return Missed(sorted(frames, key=frames.__getitem__), lost)
