"""Placing: what of a job nobody could run, told to the client that posts it.

A post is never held up for it: the fleet is read at most once a second, and only for posts that are not answered
at once anyway. What is said is a hint; a worker may join a moment later.

The hard part is that ten thousand clients who wait for one job ask in the same moment: one of them reads, for all.
"""

from __future__ import annotations

from gevent.event import AsyncResult

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
        self._read: dict[tuple[str, str], AsyncResult] = {}

    def place(self, workflow: str, job: str) -> Placement:
        """What of the job nobody could run; empty where that cannot be found out. Belongs to greenlets."""
        name = (workflow, job)
        at, placement = self._known.get(name, (float("-inf"), Placement()))
        if self._clock.monotonic() - at <= FRESH_S:
            return placement
        if name in self._read:
            found: Placement = self._read[name].get()
            return found
        reading = self._read[name] = AsyncResult()
        placement = Placement()
        try:
            placement = self._threads.call(self._fleet.place, workflow, job)
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[name] = (self._clock.monotonic(), placement)
        except MrError:
            pass
        finally:
            del self._read[name]
            reading.set(placement)
        return placement
