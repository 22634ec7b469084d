"""The promises of the broker port, kept by SQLite in a temporary file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mr.adapters.brokers.sqlite import CONSUMER_LEASE_S, SqliteConsumer, SqlitePublisher
from mr.adapters.sqlite_file import SqliteFile
from mr.ports.broker import Consumer, Publisher
from tests.contract.broker_contract import Abandon, BrokerContract


class TestSqlite(BrokerContract):
    redelivery_s = CONSUMER_LEASE_S

    @pytest.fixture
    def publisher(self, tmp_path: Path) -> Iterator[Publisher]:
        publisher = SqlitePublisher(tmp_path / "mr.db")
        yield publisher
        publisher.close()

    @pytest.fixture
    def files(self) -> dict[Consumer, SqliteFile]:
        """Each consumer has the file open for itself, as processes do."""
        return {}

    @pytest.fixture
    def make_consumer(self, tmp_path: Path, files: dict[Consumer, SqliteFile]) -> Iterator[Callable[[], Consumer]]:
        def make() -> Consumer:
            file = SqliteFile(tmp_path / "mr.db")
            consumer = SqliteConsumer(file)
            files[consumer] = file
            return consumer

        yield make
        for file in files.values():
            file.close()

    @pytest.fixture
    def abandon(self, files: dict[Consumer, SqliteFile]) -> Abandon:
        async def abandon(consumer: Consumer) -> None:
            files[consumer].close()

        return abandon
