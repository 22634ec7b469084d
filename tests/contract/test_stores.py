"""The promises of the store port, kept by SQLite in a temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from mr.adapters.sqlite_file import SqliteFile
from mr.adapters.stores.sqlite import SqliteStore
from mr.ports.store import Store
from tests.contract.store_contract import StoreContract, TransactionContract, put

HISTORY = 200


class TestSqlite(StoreContract, TransactionContract):
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[SqliteFile]:
        file = SqliteFile(tmp_path / "mr.db", busy_s=0.3, history=HISTORY)
        yield file
        file.close()

    @pytest.fixture
    def store(self, file: SqliteFile) -> Iterator[Store]:
        store = _ClosesFile(file)
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store: Store, file: SqliteFile) -> Iterator[Callable[[], Store]]:
        opened: list[Store] = []

        def again() -> Store:
            file.close()
            opened.append(SqliteStore(file.path))
            return opened[-1]

        yield again
        for one in opened:
            one.close()

    @pytest.fixture
    def outage(self, store: Store, file: SqliteFile) -> Callable[[], AbstractContextManager[object]]:
        """Another process that holds the lock of the file for too long."""

        @contextmanager
        def locked() -> Iterator[None]:
            other = sqlite3.connect(file.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
            other.close()

        return locked

    @pytest.fixture
    def lose_history(self, store: Store) -> Callable[[], object]:
        def write_more_than_is_kept() -> None:
            for number in range(HISTORY + HISTORY // 10 + 1):
                put(store, f"other/{number}")

        return write_more_than_is_kept


class TestSqliteThroughARelay(TestSqlite):
    """The same where another process, here another file, commits what can be handed over."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[SqliteFile]:
        file = SqliteFile(tmp_path / "mr.db", busy_s=0.3, history=HISTORY)
        worker = SqliteStore(SqliteFile(file.path, busy_s=0.3, history=HISTORY))
        worker.take_commits()
        yield file
        file.close()
        worker.close()
        worker.file.close()

    @pytest.fixture
    def store(self, file: SqliteFile) -> Iterator[Store]:
        store = _ClosesFile(file)
        store.hand_over_commits()
        yield store
        store.close()


class _ClosesFile(SqliteStore):
    """A store whose `close` closes the file too, as one that was opened by path does."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self._owns = True
