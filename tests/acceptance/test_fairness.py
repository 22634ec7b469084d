"""A slow invocation holds up nobody: what waits behind it on the same executor goes elsewhere."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import SUM, map_to, mapper


def test_children_behind_a_slow_one_do_not_wait_for_its_end(pair: Shared, w: str, tmp_path: Path) -> None:
    """The first child ends only when the last has run; both go to one executor in the same piece of work."""
    mark = str(tmp_path / "last")
    leaf = mapper(f"""
        import os, time
        yield MrConfigureToReturn()
        for k, n in arguments:
            if n == 7:
                open({mark!r}, 'w').close()
            while n == 0 and not os.path.exists({mark!r}):
                time.sleep(0.01)
            yield 'sum', n
    """)
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(8)]"), SUM), "leaf": (leaf, SUM)})
    assert pair.post(w).pairs == [["sum", sum(range(8))]]
