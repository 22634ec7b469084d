"""Notices: telling people without making anybody wait.

Whoever tells puts it into a queue and goes on; each way of telling has a queue and a thread of its own, so that a mail
server that hangs does not silence the rest. Queues are bounded: what finds one full is dropped and counted. Nothing
in here can fail a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from queue import Full, Queue

from mr.errors import MrError
from mr.model.handler import HandlerType
from mr.model.invocation import ErrorReport
from mr.ports.notifier import LEVELS, Notice, Notifier

_log = logging.getLogger(__name__)

QUEUE_MAX = 1000
COMPLAIN_S = 30.0
"""How often it is said that notices were lost."""

_NOUNS: Mapping[HandlerType | str, str] = {"mapper": "Mapper", "combiner": "Combiner", "reducer": "Reducer"}


class Way:
    """One notifier, with its queue and its thread, which starts with the first notice of `level` or above."""

    def __init__(self, notifier: Notifier, level: str) -> None:
        self.name = notifier.name
        self.dropped = 0
        self._notifier, self._least = notifier, LEVELS[level]
        self._queue: Queue[Notice | None] = Queue(QUEUE_MAX)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._complained_at = -COMPLAIN_S

    def tell(self, notice: Notice) -> None:
        """Have it told soon. Never waits, never raises."""
        if LEVELS[notice.level] < self._least:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"notices-{self.name}", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(notice)
        except Full:
            self._lost("more come than can be sent")

    def close(self, patience_s: float) -> None:
        """Tell what waits, if that is quick."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=patience_s)
        except Full:
            return
        thread.join(patience_s)

    def _run(self) -> None:
        while (notice := self._queue.get()) is not None:
            try:
                self._notifier.notify(notice)
            except MrError as error:
                self._lost(str(error))
            except Exception as error:  # the thread has to outlive whatever stands in a notice
                self._lost(f"{type(error).__name__}: {error}")

    def _lost(self, why: str) -> None:
        with self._lock:
            self.dropped += 1
            now = time.monotonic()
            if now - self._complained_at < COMPLAIN_S:
                return
            self._complained_at = now
        _log.warning("notifications by %s are lost, %d so far: %s", self.name, self.dropped, why)


class Notices:
    """All ways of a deployment; without any, nobody is told. Safe to call from several threads."""

    def __init__(self, ways: Sequence[Way] = ()) -> None:
        self._ways = ways

    def tell(self, notice: Notice, by: str = "notify") -> None:
        """Have it told by one way, or by all of them (`notify`)."""
        for way in self._ways:
            if by in ("notify", way.name):
                way.tell(notice)

    def failed(self, w: str, r: str, report: ErrorReport) -> None:
        """Have it told that a request has failed."""
        self.tell(of_failure(w, r, report, time.time()))

    def close(self, patience_s: float = 2.0) -> None:
        """Tell what waits, if that is quick. Twice is harmless."""
        for way in self._ways:
            way.close(patience_s)


def of_failure(w: str, r: str, report: ErrorReport, at: float) -> Notice:
    """The notice that a request has failed, in JobX's words."""
    noun = _NOUNS.get(report.handler_type)
    text = f"Request [{r}] failed."
    if noun is not None:
        text = f"{noun} invocation [{report.invocation}] under request [{r}] failed. HANDLER=[{report.handler}]"
    return Notice(
        level="error",
        text=text,
        at=at,
        workflow=w,
        request=r,
        invocation=report.invocation,
        handler=report.handler,
        message=f"{report.type}: {report.message}",
        traceback=report.traceback,
    )
