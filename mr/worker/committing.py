"""The committing thread: units in, receipts out, so that the supervisor's loop never waits for a store.

Whatever units are ready when the last commit returns go into the next one: no timer, and under load the groups grow
by themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from mr.errors import MrError
from mr.services.committer import Committer
from mr.services.unit import Receipted, Unit, Verdict

_log = logging.getLogger(__name__)

Then = Callable[[Receipted], None]
GROUP_MAX = 64


class Stopped(BaseException):
    """Thrown out of a committer that keeps trying when its process has to end."""


class CommitThread:
    """Commits what it is given, in groups, and reports by way of `post` (which must be safe from any thread).

    `on_death` is told if the thread dies of something that nobody expects.
    """

    def __init__(
        self,
        committer: Committer,
        post: Callable[[Callable[[], None]], Any],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._committer, self._post, self._on_death = committer, post, on_death
        self._queue: SimpleQueue[tuple[Unit, Then] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def commit(self, unit: Unit, then: Then) -> None:
        """Commit the unit soon; `then` gets its receipt."""
        self._queue.put((unit, then))

    def stop(self, timeout_s: float) -> None:
        """Commit what was given so far, then end."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # without this thread the worker is dead; it has to say so, and end
            self._on_death(error)

    def _serve(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group = [first]
            while len(group) < GROUP_MAX and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                group.append(more)
            try:
                receipts = self._commit([unit for unit, _ in group])
            except Stopped:
                return
            self._post(lambda group=group, receipts=receipts: _tell(group, receipts))  # type: ignore[misc]

    def _commit(self, units: list[Unit]) -> list[Receipted]:
        try:
            return self._committer.commit(units)
        except MrError as error:
            if len(units) == 1:
                # Nothing that a repeat would mend: the sweeper, or a person, has to look at it.
                _log.exception("a unit of request %s cannot be committed: %s", units[0].request_id, error)
                return [Receipted(verdict=Verdict.ENDED)]
        return [self._commit([unit])[0] for unit in units]


def _tell(group: list[tuple[Unit, Then]], receipts: list[Receipted]) -> None:
    for (_, then), receipt in zip(group, receipts, strict=True):
        then(receipt)
