"""Cases and slots: what a worker has in hand, and where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mr.errors import CorruptEntry
from mr.model import ids
from mr.model.message import Message
from mr.ports.broker import Delivery
from mr.services.progress import Visit
from mr.services.work import MapWork
from mr.worker.executor_process import ExecutorProcess
from mr.worker.frames import Stage
from mr.worker.run import Run
from mr.worker.stock import NOTHING, Stock

HELD_S = 1.0
HOLDS_MAX = 1000


class Case:
    """A delivery and its visit. `delivery` is None once the message was finished early.

    `is_careful`: an executor has ended in something that it had gone on with by itself, so all is ordered one by one.
    `is_ready`: it waits for a free executor. `is_due`: something came of it that was not looked at yet.
    """

    def __init__(self, delivery: Delivery, message: Message, visit: Visit, now: float) -> None:
        self.delivery: Delivery | None = delivery
        self.message, self.visit = message, visit
        self.since = now
        self.is_careful = self.is_ready = self.is_due = False
        self.slots: set[Slot] = set()


class Slot:
    """A place for one executor, and what runs on it.

    `verdict` says why this side ends the executor, if it does: `timeout`, `full` (its request keeps too much), `storm`
    (too many processes), `untold` (it went on by itself, and does not say so), `void` (its visit is over), `unfed` or
    `gone` (its input cannot be read now, or any more), `corrupt` (it is not what its record says: the error stands in
    `corrupt`), `drained`. `stage` is the child and stage seen last, `stage_since_s` how long the child had run by then.
    `version` is that of the mapper that runs here, None for a reduce. `taken` is what that takes of the worker's stock.
    """

    def __init__(self, number: int, stock: Stock) -> None:
        self.number = number
        self._stock = stock
        self.taken: Mapping[str, float] = NOTHING
        self.executor: ExecutorProcess | None = None
        self.case: Case | None = None
        self.run: Run | None = None
        self.version: str | None = None
        self.verdict = ""
        self.corrupt: CorruptEntry | None = None
        self.stage: tuple[int, Stage] | None = None
        self.stage_since_s = 0.0

    @property
    def is_free(self) -> bool:
        """Whether a piece of work can begin here."""
        return self.executor is not None and self.executor.alive and self.case is None

    def release(self) -> Case:
        """What ran here is over."""
        case = self.case
        assert case is not None
        case.slots.discard(self)
        self._stock.give_back(self.taken)
        self.taken = NOTHING
        self.run = self.case = self.stage = self.corrupt = None
        self.verdict = ""
        return case


def holds(cases: Iterable[Case], now: float) -> list[str]:
    """For the worker's record: `workflow/request/path` of what has been in hand for over a second."""
    held: set[str] = set()
    for case in cases:
        visit = case.visit
        if now - case.since > HELD_S and visit.verdict is None:
            held.update(f"{visit.workflow}/{visit.request_id}/{p}" for p in visit.holds[:HOLDS_MAX])
    return sorted(held)[:HOLDS_MAX]


def last_lines(slots: Iterable[Slot]) -> dict[str, str]:
    """For the worker's record: by `workflow/request/path`, what those printed last that have run for over a second."""
    lines: dict[str, str] = {}
    for slot in slots:
        executor, run = slot.executor, slot.run
        current = executor.current() if executor is not None and run is not None else None
        if executor is None or run is None or current is None or current.seconds <= HELD_S:
            continue
        is_told = current.is_below == (run.above is not None)  # else it is not known yet what the child belongs to
        if is_told and (line := executor.last_line()):
            work = run.work
            path = ids.child(work.p, current.child) if isinstance(work, MapWork) else f"{work.p}.r"
            lines[f"{run.visit.workflow}/{run.visit.request_id}/{path}"] = line
    return lines
