"""Placing: what of a job nobody could run, told to the client that posts it.

A post is never held up for it: the fleet is read at most once a second, and only for posts that are not answered
at once anyway. What is said is a hint; a worker may join a moment later.
"""

from __future__ import annotations

from mr.clock import Clock
from mr.errors import MrError
from mr.http.threads import NativeThreads
from mr.services.fleet import Fleet
from mr.services.placement import Placement

FRESH_S = 1.0
KEPT_MAX = 1000


class Placing:
    """Placements of jobs, as they were a second ago at most."""

    def __init__(self, fleet: Fleet, clock: Clock, threads: NativeThreads) -> None:
        self._fleet, self._clock, self._threads = fleet, clock, threads
        self._known: dict[tuple[str, str], tuple[float, Placement]] = {}

    def place(self, workflow: str, job: str) -> Placement:
        """What of the job nobody could run; empty where that cannot be found out. Belongs to greenlets."""
        now = self._clock.monotonic()
        at, placement = self._known.get((workflow, job), (float("-inf"), Placement()))
        if now - at > FRESH_S:
            try:
                placement = self._threads.call(self._fleet.place, workflow, job)
            except MrError:
                return Placement()
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[workflow, job] = (now, placement)
        return placement
