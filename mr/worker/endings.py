"""Endings: which visits work for requests that are over, so that nobody runs what nobody wants any more.

A failed or cancelled request leaves a marker, and markers are watched. A request that succeeded leaves none: whoever
still runs a part of it, because its message was delivered twice, would learn that only when it commits, which for a
slow part is late. So the fences of visits that are not young any more are looked at now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from mr import codec
from mr.model.request import Active
from mr.ports.store import Change, Store
from mr.rules import keys
from mr.services.progress import Visit
from mr.services.unit import Verdict
from mr.worker.case import Case

AGE_S = 1.0
MOST = 100
"""Fences that are read at a time."""

Read = Callable[[Callable[[], set[str]], Callable[[set[str]], None], Callable[[BaseException], None]], None]
"""Call in a thread; the result, or what it raised, comes back into the loop."""


class Endings:
    """Gives up visits. `end` is called with each of their cases, in the loop, which `post` leads to."""

    def __init__(
        self,
        store: Store,
        cases: Callable[[], Iterable[Case]],
        end: Callable[[Case], None],
        *,
        read: Read,
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store, self._cases, self._end, self._read, self._post = store, cases, end, read, post
        self._is_looking = False

    def on_stopped(self, changes: Sequence[Change]) -> None:
        """Markers have changed. In a watching thread."""
        stopped = {keys.active(*change.key.split("/")[1:]) for change in changes if change.entry is not None}
        self._post(lambda: self._give_up(stopped))

    def look(self, now: float) -> None:
        """Have the fences of old visits read, unless that is under way. In the loop."""
        old = [case.visit for case in self._cases() if case.visit.verdict is None and now - case.since > AGE_S]
        if old and not self._is_looking:
            self._is_looking = True
            self._read(partial(self._gone, dict(map(fence, old[:MOST]))), self._looked, lambda _: self._looked(set()))

    def _gone(self, fences: Mapping[str, bytes]) -> set[str]:
        """In a thread: those that do not stand any more, or stand for another life of their request."""
        found = {key: self._store.get(key) for key in fences}
        return {key for key, entry in found.items() if entry is None or entry.value != fences[key]}

    def _looked(self, gone: set[str]) -> None:
        self._is_looking = False
        self._give_up(gone)

    def _give_up(self, fences: set[str]) -> None:
        for case in list(self._cases()):
            if case.visit.verdict is None and fence(case.visit)[0] in fences:
                case.visit.verdict = Verdict.ENDED
                self._end(case)


def fence(visit: Visit) -> tuple[str, bytes]:
    """Key and value of the fence under which a visit works."""
    return keys.active(visit.workflow, visit.request_id), codec.encode(Active(visit.epoch))
