"""The cleaner: what was begun is ended by whoever comes next, wherever the first one died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.clock import SystemClock
from mr.errors import StoreUnavailable
from mr.ports.store import Store
from mr.services.cleaner import Cleaner
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.front_ends import define
from tests.unit.small_worker import SmallWorker

CHANGES = ("commit", "delete_prefix")


class Dying:
    """A store that is gone after so many changes."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store, self.left = store, changes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._counted(found) if name in CHANGES else found

    def _counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **options: Any) -> Any:
            if self.left == 0:
                raise StoreUnavailable("dead")
            self.left -= 1
            return change(*args, **options)

        return made


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    environ = {"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "0"}
    built = Parts(Settings.from_env(environ))
    define(built)
    yield built
    built.close()


def finished(parts: Parts) -> str:
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    SmallWorker(parts, lambda path, pairs: ("s", [[["k", n]] for n in range(3)]) if path == "0" else pairs).work("w", r)
    return r


def remains(parts: Parts, r: str) -> list[str]:
    return [entry.key for entry in parts.store.range("", limit=1000).entries if r in entry.key]


def test_JX_91_a_clean_up_that_is_cut_off_anywhere_is_ended_by_the_next(parts: Parts) -> None:
    whole = 0
    for changes in range(100):
        r = finished(parts)
        assert remains(parts, r)
        dying: Any = Dying(parts.store, changes)
        try:
            Cleaner(dying, SystemClock()).clean()
            whole = changes
        except StoreUnavailable:
            pass
        Cleaner(parts.store, SystemClock()).clean()
        assert remains(parts, r) == [], f"cut off after {changes} changes"
        if whole:
            break
    assert 5 < whole < 99


def test_JX_91_nothing_has_to_be_remembered_by_a_process_for_a_request_to_go(parts: Parts, tmp_path: Path) -> None:
    requests = [finished(parts) for _ in range(3)]
    another = Parts(parts.settings)
    try:
        assert another.cleaner.clean() == 3
    finally:
        another.close()
    assert [key for r in requests for key in remains(parts, r)] == []
