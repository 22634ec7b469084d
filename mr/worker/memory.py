"""The address space of an executor: what the worker gives, of which the header of a handler may leave less.

A process that is at its limit cannot even say so. So the limit that counts is the soft one, and mr's own code may
lift it by a reserve while it reports.
"""

from __future__ import annotations

from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit, setrlimit

MEGABYTE = 1024 * 1024
RESERVE_BYTES = 32 * MEGABYTE
LIFTED = -1
EXIT_MEMORY = 86
"""Exit code of an executor that ran out of memory in its own code."""


class Memory:
    """Sets the limit of the handler that runs. `most_bytes` None: there is none but what headers say."""

    def __init__(self, most_bytes: int | None) -> None:
        self._most = most_bytes
        self._hard = getrlimit(RLIMIT_AS)[1]
        if most_bytes is not None:
            asked = most_bytes + RESERVE_BYTES
            self._hard = asked if self._hard == RLIM_INFINITY else min(asked, self._hard)
        self.now: int | None = None
        """The header's limit that is in force; LIFTED while there is room for mr's own code."""
        self.limit(None)

    def limit(self, own_mb: int | None) -> None:
        """A handler runs whose header says so much."""
        self.now = own_mb
        limit = self._most
        if own_mb is not None:
            limit = min(own_mb * MEGABYTE, limit if limit is not None else own_mb * MEGABYTE)
        if limit is None:
            limit = self._hard
        elif self._hard != RLIM_INFINITY:
            limit = min(limit, self._hard)
        setrlimit(RLIMIT_AS, (limit, self._hard))

    def lift(self) -> None:
        """Mr's own code runs, and needs room."""
        setrlimit(RLIMIT_AS, (self._hard, self._hard))
        self.now = LIFTED

    def share_mb(self, own_mb: int | None) -> int:
        """What a process of its own may have for a handler whose header says so much; 0: there is no limit."""
        if self._most is None:
            return own_mb or 0
        most_mb = self._most // MEGABYTE
        return most_mb if own_mb is None else min(own_mb, most_mb)

    def named(self, handler: str, own_mb: int | None) -> str:
        """The limit of a handler, with the place where it is set; empty if there is none."""
        if own_mb is not None and (self._most is None or own_mb * MEGABYTE < self._most):
            return f"{own_mb} MB (memory_mb of handler {handler})"
        return "" if self._most is None else f"{self._most / MEGABYTE:g} MB (MR_HANDLER_MEMORY_MB)"
