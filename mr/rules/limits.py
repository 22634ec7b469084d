"""Limits that nobody sets: how much stands where, and how big one thing may be. `docs/limits.rst` has all of them.

Used as `limits.NAME`, so that tests can shrink them.
"""

from __future__ import annotations

VALUE_MAX = 512 * 1024
"""Bytes of one key or value, as JSON."""
SESSION_MAX = 1024 * 1024
"""Bytes of all that one invocation keeps in its session, keys and values."""
SESSION_KEY_MAX = 1024
"""Bytes of a session key, as JSON: it becomes a part of a key of the store."""
PATH_MAX = 1024
"""Bytes of a path in a tree that handlers share, or of the key of an item in a queue, as JSON, for the same reason."""
ARGUMENTS_MAX = 1024 * 1024
"""Bytes of the arguments of a request, which stand in one record of the store."""
DEPTH_MAX = 32
"""Levels of mapping."""
INLINE_MAX = 256 * 1024
"""Bytes of data that stand in a record or travel in a message; more goes into chunks."""
TOGETHER_MAX = 128 * 1024
"""Bytes of a result that leaves its executor with those of other children; more goes alone."""
SPILLED_MIN = 8 * 1024
"""Bytes of data that stay in a record, or go with others, even where the request spills: a blob has its price, too."""
OUTPUT_MAX = 256 * 1024
"""Bytes of printed output in one record, as JSON; the children of a slice share a record."""
REPORT_OUTPUT_MAX = 16 * 1024
"""Bytes of printed output in the report that the client gets, as JSON; the record of the attempt has more."""
REPLY_MAX = 64 * 1024
"""Bytes of a result that travels with the reply to a waiting front end."""
RETAINED_MAX = 16 * 1024 * 1024
"""Bytes of results that a visit keeps for a reduce of its own; beyond it the reduce reads the store."""
