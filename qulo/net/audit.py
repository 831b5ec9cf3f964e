"""The audit log: one JSON line per decision that denies or runs something. It goes to the logger `qulo.audit`.

    {"time": "2026-01-01T00:00:00.000Z", "who": "web1/local", "address": "10.0.0.7", "verb": "publish",
     "on": "orders.new", "allowed": false, "why": "no rule allows it"}

Never a body, a secret or a whole key.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from qulo.protocol.ports import Verdict

log = logging.getLogger("qulo.audit")


def write(verdict: Verdict) -> None:
    """Append a line."""
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "who": verdict.who,
        "address": verdict.address,
        "verb": verdict.verb,
        "on": verdict.on,
        "allowed": verdict.allowed,
        "why": verdict.why,
    }
    if verdict.untold:
        fields["untold"] = verdict.untold
    log.info("%s", json.dumps(fields, separators=(",", ":")))
