"""What an executor may go on with by itself: what is known to be quick, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mr.model.definitions import DefinitionSet, HandlerRef, StepRef
from mr.services.work import MapWork, ReduceWork
from mr.worker.descents import MOST, WITHIN_S, Descents

STEPS = {name: StepRef(mapper=name, combiner=None, reducer="sum") for name in ("top", "leaf")}
HANDLERS = {name: HandlerRef(version=f"v-{name}", handler_type="mapper", capability="general") for name in STEPS}
SUM = HandlerRef(version="v-sum", handler_type="reducer", capability="general")
SET = DefinitionSet(handlers={**HANDLERS, "sum": SUM}, steps=STEPS, jobs={})
MAP = MapWork(number=1, p="-", step="top", first=0, to=1, items=None)


def visit(batch_size: int | None = None) -> Any:
    return SimpleNamespace(definitions=SET, definitions_hash="d", worker=SimpleNamespace(batch_size=batch_size))


def descents(seconds: float | None = 0.0001, *, is_suspect: bool = False) -> Descents:
    """With a feeding that has everything at hand, and says what it was asked for."""
    feeding: Any = SimpleNamespace(below=lambda visit, work, step, most: (step, most))
    known = Descents(feeding, {"v-leaf": seconds}.get, lambda version: is_suspect)
    known.learn(visit(), MAP, "leaf")
    return known


@pytest.mark.parametrize(("seconds", "most"), [(0.0, MOST), (0.000_001, MOST), (WITHIN_S / 5, 5), (WITHIN_S, 1)])
def test_so_many_quick_children_as_are_over_soon(seconds: float, most: int) -> None:
    asked: Any = descents(seconds).of(visit(), MAP)
    assert asked == ("leaf", most)


def test_not_what_is_slow_unknown_or_suspect_and_nothing_where_sizes_are_forced() -> None:
    assert descents(WITHIN_S * 1.01).of(visit(), MAP) is None
    assert descents(None).of(visit(), MAP) is None
    assert descents(is_suspect=True).of(visit(), MAP) is None
    assert descents().of(visit(batch_size=1), MAP) is None


def test_not_where_no_step_was_seen_to_follow_and_not_below_a_reduce() -> None:
    leaf = MapWork(number=1, p="0", step="leaf", first=0, to=1, items=None)
    reduce = ReduceWork(number=1, p="0", step="top", level=None)  # type: ignore[arg-type]
    assert descents().of(visit(), leaf) is None
    assert descents().of(visit(), reduce) is None
