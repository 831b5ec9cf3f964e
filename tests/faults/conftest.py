"""The short campaign takes a machine of its own for a minute: `make faults` plays it, before the long one."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("QULO_FAULTS") else ["test_campaign.py"]
