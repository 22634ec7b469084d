"""New and changed handlers reach workers that run: JX-30, JX-32."""

from __future__ import annotations

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import ALL, mapper


def returns(what: int) -> str:
    return mapper(f"yield MrConfigureToReturn()\nyield 'version', {what}")


def test_JX_30_JX_32_a_changed_handler_runs_with_the_next_request(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns(0), ALL)})
    pid = pair.general.pid
    for version in range(1, 6):
        (pair.folder / w / "start_map.py").write_text(returns(version))
        pair.parts.sync.apply(pair.parts.sync.plan(w, pair.folder / w))
        assert pair.post(w).pairs == [["version", [version]]]
    assert pair.general.pid == pid
    pair.general.check()


def test_JX_32_a_handler_that_no_worker_has_seen_runs_at_once(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns(0), ALL)})
    assert pair.post(w).status == 200
    (pair.folder / w / "other.py").write_text(returns(7))
    pair.parts.sync.apply(pair.parts.sync.plan(w, pair.folder / w))
    pair.parts.registry.create_step(w, "other", "", "other", None, "start_reduce")
    pair.parts.registry.create_job(w, "second", "", "other")
    assert pair.post(w, job="second").pairs == [["version", [7]]]
