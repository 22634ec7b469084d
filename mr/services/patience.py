"""Patience: an end to the wait for a writer that hangs.

No thread can be stopped from outside. So each write has a thread of its own, and whoever waits for it leaves when its
time is over: that is an attempt that failed. What hangs is left behind; it gets no more of the result, and where it
comes to an end after all nobody hears of it, for a repeat leaves what one write leaves. There is a limit to how many
are left behind: a writer that goes on hanging must not use up the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from mr.codec import Items
from mr.ports.result_writer import Origin, ResultWriter

HUNG_MAX = 16
"""Writes left behind that may still hang, of one writer in one worker."""


class PatientWriter(ResultWriter):
    """Another writer, with an end to each write. Safe to call from several threads, as any writer."""

    def __init__(self, writer: ResultWriter, timeout_s: float) -> None:
        self.name = writer.name
        self._writer, self._timeout_s = writer, timeout_s
        self._left: list[_Write] = []
        self._lock = threading.Lock()

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
        """What the other writer does. Raises: TimeoutError if that takes too long; what it raises itself."""
        with self._lock:
            self._left = [write for write in self._left if write.thread.is_alive()]
            if len(self._left) >= HUNG_MAX:
                raise TimeoutError(f"{len(self._left)} earlier writes of this worker still hang; start it anew")
        write = _Write(self._writer, origin, pairs)
        write.thread.start()
        write.thread.join(self._timeout_s)
        if not write.thread.is_alive():
            return write.outcome()
        write.is_left = True
        with self._lock:
            self._left.append(write)
        raise TimeoutError(f"it took longer than MR_RESULT_WRITER_TIMEOUT_S={self._timeout_s:g}")


class _Write:
    """One write in its thread."""

    def __init__(self, writer: ResultWriter, origin: Origin, pairs: Iterator[Items]) -> None:
        self._writer, self._origin, self._pairs = writer, origin, pairs
        self._told: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self.is_left = False
        self.thread = threading.Thread(target=self._run, name=f"write-{origin.request_id[:12]}", daemon=True)

    def outcome(self) -> dict[str, Any] | None:
        """Of a thread that has ended."""
        if self._error is not None:
            raise self._error
        return self._told

    def _run(self) -> None:
        try:
            self._told = self._writer.write(self._origin, self._given())
        except BaseException as error:  # it is raised where somebody waits
            self._error = error

    def _given(self) -> Iterator[Items]:
        for items in self._pairs:
            if self.is_left:
                raise TimeoutError("nobody waits for this write any more")
            yield items
