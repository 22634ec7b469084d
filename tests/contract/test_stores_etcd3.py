"""The promises of the store port, kept by etcd v3 on a real server, by gRPC and through its JSON gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.ports.store import Store
from tests.contract.store_contract import StoreContract, TransactionContract, put
from tests.servers import EtcdServer


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "gateway"])
class TestEtcd3(StoreContract, TransactionContract):
    @pytest.fixture
    def store(self, server: EtcdServer, grpc: bool) -> Iterator[Etcd3Store]:
        """Empty, but not at its first revision: no promise depends on that."""
        store = Etcd3Store(server.endpoints, grpc=grpc)
        while store.delete_prefix(""):
            pass
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store: Etcd3Store, server: EtcdServer, grpc: bool) -> Iterator[Callable[[], Store]]:
        """A crash of the server."""
        opened: list[Store] = []

        def again() -> Store:
            server.restart()
            opened.append(Etcd3Store(server.endpoints, grpc=grpc))
            return opened[-1]

        yield again
        for one in opened:
            one.close()

    @pytest.fixture
    def outage(self, store: Etcd3Store, server: EtcdServer) -> Callable[[], AbstractContextManager[object]]:
        @contextmanager
        def away() -> Iterator[None]:
            server.kill()
            yield
            server.start()

        return away

    @pytest.fixture
    def lose_history(self, store: Etcd3Store) -> Callable[[], object]:
        def compact() -> None:
            # etcd still shows the change of the very revision to which it was compacted.
            store.compact(put(store, "other"))

        return compact
