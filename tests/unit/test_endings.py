"""Visits of requests that are over are given up, others are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mr import codec
from mr.adapters.stores.sqlite import SqliteStore
from mr.errors import StoreUnavailable
from mr.model.request import Active
from mr.ports.store import Change, Entry, Put, Transaction
from mr.rules import keys
from mr.services.unit import Verdict
from mr.worker.case import Case
from mr.worker.endings import AGE_S, Endings


def case(r: str, epoch: int = 1, since: float = 0.0) -> Case:
    visit = SimpleNamespace(workflow="w", request_id=r, epoch=epoch, verdict=None)
    return cast(Case, SimpleNamespace(visit=visit, since=since))


class Bench:
    """Endings over a real store; reads are made at once, or fail."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.cases: list[Case] = []
        self.ended: list[str] = []
        self.fails = False
        self.endings = Endings(
            store, lambda: self.cases, lambda one: self.ended.append(one.visit.request_id),
            read=self._read, post=lambda call: call(),
        )  # fmt: skip

    def _read(self, call: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[Any], None]) -> None:
        if self.fails:
            failed(StoreUnavailable("away"))
        else:
            then(call())

    def stands(self, r: str, epoch: int = 1) -> None:
        self.store.commit(Transaction(operations=[Put(keys.active("w", r), codec.encode(Active(epoch)))]))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = SqliteStore(tmp_path / "mr.db")
    yield Bench(store)
    store.close()


def test_a_visit_whose_fence_is_gone_is_given_up_once_it_is_not_young(bench: Bench) -> None:
    bench.cases = [case("over"), case("runs"), case("young", since=AGE_S)]
    bench.stands("runs")
    bench.endings.look(now=AGE_S + 0.5)
    assert bench.ended == ["over"]
    assert bench.cases[0].visit.verdict is Verdict.ENDED
    assert bench.cases[1].visit.verdict is None
    bench.endings.look(now=AGE_S + 0.5)
    assert bench.ended == ["over"]


def test_a_visit_of_a_former_life_is_given_up(bench: Bench) -> None:
    bench.cases = [case("again", epoch=1), case("new", epoch=2)]
    bench.stands("again", epoch=2)
    bench.stands("new", epoch=2)
    bench.endings.look(now=60.0)
    assert bench.ended == ["again"]


def test_a_store_that_is_away_ends_nothing_and_is_asked_again(bench: Bench) -> None:
    bench.cases = [case("over")]
    bench.fails = True
    bench.endings.look(now=60.0)
    assert bench.ended == []
    bench.fails = False
    bench.endings.look(now=60.0)
    assert bench.ended == ["over"]


def test_a_marker_ends_its_visits_at_once(bench: Bench) -> None:
    bench.cases = [case("failed"), case("runs")]
    key = keys.stopped("w", "failed")
    bench.endings.on_stopped([Change(key, Entry(key, b"{}", 1, 1), 1), Change(keys.stopped("w", "runs"), None, 2)])
    assert bench.ended == ["failed"]
