"""Deliveries: which answers have reached their clients, told to the cleaner in bulk.

A result that was delivered need not be kept for a day. That is written down late, in one transaction for many, and
by a thread of its own: no client waits for it, and when it is lost the request only stays longer.
"""

from __future__ import annotations

import logging
import threading

from mr.clock import Clock
from mr.errors import MrError
from mr.services.cleaner import Cleaner
from mr.services.retention import Retention

_log = logging.getLogger(__name__)

EVERY_S = 0.5
KEPT_MAX = 10_000
"""Notes that are kept for a store that does not answer."""


class Deliveries:
    """Notes of one front end. `delivered` and `forget` never block and may be called from any thread."""

    def __init__(
        self, cleaner: Cleaner, retention: Retention, clock: Clock, front_end: str, *, every_s: float = EVERY_S
    ) -> None:
        self._cleaner, self._retention, self._clock, self._front_end = cleaner, retention, clock, front_end
        self._every_s = every_s
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], bool] = {}
        self._thread: threading.Thread | None = None
        self._something = threading.Event()
        self._closed = threading.Event()

    def delivered(self, w: str, r: str) -> None:
        """The client has had the result of a request that succeeded: it may go soon."""
        self._note(w, r, True)

    def forget(self, w: str, r: str) -> None:
        """The reply is of no use any more, and the request stays as long as its end said."""
        self._note(w, r, False)

    def flush(self) -> None:
        """Write down what is noted.

        Raises: nothing; what could not be written is noted again.
        """
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        due_at = self._retention.answered_at(self._clock.now())
        try:
            for delivered, when in ((True, due_at), (False, None)):
                answers = [(self._front_end, w, r) for (w, r), had in noted.items() if had is delivered]
                if answers:
                    self._cleaner.answered(answers, when)
        except MrError as error:
            _log.warning("%d delivered answers are not written down yet: %s", len(noted), error)
            with self._lock:
                if len(self._noted) + len(noted) <= KEPT_MAX:
                    self._noted = {**noted, **self._noted}
                self._something.set()

    def close(self) -> None:
        """Write down the rest and end. Twice is harmless."""
        self._closed.set()
        self._something.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _note(self, w: str, r: str, delivered: bool) -> None:
        with self._lock:
            self._noted[w, r] = delivered or self._noted.get((w, r), False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)
                self._thread.start()
        if not self._something.is_set():  # setting it takes a lock, and this is done for each answer
            self._something.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._something.wait()
            self._something.clear()
            self._closed.wait(self._every_s)
            self.flush()
