"""Wear: when an executor has done enough, because what handlers leave behind in a process cannot be put back.

An executor is replaced by the spare one, between two runs, after many invocations, when its memory has grown by half,
or when a handler has left threads. Those can wait: an executor that is not yet ten seconds old stays, so that handlers
of a few microseconds, or one that always leaves a thread, cost a hundredth for new executors and not most of the time.
What would hurt the very next handler cannot wait: memory that is half used up, or descriptors, or processes that go on;
or its folder, because a new one of that name is not locked, and the next worker to start here would clear it away.

Memory grows when a handler comes that was not there before, for its modules; that is where "by half" counts from.
"""

from __future__ import annotations

from typing import Literal

INVOCATIONS_MAX = 10_000
GROWTH = 1.5
GROWTH_MIN_BYTES = 16 * 1024 * 1024
"""Less is the allocator's own coming and going."""
AGE_MIN_S = 10.0
LOOK_S = 0.05
"""How often memory is looked at, at most."""

Left = Literal["", "threads", "descriptors", "processes", "no folder"]
"""What handlers have left in an executor after a run."""


class Wear:
    """The wear of one executor, which began at `now` with so much memory."""

    def __init__(self, now: float, resident_bytes: int, limit_bytes: int) -> None:
        self._since = self._looked = now
        self._limit = limit_bytes
        self._first = self._base = resident_bytes
        self._handlers = 0
        self._invocations = 0
        self._resident = resident_bytes
        self._left: Left = ""

    def add(self, invocations: int, left: Left) -> None:
        """A run is over."""
        self._invocations += invocations
        self._left = left or self._left

    def wants_look(self, now: float) -> bool:
        """Whether it is time to measure the memory again."""
        return now - self._looked >= LOOK_S

    def look(self, now: float, resident_bytes: int, handlers: int) -> None:
        """It has so much memory now, and was told of so many handlers so far."""
        self._looked, self._resident = now, resident_bytes
        if handlers != self._handlers:
            self._handlers = handlers
            self._base = max(self._base, resident_bytes)

    def due(self, now: float) -> str:
        """Why it should be replaced as soon as that costs nothing, or nothing."""
        if now - self._since < AGE_MIN_S:
            return ""
        if self._invocations >= INVOCATIONS_MAX:
            return f"{self._invocations} invocations"
        if self._resident >= max(GROWTH * self._base, self._base + GROWTH_MIN_BYTES):
            return f"its memory grew from {self._base >> 20} to {self._resident >> 20} MB"
        return "a handler left threads" if self._left == "threads" else ""

    def urgent(self) -> str:
        """Why it should not run another handler, or nothing."""
        if self._left == "no folder":
            return "a handler removed its folder"
        if self._left in ("descriptors", "processes"):
            return f"a handler left too many {self._left}"
        if self._resident >= max(self._limit // 2, GROWTH * self._first):
            return f"it holds {self._resident >> 20} of {self._limit >> 20} MB"
        return ""
