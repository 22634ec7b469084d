"""The promises of the blob store, kept by an S3 and by a grid of Tahoe-LAFS."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest

from mr.adapters.blob_stores.files import open_blob_store
from mr.addresses import FileSystemUrl
from mr.errors import BlobStoreUnavailable
from mr.ports.blob_store import BlobStore
from tests.contract.blob_store_contract import AwayContract, BlobStoreContract, Reopen
from tests.servers_files import S3Server, TahoeGrid


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    pytest.importorskip("s3fs")
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grid() -> Iterator[TahoeGrid]:
    grid = TahoeGrid().start()
    yield grid
    grid.stop()


class RemoteContract(BlobStoreContract, AwayContract):
    """The same, where `url` is a fresh place each time."""

    @pytest.fixture
    def reopen(self, url: str) -> Reopen:
        return lambda: open_blob_store(FileSystemUrl(url))

    @pytest.fixture
    def blobs(self, reopen: Reopen) -> BlobStore:
        return reopen()


class TestS3(RemoteContract):
    @pytest.fixture
    def url(self, server: S3Server) -> str:
        return server.url()

    @pytest.fixture
    def away(self) -> BlobStore:
        once = 'config_kwargs={"retries":{"total_max_attempts":1}}'
        return open_blob_store(FileSystemUrl(f"s3://b/c?key=k&secret=hidden&endpoint_url=http://127.0.0.1:9&{once}"))

    def test_a_bucket_that_is_missing_is_not_made(self, server: S3Server) -> None:
        missing = open_blob_store(FileSystemUrl(server.url().replace("//bucket", "//nobucket")))
        for _ in range(2):
            with pytest.raises(BlobStoreUnavailable, match="MR_BLOB_URL"):
                missing.put("w/r/x/k/0", b"1")
            with pytest.raises(BlobStoreUnavailable):
                missing.get("w/r/x/k/0")


class TestTahoe(RemoteContract):
    @pytest.fixture
    def url(self, grid: TahoeGrid) -> str:
        return grid.url()

    @pytest.fixture
    def away(self) -> BlobStore:
        return open_blob_store(FileSystemUrl("tahoe+http://127.0.0.1:9/URI:DIR2:hidden:hidden"))

    def test_the_capability_is_in_no_traceback(self, away: BlobStore) -> None:
        with pytest.raises(BlobStoreUnavailable) as caught:
            away.get("w/r/x/k/0")
        assert "hidden" not in "".join(traceback.format_exception(caught.value))
