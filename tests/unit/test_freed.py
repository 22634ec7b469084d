"""What a visit held is free once the visit is over: nobody waits for the garbage collector, which comes rarely."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker

HEADER = '# /// mr\n# handler_type = "{kind}"\n# required_capability = "none"\n# ///\n"""A handler."""\n'


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A workflow `w` with job `j`, whose step maps to itself."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "split.py").write_text(HEADER.format(kind="mapper") + "def handle(arguments, ctx):\n    yield 1, 2\n")
    (folder / "total.py").write_text(HEADER.format(kind="reducer") + "def handle(results, ctx):\n    yield 1, 2\n")
    built = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"}))
    built.registry.create_workflow("w", "")
    built.sync.apply(built.sync.plan("w", folder))
    built.registry.create_step("w", "split", "", "split", "", "total")
    built.registry.create_job("w", "j", "", "split")
    yield built
    built.close()


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def returns(path: str, pairs: list[Any]) -> Any:
    return pairs


def maps(path: str, pairs: list[Any]) -> Any:
    return ("split", [[["a", 1]], [["b", 2]], [["c", 3]]]) if path == "0" else pairs


def fails(path: str, pairs: list[Any]) -> Any:
    raise ValueError("boom")


@pytest.mark.parametrize("decide", [returns, maps, fails])
@pytest.mark.usefixtures("_no_collector")
def test_a_visit_that_is_over_is_freed_without_the_collector(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, decide: Any
) -> None:
    worker = SmallWorker(parts, decide)
    seen: list[weakref.ref[Any]] = []
    opened = worker.visit

    def visit(w: str, r: str) -> Any:
        found = opened(w, r)
        assert found is not None
        seen.append(weakref.ref(found))
        return found

    monkeypatch.setattr(worker, "visit", visit)
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    worker.work("w", r)
    assert parts.results.request("w", r).state.is_final
    assert [ref() for ref in seen] == [None]
