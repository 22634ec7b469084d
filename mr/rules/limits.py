"""Limits of the protocol that nobody sets: how much stands where. Used as `limits.NAME`, so tests can shrink them."""

from __future__ import annotations

DEPTH_MAX = 32
"""Levels of mapping."""
INLINE_MAX = 256 * 1024
"""Bytes of data that stand in a record or travel in a message; more goes into chunks."""
REPLY_MAX = 64 * 1024
"""Bytes of a result that travels with the reply to a waiting front end."""
RETAINED_MAX = 16 * 1024 * 1024
"""Bytes of results that a visit keeps for a reduce of its own; beyond it the reduce reads the store."""
