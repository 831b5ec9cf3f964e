"""Names and secrets from the system's randomness; the core takes them as arguments."""

from __future__ import annotations

import secrets


def make_epoch() -> int:
    """A name for one life of one hub: 63 random bits, so that two are never the same."""
    return secrets.randbits(63)


def make_token() -> bytes:
    """What proves a session."""
    return secrets.token_bytes(16)


def make_instance() -> bytes:
    """What names a link."""
    return secrets.token_bytes(8)
