"""A branch: a mapper and its children, as far as one visit has to do with them, in memory."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping

import msgspec

from mr.codec import Items
from mr.model.invocation import Manifest
from mr.model.message import Level
from mr.model.outcome import Data
from mr.rules import fan_out, limits
from mr.services.work import ReduceWork


class Run(msgspec.Struct, frozen=True):
    """Results of consecutive children."""

    first: int
    items: Items
    us: array[int]
    outputs: dict[int, str]

    def cut(self, start: int, stop: int) -> Run:
        if start <= self.first and self.first + len(self.items) <= stop:
            return self
        a, b = max(start, self.first) - self.first, min(stop, self.first + len(self.items)) - self.first
        outputs = {child: text for child, text in self.outputs.items() if start <= child < stop}
        return Run(self.first + a, self.items.cut(a, b), self.us[a:b], outputs)


class Slice:
    """Consecutive children of one mapper, as far as this visit has to do with them."""

    __slots__ = ("have", "number", "runs", "singly", "start", "stop")

    def __init__(self, number: int, start: int, stop: int) -> None:
        self.number, self.start, self.stop = number, start, stop
        self.runs: list[Run] = []
        self.have = 0
        # Somebody else has, or will have, the result of one of these children: every result is a part.
        self.singly = False

    @property
    def is_full(self) -> bool:
        return not self.singly and self.have == self.stop - self.start


class Branch:
    """A mapper `p` and its children."""

    def __init__(self, p: str, count: int, step: str, execution: str, *, made_here: bool) -> None:
        self.p, self.count, self.step, self.execution = p, count, step, execution
        # Until the manifest is committed the slice size is open: what is complete by then is one slice.
        self.size: int | None = None
        self.made_here = made_here
        self.manifest: Manifest | None = None
        self.args: Data | None = None
        self.session: dict[str, bytes] = {}
        self.sessions = 0
        self.slices: dict[int, Slice] = {}
        self.loose: list[Run] = []
        self.retained: list[Run] | None = [] if made_here else None
        self.retained_bytes = 0
        self.have = 0
        # Others will have the result of some of the children.
        self.is_shared = False
        # All children were here, and the reduce goes on from that: counting is nobody's business any more.
        self.is_reducing = False
        self.backlog: deque[tuple[int, int, Items | None]] = deque()
        # The executor that ran the mapper runs its children too, and has the first right to their reduce.
        self.is_entered = False
        self.reduce: ReduceWork | None = None

    def level(self) -> Level:
        return Level(self.count, self.size or 1, self.step, self.sessions, self.execution)

    @property
    def is_complete(self) -> bool:
        """Whether this visit has the results of all children in memory."""
        return self.retained is not None and not self.is_shared and self.have == self.count

    def slice_of(self, child: int) -> Slice:
        assert self.size is not None
        number = child // self.size
        if number not in self.slices:
            self.slices[number] = Slice(number, *fan_out.bounds(number, self.size, self.count))
        return self.slices[number]

    def put(self, run: Run) -> None:
        """Take results in."""
        self.have += len(run.items)
        if self.retained is not None:
            self.retained.append(run)
            self.retained_bytes += run.items.size_bytes
            if self.retained_bytes > limits.RETAINED_MAX and self.size is not None:
                self.retained = None
        if self.size is None:
            self.loose.append(run)
        else:
            self._spread(run)

    def fix(self, size: int) -> None:
        """Settle the slice size, which the manifest then states."""
        self.size = size
        for run in self.loose:
            self._spread(run)
        self.loose = []

    def left(self) -> ReduceWork | None:
        """No executor is in here any more; the reduce that was kept for it."""
        self.is_entered = False
        reduce, self.reduce = self.reduce, None
        return reduce

    def _spread(self, run: Run) -> None:
        at, end = run.first, run.first + len(run.items)
        while at < end:
            part = self.slice_of(at)
            piece = run.cut(at, part.stop)
            part.runs.append(piece)
            part.have += len(piece.items)
            at = part.stop

    def datasets(self) -> list[Items]:
        """All results in the order of the children."""
        assert self.retained is not None
        return [run.items for run in sorted(self.retained, key=lambda run: run.first)]


def level_of(branches: Mapping[str, Branch], above: Mapping[str, Level], p: str) -> Level:
    """What is settled of the manifest of `p`, which is a branch here, or above all branches. Raises: KeyError."""
    branch = branches.get(p)
    return branch.level() if branch is not None else above[p]
