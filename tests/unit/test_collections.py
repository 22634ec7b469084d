"""What handlers share: what the service does for an executor that may ask for anything, and for operators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mr import codec
from mr.clock import SystemClock
from mr.codec import Items
from mr.errors import CorruptEntry, DefinitionInUse, InvalidName, StoreFull, StoreUnavailable, ValueRefused
from mr.model import operation
from mr.model.request import Active
from mr.ports.store import Outcome, Put, Store, Transaction
from mr.rules import keys, limits
from mr.services import collections
from mr.services.collections import Collections, Listed
from mr.services.orphans import Orphans
from mr.services.quota import Quota
from mr.services.registry import Registry
from mr.worker import frames
from mr.worker.answering import Answering
from mr.worker.committing import Stopped
from mr.worker.run import Run

W, R = "flow", "a" * 40
FENCE = Put(keys.active(W, R), codec.encode(Active(1)))


@pytest.fixture
def shared(store: Store) -> Collections:
    return Collections(store)


def ask(shared: Collections, asked: operation.Operation, value: bytes = b"1", w: str = W) -> list[Any]:
    found = shared.perform(w, asked, value, lambda seconds: None)
    return [codec.loads(document) for document in found.documents]


def falling(store: Store, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], *, applied: bool) -> None:
    """Commits fail with these errors first, applied or not, as an etcd that is cut off."""
    commit = store.commit

    def fall(transaction: Transaction) -> Outcome:
        if errors:
            if applied:
                commit(transaction)
            raise errors.pop(0)
        return commit(transaction)

    monkeypatch.setattr(store, "commit", fall)


@pytest.mark.parametrize("applied", [False, True], ids=["not written", "written, and the answer lost"])
@pytest.mark.parametrize("key", ["", "key"], ids=["without a key", "with a key"])
def test_an_append_comes_through_once_however_often_the_store_is_away(
    store: Store, shared: Collections, monkeypatch: pytest.MonkeyPatch, key: str, applied: bool
) -> None:
    errors: list[Exception] = [StoreUnavailable("away", unknown=applied)] * 3 + [StoreFull("no room")]
    falling(store, monkeypatch, errors, applied=applied)
    pauses: list[float] = []
    found = shared.perform(W, operation.Append(queue="q", key=key), b'"x"', pauses.append)
    assert (found.documents, len(pauses), len(shared.queue(W, "q"))) == ([b"0"], 4, 1)


def test_patience_has_an_end(shared: Collections, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "PATIENCE_S", 0.0)
    falling(store, monkeypatch, [StoreUnavailable("away")] * 2, applied=False)
    for asked in (operation.Append(queue="q"), operation.Put(tree="t")):
        with pytest.raises(StoreUnavailable):
            ask(shared, asked)


@pytest.mark.parametrize("name", ["../other", "", "a/b", "..", ".", "q\n", "x" * 101, "ключ", "%2e%2e"])
def test_no_name_leads_to_another_workflow(shared: Collections, store: Store, name: str) -> None:
    for asked in (
        operation.Append(queue=name), operation.Item(queue=name, number=0), operation.Items(queue=name),
        operation.Count(queue=name), operation.Clear(queue=name), operation.Put(tree=name, path=("a",)),
        operation.Get(tree=name), operation.Children(tree=name), operation.Walk(tree=name), operation.Remove(tree=name),
    ):  # fmt: skip
        with pytest.raises(InvalidName):
            ask(shared, asked)
    assert not store.range("").entries


@pytest.mark.parametrize(
    "name", ["..", "../../../other/trees/t", "/", "a/../b", "%2F", "\x7f", "\x00", "items/00000000"]
)
def test_no_path_or_key_leads_out_of_its_collection(shared: Collections, store: Store, name: str) -> None:
    shared.tree("other", "t").put(b"1", "a")
    before = {entry.key for entry in store.range("").entries}
    ask(shared, operation.Put(tree="t", path=(name, name)))
    ask(shared, operation.Append(queue="q", key=name))
    after = {entry.key for entry in store.range("").entries} - before
    assert len(after) == 3
    assert all(key.startswith((keys.collections(W, "queues", "q"), keys.collections(W, "trees", "t"))) for key in after)
    assert ask(shared, operation.Get(tree="t", path=(name, name))) == [1]
    assert ask(shared, operation.Children(tree="t")) == [name]
    assert ask(shared, operation.Walk(tree="t", path=(name,))) == [[[name], 1]]
    assert ask(shared, operation.Walk(tree="t", after=(name, name))) == []
    ask(shared, operation.Remove(tree="t", path=(name,)))
    ask(shared, operation.Clear(queue="q"))
    assert {entry.key for entry in store.range("").entries} == before


@pytest.mark.parametrize("value", [b"", b"{", b"1 2", b"nan", b"\xff", b'"' + b"x" * limits.VALUE_MAX + b'"'])
def test_a_value_that_is_none_or_too_big_is_refused(shared: Collections, store: Store, value: bytes) -> None:
    for asked in (operation.Append(queue="q"), operation.Put(tree="t", path=("a",))):
        with pytest.raises(ValueRefused, match="a value in a collection"):
            ask(shared, asked, value)
    assert not store.range("").entries


def test_a_number_that_is_none_has_no_item(shared: Collections) -> None:
    ask(shared, operation.Append(queue="q"))
    assert [ask(shared, operation.Item(queue="q", number=number)) for number in (0, -1, 10**12)] == [[1], [], []]
    with pytest.raises(ValueRefused, match="expected the number of an item"):
        ask(shared, operation.Items(queue="q", after=-2))


def test_what_there_is_is_listed_and_removed_by_name(shared: Collections, store: Store) -> None:
    for number in range(3):
        ask(shared, operation.Append(queue="seen", key=f"{number}"))
        ask(shared, operation.Put(tree="totals", path=("a", f"{number}")))
    ask(shared, operation.Append(queue="other"), w="other")
    store.commit(Transaction(operations=[Put(f"{keys.collections(W, 'queues')}by hand/x", b"{}")]))
    assert shared.listing(W) == [Listed("queues", "seen", 3), Listed("trees", "totals", 3)]
    shared.remove(W, "queues", "seen")
    shared.remove(W, "trees", "totals")
    assert shared.listing(W) == []
    assert shared.listing("other") == [Listed("queues", "other", 1)]


def test_collections_go_with_their_workflow_and_are_asked_for_before(shared: Collections, store: Store) -> None:
    registry = Registry(store, [], SystemClock())
    for w in (W, "flow2"):
        registry.create_workflow(w, "")
        ask(shared, operation.Append(queue="q", key="k"), w=w)
        ask(shared, operation.Put(tree="t", path=("a",)), w=w)
    with pytest.raises(DefinitionInUse, match="is not empty: collections"):
        registry.delete_workflow(W)
    assert len(shared.listing(W)) == 2
    assert registry.delete_workflow(W, force=True) == ["collections"]
    assert not store.range(keys.collections(W)).entries
    assert len(shared.listing("flow2")) == 2
    registry.create_workflow(W, "")
    assert registry.delete_workflow(W) == []


def test_a_collection_is_no_orphan(shared: Collections, store: Store) -> None:
    ask(shared, operation.Append(queue="q", key=R))
    ask(shared, operation.Put(tree=R, path=(R,)))
    orphans = Orphans(store, SystemClock(), lambda seconds: None)
    assert orphans.find() == []
    assert orphans.remove().removed == []
    assert len(shared.listing(W)) == 2


class Answered:
    """An executor of request R that gets answers, and the answering."""

    def __init__(self, store: Store, limit_bytes: int, pause: Callable[[float], None] = lambda seconds: None) -> None:
        store.commit(Transaction(operations=[FENCE]))
        self.frames: list[frames.Answer] = []
        self.documents: list[list[bytes]] = []
        self._has_come = threading.Semaphore(0)
        quota = Quota(store, limit_bytes, "w1", lambda: 1)
        self.answering = Answering(Collections(store), quota, 2, pause, post=lambda call: call())
        self.visit, self.executor = SimpleNamespace(workflow=W, request_id=R, epoch=1), self

    @property
    def run(self) -> Run:
        """Stands for a run: what is asked of one is all here."""
        return cast(Run, self)

    def answer(self, frame: frames.Answer, items: Items) -> None:
        self.frames.append(frame)
        self.documents.append(list(items))
        self._has_come.release()

    def ask(self, asked: operation.Operation, value: bytes = b"1") -> frames.Answer:
        """The answer to a call."""
        self.answering.take(self.run, frames.Call(id=1, operation=asked), value)
        return self.await_answer()

    def await_answer(self) -> frames.Answer:
        """The next answer."""
        assert self._has_come.acquire(timeout=20)
        return self.frames[-1]


@pytest.fixture
def answered(store: Store) -> Iterator[Answered]:
    one = Answered(store, 80_000)
    yield one
    one.answering.close()


def test_a_call_is_answered_from_the_workflow_of_the_run(answered: Answered, shared: Collections) -> None:
    assert answered.ask(operation.Append(queue="q"), b'"x"') == frames.Answer()
    assert answered.ask(operation.Items(queue="q")) == frames.Answer()
    assert answered.documents == [[b"0"], [b'[0,"x"]']]
    assert shared.queue(W, "q").get(0) == b'"x"'
    refused = answered.ask(operation.Append(queue="../x"))
    assert (refused.code, refused.message[:22]) == ("invalid_name", "queue name '../x' is n")


def test_what_is_written_counts_for_the_request_and_is_refused_at_its_quota(answered: Answered) -> None:
    value = b'"' + b"x" * 9_998 + b'"'
    codes = [answered.ask(operation.Append(queue="q"), value).code for _ in range(12)]
    assert codes[:8] == [""] * 8
    assert codes[-1] == "output_limit"
    assert "MR_REQUEST_STORE_MB" in answered.frames[-1].message
    assert answered.ask(operation.Put(tree="t")).code == "output_limit"
    assert answered.ask(operation.Count(queue="q")).code == ""


def test_whatever_goes_wrong_somebody_is_answered(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collections, "perform", lambda *_: 1 / 0)
    answer = answered.ask(operation.Count(queue="q"))
    assert (answer.code, "ZeroDivisionError" in answer.message) == ("error", True)


def test_a_worker_that_ends_waits_for_no_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = threading.Event()

    def give_up(seconds: float) -> None:
        paused.set()
        raise Stopped

    one = Answered(store, 80_000, give_up)
    falling(store, monkeypatch, [StoreUnavailable("away")], applied=False)
    one.answering.take(one.run, frames.Call(id=1, operation=operation.Append(queue="q")), b"1")
    assert paused.wait(20)
    one.answering.close()
    assert one.frames == []


def test_who_does_not_wait_for_an_answer_is_no_executor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    one = Answered(store, 80_000, lambda seconds: assert_set(goes_on))
    falling(store, monkeypatch, [StoreUnavailable("away")], applied=False)
    call = frames.Call(id=1, operation=operation.Append(queue="q"))
    one.answering.take(one.run, call, b"1")
    with pytest.raises(CorruptEntry, match="before the one before it was answered"):
        one.answering.take(one.run, call, b"2")
    goes_on.set()
    one.await_answer()
    assert one.ask(operation.Count(queue="q")).code == ""
    assert one.documents[-1] == [b"1"]
    one.answering.close()


def assert_set(event: threading.Event) -> None:
    assert event.wait(20)
