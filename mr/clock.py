"""Time, as something handed in, so that the simulation can own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `now` may jump and is only written down; `monotonic` measures."""

    def now(self) -> datetime:
        """The time of day, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds since some moment of this process; never compared across processes."""


class SystemClock:
    """The clocks of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def stamp(moment: datetime) -> str:
    """A moment as `2026-11-21T12:00:00.000000Z`: sorts as text in the order of time."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
