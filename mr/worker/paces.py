"""Paces: how long a child of each mapper takes here, and so how many of them an executor gets at once."""

from __future__ import annotations

from mr.worker.run import Run

FIRST_TRY = 16
"""Children of a handler whose pace is not known yet that go to an executor at once."""
AT_ONCE_MAX = 1024
RUN_FOR_S = 0.02
"""How much work goes to an executor at once, by the pace of its handler."""


class Paces:
    """Seconds by version; what was seen last counts half."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def of(self, version: str) -> float | None:
        """What a child of the mapper takes, with what its executor went on with; None if it never ran here."""
        return self._seconds.get(version)

    def at_once(self, version: str | None) -> int:
        """How many children an executor gets; `version` is None for a reduce."""
        pace = self._seconds.get(version) if version else None
        if pace is None:
            return FIRST_TRY
        return max(1, min(int(RUN_FOR_S / pace) if pace else AT_ONCE_MAX, AT_ONCE_MAX))

    def learn(self, run: Run, now: float) -> None:
        """A run is over."""
        for step, each in run.paces(now):
            version = run.visit.definitions.mapper(step).version
            known = self._seconds.get(version)
            self._seconds[version] = each if known is None else 0.5 * known + 0.5 * each
