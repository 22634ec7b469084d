"""Blobs: where chunks lie that are too much for the store, what stands in their place, and how both go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mr import codec
from mr.codec import Items
from mr.errors import BlobStoreUnavailable, ConfigError, CorruptEntry, NotFound, StoreUnavailable
from mr.http.server import serve
from mr.model.dataset import Chunks
from mr.model.request import Active
from mr.ports.blob_store import BlobStore
from mr.ports.store import Delete, Put, Transaction
from mr.rules import keys
from mr.services.blobs import Blobs
from mr.services.cleaner import Cleaner
from mr.services.committer import Committer
from mr.services.datasets import Datasets
from mr.services.quota import Quota
from mr.settings import Settings
from mr.wiring import Parts
from mr.worker.process import run
from tests.unit.front_ends import define
from tests.unit.small_worker import SmallWorker

W, R, X, KIND = "w", "a" * 40, "w1.1", "0.pairs.1"
FENCE = (keys.active(W, R), codec.encode(Active(1)))
LIMIT = 10_000
CHUNK = Items.of([b'"%d"' % n for n in range(500)])
NAME = f"{W}/{R}/{X}/{KIND}/00000000"
CHUNKS = Chunks(execution=X, kind=KIND, counts=[500])


@pytest.fixture
def parts(tmp_path: Path, folder: Path) -> Iterator[Parts]:
    environ = {"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_BLOB_URL": f"file://{folder}"}
    built = Parts(Settings.from_env(environ | {"MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "0"}))
    define(built)
    yield built
    built.close()


class Worker:
    """A committer and its quota. `pause` is called before it tries again what was not taken."""

    def __init__(
        self, parts: Parts, pause: Callable[[float], None] = lambda seconds: None, blobs: Blobs | None = None
    ) -> None:
        self.blobs = blobs or parts.blobs
        self.quota = Quota(parts.store, LIMIT, "w1", lambda: 1, has_blobs=self.blobs.is_there)
        self.committer = Committer(
            parts.store, parts.publisher, parts.receipts, parts.clock, parts.retention, self.quota, pause,
            blobs=self.blobs,
        )  # fmt: skip

    def spill(self, r: str = R) -> None:
        """Have the request be at its limit."""
        fence = (keys.active(W, r), FENCE[1])
        self.quota.stored(W, r, fence, LIMIT + 1)
        assert self.quota.spills(W, r)

    def stage(self, number: int = 0, r: str = R, items: Items = CHUNK) -> bool:
        key = keys.chunk(W, r, X, KIND, number)
        return self.committer.stage((keys.active(W, r), FENCE[1]), [(key, items.array())])


def begin(parts: Parts, r: str = R) -> None:
    """The fence of a request, and its root."""
    for key, value in ((keys.active(W, r), FENCE[1]), (keys.manifest(W, r, "-"), b"{}")):
        parts.store.commit(Transaction(operations=[Put(key, value)]))


def end(parts: Parts, r: str = R) -> None:
    parts.store.commit(Transaction(operations=[Delete(keys.active(W, r))]))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def value(parts: Parts, key: str) -> bytes:
    entry = parts.store.get(key)
    assert entry is not None
    return entry.value


# Writing


def test_chunks_stand_in_the_store_up_to_the_limit_and_are_blobs_beyond_it(parts: Parts, folder: Path) -> None:
    begin(parts)
    worker = Worker(parts)
    number = 0
    while not worker.quota.spills(W, R):
        assert worker.stage(number)
        number += 1
    assert files(folder) == []
    assert (number - 1) * len(CHUNK.array()) <= LIMIT
    assert worker.stage(number)
    assert files(folder) == [f"{W}/{R}/{X}/{KIND}/{number:08d}"]
    assert (folder / files(folder)[0]).read_bytes() == CHUNK.array()
    stands = value(parts, keys.chunk(W, R, X, KIND, number))
    assert json.loads(stands) == {"blob": files(folder)[0], "bytes": len(CHUNK.array())}
    whole = Chunks(execution=X, kind=KIND, counts=[500] * (number + 1))
    assert [bytes(items.array()) for items in parts.datasets.staged(W, R, whole)] == [CHUNK.array()] * (number + 1)


def test_a_repeat_overwrites_itself(parts: Parts, folder: Path) -> None:
    begin(parts)
    worker = Worker(parts)
    worker.spill()
    assert worker.stage()
    assert worker.stage()
    assert files(folder) == [NAME]


def test_a_blob_is_whole_before_anything_names_it(parts: Parts) -> None:
    begin(parts)
    named: list[bool] = []

    class Looking(Blobs):
        def write(self, key: str, chunk: bytes) -> bytes:
            reference = super().write(key, chunk)
            named.append(parts.store.get(key) is not None)
            assert parts.blob_store is not None
            assert parts.blob_store.get(keys.blob(key)) == chunk
            return reference

    worker = Worker(parts, blobs=Looking(parts.blob_store))
    worker.spill()
    assert worker.stage()
    assert named == [False]


def test_what_does_not_answer_is_asked_again_until_it_does(parts: Parts, folder: Path) -> None:
    begin(parts)
    folder.rmdir()
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            folder.mkdir()

    worker = Worker(parts, pause)
    worker.spill()
    assert worker.stage()
    assert len(waits) == 3
    assert files(folder) == [NAME]


def test_nothing_is_written_for_a_request_that_is_over(parts: Parts, folder: Path) -> None:
    begin(parts)
    worker = Worker(parts)
    worker.spill()
    end(parts)
    assert not worker.stage()
    assert files(folder) == []


def test_who_waits_for_a_blob_store_gives_up_when_the_request_is_over(parts: Parts, folder: Path) -> None:
    begin(parts)
    folder.rmdir()
    worker = Worker(parts, lambda seconds: end(parts))
    worker.spill()
    assert not worker.stage()


def test_a_request_that_ends_while_its_blob_is_written_leaves_none(parts: Parts, folder: Path) -> None:
    begin(parts)

    class Late(Blobs):
        def write(self, key: str, chunk: bytes) -> bytes:
            reference = super().write(key, chunk)
            end(parts)
            return reference

    worker = Worker(parts, blobs=Late(parts.blob_store))
    worker.spill()
    assert not worker.stage()
    assert files(folder) == []
    assert parts.store.get(keys.chunk(W, R, X, KIND, 0)) is None


def test_records_beyond_twice_the_limit_fail_the_request_all_the_same(parts: Parts) -> None:
    begin(parts)
    worker = Worker(parts)
    worker.quota.stored(W, R, FENCE, 2 * LIMIT)
    assert not worker.quota.is_over(W, R)
    worker.quota.stored(W, R, FENCE, LIMIT // 8)
    assert worker.quota.is_over(W, R)
    assert "beside its blobs" in worker.quota.report("h").message


def test_without_a_blob_store_the_error_says_how_to_have_one(parts: Parts) -> None:
    worker = Worker(parts, blobs=Blobs())
    begin(parts)
    worker.quota.stored(W, R, FENCE, LIMIT + 1)
    assert worker.quota.is_over(W, R)
    assert not worker.quota.spills(W, R)
    assert "MR_BLOB_URL" in worker.quota.report("h").message


# Reading


@pytest.fixture
def spilled(parts: Parts) -> Parts:
    begin(parts)
    worker = Worker(parts)
    worker.spill()
    assert worker.stage()
    return parts


def test_who_has_no_blob_store_is_told_which_setting_is_missing(spilled: Parts) -> None:
    with pytest.raises(StoreUnavailable, match=rf"queues/dataset/{NAME} is in a blob store.*MR_BLOB_URL"):
        Datasets(spilled.store).chunk(W, R, CHUNKS, 0)


def test_a_missing_blob_names_request_key_and_place(spilled: Parts, folder: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(CorruptEntry) as caught:
        spilled.datasets.chunk(W, R, CHUNKS, 0)
    for word in (f"queues/dataset/{NAME}", R, f"file://{folder}", "MR_BLOB_URL"):
        assert word in str(caught.value)


def test_a_blob_of_another_length_is_no_result(spilled: Parts, folder: Path) -> None:
    (folder / NAME).write_bytes(b"[]")
    with pytest.raises(CorruptEntry, match="has 2 bytes"):
        spilled.datasets.chunk(W, R, CHUNKS, 0)


def test_a_directory_that_went_with_its_mount_is_no_missing_blob(spilled: Parts, folder: Path) -> None:
    os.rename(folder, folder.with_name("unmounted"))
    with pytest.raises(BlobStoreUnavailable, match="has to be there"):
        spilled.datasets.chunk(W, R, CHUNKS, 0)


def test_a_blob_that_goes_with_its_request_is_gone_and_not_missing(spilled: Parts, folder: Path) -> None:
    shutil.rmtree(folder / W)
    spilled.store.commit(Transaction(operations=[Delete(keys.manifest(W, R, "-"))]))
    with pytest.raises(NotFound, match="is cleaned away"):
        spilled.datasets.chunk(W, R, CHUNKS, 0)


@pytest.mark.parametrize("reference", [b'{"blob":"../x","bytes":1}', b'{"blob":1}', b"{}"])
def test_a_reference_that_is_none_is_refused(spilled: Parts, reference: bytes) -> None:
    key = keys.chunk(W, R, X, KIND, 0)
    spilled.store.commit(Transaction(operations=[Put(key, reference)]))
    with pytest.raises(CorruptEntry, match="queues/dataset"):
        spilled.datasets.chunk(W, R, CHUNKS, 0)


def test_neither_front_end_nor_worker_starts_with_a_url_that_is_refused(tmp_path: Path) -> None:
    environ = {"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_BLOB_URL": f"file://{tmp_path}/unmounted"}
    settings = Settings.from_env(environ)
    for start in (lambda: serve(settings), lambda: run(settings, environ)):
        with pytest.raises(ConfigError, match=r"MR_BLOB_URL: expected a directory that is there.*unmounted"):
            start()


# Removing


def finished(parts: Parts) -> str:
    """A request that has ended, with a blob, and one that nobody names."""
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    worker = Worker(parts)
    worker.spill(r)
    assert worker.stage(r=r)
    assert parts.blob_store is not None
    parts.blob_store.put(f"{W}/{r}/lost.1/{KIND}/00000000", b"[1]")
    SmallWorker(parts, lambda path, pairs: pairs).work("w", r)
    return r


def remains(parts: Parts, r: str) -> list[str]:
    return [entry.key for entry in parts.store.range("", limit=1000).entries if r in entry.key]


def test_the_cleaner_takes_blobs_named_or_not_and_nobody_elses(parts: Parts, folder: Path) -> None:
    r, other = finished(parts), finished(parts)
    parts.cleaner.remove("w", r)
    assert remains(parts, r) == []
    assert {name.split("/")[1] for name in files(folder)} == {other}
    assert parts.cleaner.clean() == 1
    assert files(folder) == []


def test_a_request_that_never_spilled_costs_the_blob_store_nothing(
    parts: Parts, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    SmallWorker(parts, lambda path, pairs: pairs).work("w", r)
    folder.rmdir()
    assert parts.cleaner.clean() == 1
    assert remains(parts, r) == []


class Cut(BlobStore):
    """A blob store that is gone after so many uses."""

    def __init__(self, blobs: BlobStore, uses: int) -> None:
        self._blobs, self._left, self.place = blobs, uses, blobs.place

    def _used(self) -> BlobStore:
        if self._left == 0:
            raise BlobStoreUnavailable("away")
        self._left -= 1
        return self._blobs

    def put(self, name: str, data: bytes) -> None:
        self._used().put(name, data)

    def get(self, name: str) -> bytes | None:
        return self._used().get(name)

    def remove(self, prefix: str) -> None:
        self._used().remove(prefix)

    def list(self, prefix: str = "") -> Iterator[Any]:
        return self._used().list(prefix)


def test_a_request_whose_blobs_cannot_go_is_put_off_and_holds_up_nobody(parts: Parts, folder: Path) -> None:
    first, second = finished(parts), finished(parts)
    assert parts.blob_store is not None
    assert Cleaner(parts.store, parts.clock, Blobs(Cut(parts.blob_store, 1))).clean() == 1
    left = first if remains(parts, first) else second
    assert {name.split("/")[1] for name in files(folder)} == {left}
    assert keys.request("w", left) in remains(parts, left)
    (due,) = [key for key in remains(parts, left) if key.startswith(keys.DUE)]
    assert parts.cleaner.clean() == 0  # not yet
    parts.cleaner.remove("w", left)
    assert remains(parts, left) == [due]  # it goes when its time has come
    assert files(folder) == []
