"""The promises of the blob store, kept by a directory of this machine and in memory, and what only a disk has."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from mr.adapters.blob_stores.files import FileBlobStore, check, open_blob_store
from mr.addresses import FileSystemUrl
from mr.errors import BlobStoreUnavailable, ConfigError
from mr.ports.blob_store import BlobStore
from tests.contract.blob_store_contract import AwayContract, BlobStoreContract, Reopen, names


class TestDirectory(BlobStoreContract, AwayContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: open_blob_store(FileSystemUrl(f"file://{tmp_path}"))

    @pytest.fixture
    def blobs(self, reopen: Reopen) -> BlobStore:
        return reopen()

    @pytest.fixture
    def away(self, tmp_path: Path) -> BlobStore:
        return open_blob_store(FileSystemUrl(f"file://{tmp_path}/unmounted"))

    def test_a_blob_lies_where_its_name_says_and_nothing_beside_it(self, blobs: BlobStore, tmp_path: Path) -> None:
        blobs.put("w/r/x/k/0", b"data")
        assert (tmp_path / "w/r/x/k/0").read_bytes() == b"data"
        assert os.listdir(tmp_path / "w/r/x/k") == ["0"]

    def test_a_write_that_is_cut_off_shows_nothing_and_goes_with_its_prefix(
        self, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            (tmp_path / "w/r/x/k").mkdir(parents=True)
            with pytest.raises(BlobStoreUnavailable, match="the disk is full"):
                blobs.put("w/r/x/k/0", b"data")
        assert blobs.get("w/r/x/k/0") is None
        blobs.remove("w/r")
        assert not (tmp_path / "w/r").exists()

    def test_what_comes_and_goes_meanwhile_is_removed_all_the_same(
        self, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = LocalFileSystem.rm

        def second(self: LocalFileSystem, path: str, **named: object) -> None:
            monkeypatch.setattr(LocalFileSystem, "rm", real)
            real(self, path, **named)
            raise FileNotFoundError(path)

        blobs.put("w/r/x/k/0", b"1")
        monkeypatch.setattr(LocalFileSystem, "rm", second)
        blobs.remove("w/r")
        assert names(blobs) == []

    def test_files_of_others_are_no_blobs(self, blobs: BlobStore, tmp_path: Path) -> None:
        (tmp_path / ".hidden").write_text("1")
        (tmp_path / "lost+found").mkdir()
        (tmp_path / "lost+found" / "1").write_text("1")
        assert names(blobs) == []

    def test_a_directory_that_is_not_there_is_refused_at_the_start(self, tmp_path: Path) -> None:
        check(FileSystemUrl(f"file://{tmp_path}"))
        with pytest.raises(ConfigError, match=r"MR_BLOB_URL: expected a directory that is there.*unmounted"):
            check(FileSystemUrl(f"file://{tmp_path}/unmounted"))


class TestMemory(BlobStoreContract):
    @pytest.fixture
    def reopen(self) -> Reopen:
        base = uuid.uuid4().hex
        MemoryFileSystem().mkdir(base)
        return lambda: open_blob_store(FileSystemUrl(f"memory://{base}"))

    @pytest.fixture
    def blobs(self, reopen: Reopen) -> BlobStore:
        return reopen()

    def test_what_a_driver_raises_of_its_own_becomes_an_error_of_ours(
        self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(self: MemoryFileSystem, path: str, **_: object) -> None:
            raise ZeroDivisionError("its own")

        monkeypatch.setattr(MemoryFileSystem, "cat_file", fails)
        with pytest.raises(BlobStoreUnavailable, match="ZeroDivisionError: its own"):
            blobs.get("w/r/x/k/0")


def test_where_files_can_be_renamed_a_blob_is_written_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, moved = LocalFileSystem.mv, []

    def move(self: LocalFileSystem, path1: str, path2: str) -> None:
        moved.append((path1, path2, Path(path1).read_bytes(), Path(path2).exists()))
        real(self, path1, path2)

    monkeypatch.setattr(LocalFileSystem, "mv", move)
    blobs = FileBlobStore(FileSystemUrl(f"file://{tmp_path}"))  # as any driver that can rename
    blobs.put("w/r/x/k/0", b"1")
    ((aside, place, data, was_there),) = moved
    assert (place, data, was_there) == (f"{tmp_path}/w/r/x/k/0", b"1", False)
    assert aside != place
    assert names(blobs) == ["w/r/x/k/0"]


@pytest.mark.parametrize("scheme", ["gopher", "class"])
def test_a_url_without_a_driver_is_refused_at_the_start(scheme: str) -> None:
    with pytest.raises(ConfigError, match="MR_BLOB_URL: expected a scheme that fsspec knows"):
        check(FileSystemUrl(f"{scheme}://package.Factory"))


def test_a_url_that_its_driver_refuses_is_told_without_its_secret() -> None:
    with pytest.raises(BlobStoreUnavailable, match=r"expected what its driver takes") as caught:
        open_blob_store(FileSystemUrl("tahoe+http://hidden")).get("w")
    assert "//hidden" not in str(caught.value)
