"""Time for tests."""

from __future__ import annotations

from datetime import UTC, datetime


class StillClock:
    """A clock whose hands only the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds
