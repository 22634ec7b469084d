"""What several files of unit tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.adapters.stores.sqlite import SqliteStore
from mr.ports.store import Store
from tests.contract.test_stores_simulated import OneByOne


@pytest.fixture(params=["with transactions", "without transactions"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of either sort."""
    has = request.param == "with transactions"
    made: Store = SqliteStore(tmp_path / "mr.db") if has else OneByOne(transactions=False)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where blobs lie."""
    made = tmp_path / "blobs"
    made.mkdir()
    return made
