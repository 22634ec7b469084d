"""Orphans: found exactly where a request is gone, removed only where that is sure."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mr import codec
from mr.adapters.blob_stores.files import open_blob_store
from mr.addresses import FileSystemUrl
from mr.clock import stamp
from mr.model.dataset import Payload
from mr.model.invocation import PARTS, Done, Manifest, Receipt
from mr.model.request import Active, Pin, Reply, Request, RequestState
from mr.ports.blob_store import BlobStore
from mr.ports.store import Put, Store, Transaction
from mr.rules import keys
from mr.services.orphans import Orphans

W = "w"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = stamp(NOW - timedelta(hours=2)), stamp(NOW - timedelta(minutes=5))
Meanwhile = Callable[[], None]


class Still:
    """A clock that stands."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def orphans(store: Store, meanwhile: Meanwhile = lambda: None) -> Orphans:
    """The service; between its two looks something may happen."""
    return Orphans(store, Still(), lambda seconds: meanwhile())


def put(store: Store, key: str, value: object) -> None:
    data = value if isinstance(value, bytes) else codec.encode(value)
    store.commit(Transaction(operations=[Put(key, data)]))


def leave(store: Store, r: str, at: str = OLD) -> None:
    """Something of every kind, as if the request had been there."""
    put(store, keys.manifest(W, r, "-"), Manifest(execution="accepted", step="s", count=1))
    put(store, keys.done(W, r, "0", 0), Done(execution="x", results=Payload(), at=at))
    put(store, keys.done(W, r, "0", 1), PARTS)
    put(store, keys.chunk(W, r, "x", "args", 0), [1])
    put(store, keys.session(W, r, "0", "x", "k"), 1)
    put(store, keys.receipt(W, r, "0", 0), Receipt(at=at))
    put(store, keys.stopped(W, r), {"epoch": 1})
    put(store, keys.pinned(W, r), Pin(at=at))
    put(store, keys.due(at, W, r), {})
    put(store, keys.replies("front", r), Reply(workflow_name=W, state=RequestState.SUCCEEDED))


def accept(store: Store, r: str) -> None:
    put(store, keys.request(W, r), Request(workflow_name=W, job_name="j", invocation_id=f"{r}.0"))


def everything(store: Store) -> list[str]:
    return [entry.key for entry in store.range("", keys_only=True).entries]


def test_what_belongs_to_a_request_is_no_orphan(store: Store) -> None:
    leave(store, "a")
    accept(store, "a")
    assert orphans(store).find() == []


def test_every_kind_of_key_is_found_and_removed(store: Store) -> None:
    leave(store, "a")
    leave(store, "b")
    accept(store, "b")
    kept = [key for key in everything(store) if "/b" in key or key.endswith("b")]
    (found,) = orphans(store).find()
    assert (found.workflow, found.request_id, found.newest_at) == (W, "a", OLD)
    assert found.kinds == {
        "facts": 3, "chunks": 1, "sessions": 1, "receipts": 1, "stopped": 1, "pins": 1, "due": 1, "replies": 1
    }  # fmt: skip
    assert found.count == 10
    removal = orphans(store).remove()
    assert removal.removed == [found]
    assert removal.left == []
    assert everything(store) == sorted(kept)


def test_young_and_fenced_ones_are_left_alone(store: Store) -> None:
    leave(store, "a", at=NEW)
    leave(store, "b")
    put(store, keys.active(W, "b"), Active(1))
    before = everything(store)
    removal = orphans(store).remove()
    assert [(one.request_id, one.is_young, one.is_fenced) for one in removal.left] == [
        ("a", True, False),
        ("b", False, True),
    ]
    assert removal.removed == []
    assert everything(store) == before


