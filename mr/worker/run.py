"""A run: one piece of work on one executor, from its frames to the outcomes for the visit.

Small data is passed on as it came. A list that leaves the executor in pieces is staged beside the records while it
streams; meanwhile the executor is not read, so that no process ever holds a big result, and frames that were read
already wait in line.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable

import msgspec

from mr.codec import EMPTY, Items
from mr.model.dataset import Chunks
from mr.model.invocation import ErrorReport
from mr.model.outcome import Data, Failed, Mapped, Outcome, Reduced, Results, Returned
from mr.ports.notifier import Notice
from mr.rules import limits
from mr.services.notices import Notices
from mr.services.progress import Visit
from mr.services.work import MapWork, Work
from mr.worker import frames
from mr.worker.executor_process import ExecutorProcess, Exit
from mr.worker.scope import invocation_id
from mr.worker.wear import Left

Stage = Callable[[Visit, str, int, Items, Callable[[], None]], None]
"""Write chunk `number` of a kind; the last argument is called in the loop when it is durable."""


class Run:
    """Receives what an executor reports (`executor_process.Sink`).

    `on_outcome` is told after each outcome, `on_finished` at the end of the run. `reported` is the first child of a
    map that nothing has been heard of.
    """

    def __init__(
        self,
        visit: Visit,
        work: Work,
        executor: ExecutorProcess,
        *,
        stage: Stage,
        on_outcome: Callable[[], None],
        on_finished: Callable[[Run], None],
        now: Callable[[], float],
        notices: Notices,
    ) -> None:
        self.visit, self.work, self.executor = visit, work, executor
        self.reported = work.first if isinstance(work, MapWork) else 0
        self.next: int | None = None
        self.left: Left = ""
        self.children = 0
        self.started = now()
        self._stage, self._on_outcome, self._on_finished = stage, on_outcome, on_finished
        self._notices = notices
        self._counts: list[int] = []
        self._size_bytes = 0
        self._is_staging = False
        self._line: deque[Callable[[], None]] = deque()
        self._is_void = False

    @property
    def is_told(self) -> bool:
        """Whether all of a map's children are reported: what its executor still does is to clear up after them."""
        return isinstance(self.work, MapWork) and self.reported >= self.work.to

    def handler(self, stage: frames.Stage) -> str:
        """The name of the handler that runs in a stage."""
        step = self.visit.definitions.steps[self.work.step]
        if stage == "combine" and step.combiner is not None:
            return step.combiner
        return step.mapper if stage == "map" and isinstance(self.work, MapWork) else step.reducer

    # -- frames ---------------------------------------------------------------------------------------------------

    def results(self, frame: frames.Results, items: Items, us: array[int]) -> None:
        """Consecutive children are reduced."""

        def take() -> None:
            self.reported = frame.first + len(items)
            self.children += len(items)
            self._record(Results(first=frame.first, items=items, us=us, outputs=frame.outputs))

        self._in_line(take)

    def chunk(self, frame: frames.Chunk, items: Items) -> None:
        """A piece of a list."""
        self._in_line(lambda: self._put(self._kind(frame.child, frame.kind), items))

    def mapped(self, frame: frames.Mapped, items: Items) -> None:
        """A child has mapped."""

        def outcome(args: Data) -> Outcome:
            return Mapped(
                child=frame.child, step=frame.step, args=args, session=_session(frame.session),
                output=frame.output, us=frame.us,
            )  # fmt: skip

        self._last(frame.child, "arguments", items, outcome)

    def returned(self, frame: frames.Returned, items: Items) -> None:
        """A child has returned data that is reduced elsewhere."""
        self._last(frame.child, "rows", items, lambda rows: _returned(frame, rows))

    def reduced(self, frame: frames.Reduced, items: Items) -> None:
        """A child is reduced."""
        self._last(
            frame.child, "pairs", items,
            lambda pairs: Reduced(child=frame.child, pairs=pairs, output=frame.output, us=frame.us),
        )  # fmt: skip

    def failed(self, frame: frames.Failed) -> None:
        """A child has failed."""
        report = ErrorReport(
            class_=frame.class_, type=frame.type, message=frame.message, handler=frame.handler,
            traceback=frame.traceback, output=frame.output,
        )  # fmt: skip
        if frame.returned:
            self._last(
                frame.child, "rows", EMPTY,
                lambda rows: Failed(child=frame.child, report=report, returned=_returned(frame, rows)),
            )  # fmt: skip
            return

        def take() -> None:
            self._counts, self._size_bytes = [], 0
            self._closed(frame.child, Failed(child=frame.child, report=report))

        self._in_line(take)

    def noticed(self, frame: frames.Notice) -> None:
        """A handler wants somebody to be told; it waits for nothing."""
        r, work = self.visit.request_id, self.work
        self._notices.tell(
            Notice(
                level=frame.level, text=frame.text, at=time.time(), workflow=self.visit.workflow, request=r,
                invocation=invocation_id(r, work.p, frame.child if isinstance(work, MapWork) else None),
                handler=frame.handler,
            ),
            frame.by,
        )  # fmt: skip

    def finished(self, frame: frames.Finished) -> None:
        """The run is over."""

        def take() -> None:
            self.next, self.left = frame.next, frame.left
            self._on_finished(self)

        self._in_line(take)

    def died(self, exit_: Exit, then: Callable[[], None]) -> None:
        """The executor is gone; `then` is called once everything that it had said is taken in."""
        self._in_line(then)

    def void(self) -> None:
        """The visit is over: nothing that comes is of use any more."""
        self._is_void = True

    # -- in line, while a chunk is written ------------------------------------------------------------------------

    def _in_line(self, take: Callable[[], None]) -> None:
        if self._is_staging:
            self._line.append(take)
        else:
            take()

    def _put(self, kind: str, items: Items) -> None:
        if self._is_void:
            return
        number = len(self._counts)
        self._counts.append(len(items))
        self._size_bytes += items.size_bytes
        self._is_staging = True
        self.executor.pause_reading()
        self._stage(self.visit, kind, number, items, self._staged)

    def _staged(self) -> None:
        self._is_staging = False
        while self._line and not self._is_staging:
            self._line.popleft()()
        if not self._is_staging:
            self.executor.resume_reading()

    def _last(self, child: int, kind: str, items: Items, outcome: Callable[[Data], Outcome]) -> None:
        name = self._kind(child, kind)

        def take() -> None:
            if not self._counts and items.size_bytes <= limits.INLINE_MAX:
                self._closed(child, outcome(items))
                return
            # The closing takes its place before whatever came after it, once the last piece is written.
            self._line.appendleft(close)
            if len(items):
                self._put(name, items)
            if not self._is_staging:
                self._staged()

        def close() -> None:
            chunks = Chunks(execution=self.visit.execution, kind=name, counts=self._counts, size_bytes=self._size_bytes)
            self._counts, self._size_bytes = [], 0
            self._closed(child, outcome(chunks))

        self._in_line(take)

    def _closed(self, child: int, outcome: Outcome) -> None:
        self.reported = child + 1
        self.children += 1
        self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        if not self._is_void:
            self.visit.record(self.work, outcome)
            self._on_outcome()

    def _kind(self, child: int, kind: str) -> str:
        # An execution may run a child again after a failed attempt: the number of the work keeps their chunks apart.
        return f"{self.work.p}.{child}.{kind}.{self.work.number}"


def _returned(frame: frames.Returned | frames.Failed, rows: Data) -> Returned:
    return Returned(child=frame.child, rows=rows, session=_session(frame.session), output=frame.output, us=frame.us)


def _session(values: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in values.items()}
