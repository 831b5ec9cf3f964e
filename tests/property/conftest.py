"""How hypothesis works here: no deadlines, for the machine may be busy; a failure says how to replay it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("qulo", deadline=None, print_blob=True)
settings.load_profile("qulo")
