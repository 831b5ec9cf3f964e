"""What the driver tells a peer process, as one JSON argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from benchmarks.cases import Side, Style


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens and the key files a client needs: with CURVE; with TLS the certificate as server_key."""

    side: Side
    url: str
    server_key: str | None = None
    key: str | None = None
    fsync: bool = False  # before it acknowledges what it stores, of NATS


@dataclass(frozen=True, slots=True)
class Job:
    """One peer's part of a measurement; a role reads only what it needs."""

    endpoint: Endpoint
    count: int
    topics: tuple[str, ...] = ("bench.x",)
    pattern: str = "bench.x"
    style: Style = "callback"
    in_flight: int = 1
    rate: float = 0.0  # messages per second, of the paced publisher
    push: bool = False  # of the consumer

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job in `text`, as `to_json` wrote it."""
        fields = json.loads(text)
        endpoint, topics = Endpoint(**fields.pop("endpoint")), tuple(fields.pop("topics"))
        return cls(endpoint=endpoint, topics=topics, **fields)
