"""The promises of the blob store, kept by the simulated one in a world without faults."""

from __future__ import annotations

import pytest

from tests.contract.blob_store_contract import BlobStoreContract, Reopen
from tests.simulation.backends import SimStore
from tests.simulation.blobs import SimBlobStore
from tests.simulation.real_time import RealTime


class TestSimulated(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> SimBlobStore:
        world = RealTime()
        return SimBlobStore(world, SimStore(world, transactions=True, broker=None))

    @pytest.fixture
    def reopen(self, blobs: SimBlobStore) -> Reopen:
        return lambda: blobs
