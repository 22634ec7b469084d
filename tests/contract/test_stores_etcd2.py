"""The promises of the store port, kept by the v2 API of a real etcd, one key at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from mr.ports.store import Store
from tests.contract.store_contract import StoreContract, put
from tests.servers import EtcdServer

pytest.importorskip("etcd")

from mr.adapters.stores.etcd2 import Etcd2Store

HISTORY = 1000


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer(["--enable-v2"]) as server:
        yield server


class TestEtcd2(StoreContract):
    @pytest.fixture
    def store(self, server: EtcdServer) -> Iterator[Etcd2Store]:
        """Empty, but not at its first revision: no promise depends on that."""
        store = Etcd2Store(server.endpoints)
        while store.delete_prefix(""):
            pass
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store: Etcd2Store, server: EtcdServer) -> Iterator[Callable[[], Store]]:
        """A crash of the server."""
        opened: list[Store] = []

        def again() -> Store:
            server.restart()
            opened.append(Etcd2Store(server.endpoints))
            return opened[-1]

        yield again
        for one in opened:
            one.close()

    @pytest.fixture
    def outage(self, store: Etcd2Store, server: EtcdServer) -> Callable[[], AbstractContextManager[object]]:
        @contextmanager
        def away() -> Iterator[None]:
            server.kill()
            yield
            server.start()

        return away

    @pytest.fixture
    def lose_history(self, store: Etcd2Store) -> Callable[[], object]:
        def write_more_than_is_kept() -> None:
            for number in range(HISTORY + 1):
                put(store, f"other/{number % 2}")

        return write_more_than_is_kept