@pytest.mark.parametrize("what", ["a write", "a record", "a fence"])
def test_what_changes_between_the_looks_is_left_alone(store: Store, what: str) -> None:
    leave(store, "a")

    def meanwhile() -> None:
        if what == "a write":
            put(store, keys.chunk(W, "a", "x", "args", 0), [2])
        elif what == "a record":
            accept(store, "a")
        else:
            put(store, keys.active(W, "a"), Active(1))

    before = everything(store)
    assert orphans(store, meanwhile).remove().removed == []
    assert set(before) <= set(everything(store))


def test_a_request_that_comes_at_the_last_moment_keeps_its_keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(store, "a")
    service = orphans(store)
    remove = service._remove

    def late(w: str, r: str, going: list[str]) -> bool:
        accept(store, r)
        return remove(w, r, going)

    monkeypatch.setattr(service, "_remove", late)
    before = everything(store)
    assert service.remove().removed == []
    assert set(before) <= set(everything(store))


def test_more_keys_than_fit_one_transaction_go(store: Store) -> None:
    for number in range(300):
        put(store, keys.chunk(W, "a", "x", "args", number), [1])
    (found,) = orphans(store).remove().removed
    assert found.kinds == {"chunks": 300}
    assert everything(store) == []


def test_a_reply_that_nobody_can_read_is_left(store: Store) -> None:
    put(store, keys.replies("front", "a"), b"nonsense")
    assert orphans(store).find() == []


# Blobs


@pytest.fixture
def blobs(folder: Path) -> BlobStore:
    return open_blob_store(FileSystemUrl(f"file://{folder}"))


def blob(blobs: BlobStore, folder: Path, name: str, age_s: float = 7200.0) -> None:
    blobs.put(name, b"[1]")
    at = NOW.timestamp() - age_s
    os.utime(folder / name, (at, at))


def test_blobs_of_a_request_that_is_gone_are_found_and_removed(store: Store, blobs: BlobStore, folder: Path) -> None:
    for name in ("w/a/x/k/0", "w/a/x/k/1", "w/b/x/k/0", "w/c/x/k/0"):
        blob(blobs, folder, name)
    blob(blobs, folder, "w/young/x/k/0", age_s=60)
    blob(blobs, folder, "w/no-blob-of-ours")
    leave(store, "b")
    accept(store, "c")
    service = Orphans(store, Still(), lambda seconds: None, blobs)
    kinds = {one.request_id: one.kinds.get("blobs") for one in service.find()}
    assert kinds == {"a": 2, "b": 1, "young": 1}
    removal = service.remove()
    assert [one.request_id for one in removal.removed] == ["a", "b"]
    assert [(one.request_id, one.is_young) for one in removal.left] == [("young", True)]
    left = sorted(one.name for one in blobs.list())
    assert left == ["w/c/x/k/0", "w/no-blob-of-ours", "w/young/x/k/0"]


@pytest.mark.parametrize("what", ["a blob", "a record", "a fence"])
def test_blobs_of_what_comes_between_the_looks_are_left_alone(
    store: Store, blobs: BlobStore, folder: Path, what: str
) -> None:
    blob(blobs, folder, "w/a/x/k/0")

    def meanwhile() -> None:
        if what == "a blob":
            blob(blobs, folder, "w/a/x/k/1")
        elif what == "a record":
            accept(store, "a")
        else:
            put(store, keys.active(W, "a"), Active(1))

    assert Orphans(store, Still(), lambda seconds: meanwhile(), blobs).remove().removed == []
    assert blobs.get("w/a/x/k/0") == b"[1]"


def test_blobs_of_a_request_that_comes_at_the_last_moment_stay(
    store: Store, blobs: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob(blobs, folder, "w/a/x/k/0")
    service = Orphans(store, Still(), lambda seconds: None, blobs)
    remove = service._remove

    def late(w: str, r: str, going: list[str]) -> bool:
        found = remove(w, r, going)
        accept(store, r)
        return found

    monkeypatch.setattr(service, "_remove", late)
    assert service.remove().removed == []
    assert blobs.get("w/a/x/k/0") == b"[1]"
