"""A run: one piece of work on one executor, from its frames to the outcomes for the visit.

Small data is passed on as it came. A list that leaves the executor in pieces is staged beside the records while it
streams; meanwhile the executor is not read, so that no process ever holds a big result, and frames that were read
already wait in line.

An executor may go on with what a child has mapped to, and with the reduce of that, before it comes to the next child
(`frames.Below`). `work` is what its frames are about at that moment; meanwhile `above` has the run's own work.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from mr.codec import EMPTY, Items
from mr.model.dataset import Chunks
from mr.model.invocation import ErrorReport
from mr.model.outcome import Data, Failed, Mapped, Outcome, Reduced, Results, Returned
from mr.ports.notifier import Notice
from mr.services.notices import Notices
from mr.services.progress import Visit
from mr.services.work import MapWork, ReduceWork, Work
from mr.worker import frames
from mr.worker.executor_process import Current, ExecutorProcess
from mr.worker.exit import Exit
from mr.worker.scope import invocation_id
from mr.worker.wear import Left

Stage = Callable[[Visit, str, int, Items, Callable[[], None]], None]
"""Write chunk `number` of a kind; the last argument is called in the loop when it is durable."""


class Run:
    """Receives what an executor reports (`executor_process.Sink`). Data over `inline_max` bytes is staged.

    `on_outcome` is told after each outcome, `on_mapped` of each step that one maps to, `on_finished` at the end of the
    run. `reported` is the first child of a map that nothing has been heard of; `above` has that of the run's own work.
    `children_below` are those that the executor went on with, `us_below` what they took.
    """

    def __init__(
        self,
        visit: Visit,
        work: Work,
        executor: ExecutorProcess,
        *,
        stage: Stage,
        on_outcome: Callable[[], None],
        on_mapped: Callable[[Work, str], None],
        on_finished: Callable[[Run], None],
        now: Callable[[], float],
        notices: Notices,
        on_call: Callable[[Run, frames.Call, bytes], None],
        inline_max: int,
    ) -> None:
        self.visit, self.executor = visit, executor
        self.work: Work = work
        self.above: tuple[MapWork, int] | None = None
        self.reported = work.first if isinstance(work, MapWork) else 0
        self.next: int | None = None
        self.left: Left = ""
        self.children = self.children_below = self.us_below = 0
        self.step_below = ""
        self.started = now()
        self._stage, self._on_outcome, self._on_mapped, self._on_finished = stage, on_outcome, on_mapped, on_finished
        self._notices, self._on_call, self._inline_max = notices, on_call, inline_max
        self._counts: list[int] = []
        self._size_bytes = 0
        self._is_staging = False
        self._line: deque[Callable[[], None]] = deque()
        self._is_void = False

    @property
    def is_told(self) -> bool:
        """Whether all of a map's children are reported: what its executor still does is to clear up after them."""
        return self.above is None and isinstance(self.work, MapWork) and self.reported >= self.work.to

    @property
    def version(self) -> str | None:
        """The version of the mapper whose child runs; None for a reduce."""
        return self.visit.definitions.mapper(self.work.step).version if isinstance(self.work, MapWork) else None

    def paces(self, now: float) -> Iterator[tuple[str, float]]:
        """The steps that ran, and the seconds that a child of each took."""
        own = self.above[0] if self.above is not None else self.work
        if isinstance(own, MapWork) and self.children > self.children_below:
            yield own.step, (now - self.started) / (self.children - self.children_below)
        if self.children_below:
            yield self.step_below, self.us_below / 1_000_000 / self.children_below

    def behind(self, current: Current) -> int:
        """How many children wait for the one that runs."""
        count = self.work.to - max(current.child + 1, self.reported) if isinstance(self.work, MapWork) else 0
        if self.above is not None:
            work, reported = self.above
            count += work.to - reported
        return count

    def take_back(self, current: Current, *, keep: bool) -> None:
        """What waits for the child that runs goes to others, or with `keep` into the backlog."""
        if isinstance(self.work, MapWork):
            self.visit.take_back(self.work, max(current.child + 1, self.reported), keep=keep)
        if self.above is not None:
            work, reported = self.above
            self.visit.take_back(work, reported, keep=keep)

    def leave_above(self, *, keep: bool) -> None:
        """The executor ends below: the rest of the run's own work goes to others, or with `keep` into the backlog."""
        if self.above is not None:
            work, reported = self.above
            self.visit.finished(work, reported, keep=keep)

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
            if self._is_void:
                return
            self.reported = frame.first + len(items)
            self.children += len(items)
            if self.above is not None:
                self.children_below += len(items)
                self.us_below += sum(us)
            self._record(Results(first=frame.first, items=items, us=us, outputs=frame.outputs))

        self._in_line(take)

    def chunk(self, frame: frames.Chunk, items: Items) -> None:
        """A piece of a list."""
        self._in_line(lambda: self._put(self._kind(frame.child, frame.kind), items))

    def mapped(self, frame: frames.Mapped, items: Items) -> None:
        """A child has mapped."""
        if frame.goes_on:
            self._in_line(lambda: self._descend(frame, items))
            return

        def outcome(args: Data) -> Outcome:
            self._on_mapped(self.work, frame.step)
            return _mapped(frame, args)

        self._last(frame.child, "arguments", items, outcome)

    def turned(self, frame: frames.Turn) -> None:
        """The executor is through with the children that it went on with."""

        def take() -> None:
            below = self.work
            if self._is_void or self.above is None or not isinstance(below, MapWork):
                return
            if frame.to == "back":
                self.visit.finished(below)
                self._back()
            elif reduce := self.visit.ascend(below):
                self.work = reduce
            else:
                self._is_void = True
            self._on_outcome()

        self._in_line(take)

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

    def called(self, frame: frames.Call, body: bytes) -> None:
        """A handler wants something of a collection; it is answered whatever else waits here."""
        self._on_call(self, frame, body)

    def finished(self, frame: frames.Finished) -> None:
        """The run is over."""

        def take() -> None:
            # What was told while it was void is not known, and runs again.
            self.next, self.left = min(frame.next, self.reported) if self._is_void else frame.next, frame.left
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
        def take() -> None:
            name = self._kind(child, kind)
            if not self._counts and items.size_bytes <= self._inline_max:
                self._closed(child, outcome(items))
                return
            # The closing takes its place before whatever came after it, once the last piece is written.
            self._line.appendleft(partial(close, name))
            if len(items):
                self._put(name, items)
            if not self._is_staging:
                self._staged()

        def close(name: str) -> None:
            chunks = Chunks(execution=self.visit.execution, kind=name, counts=self._counts, size_bytes=self._size_bytes)
            self._counts, self._size_bytes = [], 0
            self._closed(child, outcome(chunks))

        self._in_line(take)

    def _closed(self, child: int, outcome: Outcome) -> None:
        if self._is_void:
            return
        self.children += 1
        if isinstance(self.work, ReduceWork) and self.above is not None:
            reduce = self.work
            self._record(outcome)
            self.visit.finished(reduce)
            self._back()
            return
        self.reported = child + 1
        self._record(outcome)

    def _descend(self, frame: frames.Mapped, items: Items) -> None:
        work = self.work
        if self._is_void or not isinstance(work, MapWork):
            return
        self.reported = frame.child + 1
        self.children += 1
        below = self.visit.descend(work, _mapped(frame, items))
        if below is None:
            self._is_void = True  # it was taken back, or the request is over, and so is all that may come
        else:
            self.above = work, self.reported
            self.work, self.reported, self.step_below = below, 0, below.step
        self._on_outcome()

    def _back(self) -> None:
        assert self.above is not None
        (self.work, self.reported), self.above = self.above, None

    def _record(self, outcome: Outcome) -> None:
        if not self._is_void:
            self.visit.record(self.work, outcome)
            self._on_outcome()

    def _kind(self, child: int, kind: str) -> str:
        # An execution may run a child again after a failed attempt: the number of the work keeps their chunks apart.
        return f"{self.work.p}.{child}.{kind}.{self.work.number}"


def _mapped(frame: frames.Mapped, args: Data) -> Mapped:
    session = _session(frame.session)
    return Mapped(child=frame.child, step=frame.step, args=args, session=session, output=frame.output, us=frame.us)


def _returned(frame: frames.Returned | frames.Failed, rows: Data) -> Returned:
    return Returned(child=frame.child, rows=rows, session=_session(frame.session), output=frame.output, us=frame.us)


def _session(values: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in values.items()}
