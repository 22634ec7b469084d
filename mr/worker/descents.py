"""Descents: what an executor may go on with by itself, without being asked again for each level.

A small job is a mapper, a few quick children and a reduce. Ordered one by one they are three journeys between
supervisor and executor, each dearer than what it brings. So the order for a mapper names the step that it mapped to
last, if the children of that are quick, and the executor does the rest. What is slow, or not known yet, or has ended
an executor, is ordered one by one, and so is everything where the operator forces the size of messages.
"""

from __future__ import annotations

from collections.abc import Callable

from mr.services.progress import Visit
from mr.services.work import MapWork, Work
from mr.worker import frames
from mr.worker.feeding import Feeding

WITHIN_S = 0.01
"""What an executor goes on with is expected to take no longer."""
MOST = 64
STEPS_KEPT = 10_000


class Descents:
    """Remembers which step follows which. `pace` gives the seconds that a child of a mapper version takes, if known."""

    def __init__(
        self, feeding: Feeding, pace: Callable[[str], float | None], is_suspect: Callable[[str], bool]
    ) -> None:
        self._feeding, self._pace, self._is_suspect = feeding, pace, is_suspect
        self._follows: dict[tuple[str, str], str] = {}

    def learn(self, visit: Visit, work: Work, step: str) -> None:
        """A child of the work has mapped to a step."""
        if len(self._follows) >= STEPS_KEPT:
            self._follows.clear()
        self._follows[visit.definitions_hash, work.step] = step

    def of(self, visit: Visit, work: Work) -> frames.Below | None:
        """What the executor that gets this work may go on with."""
        step = self._follows.get((visit.definitions_hash, work.step))
        if step is None or not isinstance(work, MapWork) or visit.worker.batch_size is not None:
            return None
        version = visit.definitions.mapper(step).version
        pace = self._pace(version)
        if pace is None or pace > WITHIN_S or self._is_suspect(version):
            return None
        return self._feeding.below(visit, work, step, min(MOST, int(WITHIN_S / pace) if pace else MOST))
