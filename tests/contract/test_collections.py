"""The promises of the collections, over every store: order, pages, names of any text, and racing writers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.adapters.stores.sqlite import SqliteStore
from mr.collections import pages, tree
from mr.collections.queue import Queue
from mr.collections.tree import Tree
from mr.ports.store import Put, Store, Transaction
from tests.servers import EtcdServer

NAMES = ["a", "a-b", "a.b", "a/b", "../x", "%2F", "~", "ключ", "😀", " ", "Z", "0", "10", "9"]


def sqlite(stack: ExitStack, folder: Path) -> Store:
    return SqliteStore(str(folder / "mr.db"))


def etcd3(stack: ExitStack, folder: Path) -> Store:
    return Etcd3Store(stack.enter_context(EtcdServer()).endpoints)


def etcd2(stack: ExitStack, folder: Path) -> Store:
    pytest.importorskip("etcd")
    from mr.adapters.stores.etcd2 import Etcd2Store

    return Etcd2Store(stack.enter_context(EtcdServer(["--enable-v2"])).endpoints)


@pytest.fixture(scope="module", params=[sqlite, etcd3, etcd2], ids=["sqlite", "etcd3", "etcd2"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    make: Callable[[ExitStack, Path], Store] = request.param
    with ExitStack() as stack:
        store = make(stack, tmp_path_factory.mktemp("store"))
        stack.callback(store.close)
        yield store


@pytest.fixture
def store(shared: Store) -> Iterator[Store]:
    """With neighbours whose keys begin alike."""
    for key in ("c1/x", "c/x1", "c/xy/0", "d"):
        shared.commit(Transaction(operations=[Put(key, b"neighbour")]))
    yield shared
    Queue(shared, "c/x/").clear()
    Tree(shared, "c/x/").clear()
    assert shared.get("c1/x") is not None
    assert [entry.key for entry in shared.range("c/").entries] == ["c/x1", "c/xy/0"]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", 3)
    monkeypatch.setattr(tree, "PAGE", 3)


@pytest.fixture
def queue(store: Store) -> Queue:
    return Queue(store, "c/x/")


@pytest.fixture
def root(store: Store) -> Tree:
    return Tree(store, "c/x/")


@pytest.mark.usefixtures("small_pages")
def test_items_come_in_the_order_of_their_numbers_over_many_pages(queue: Queue) -> None:
    for number in (10, 2, 9, 0, 100, 1):
        queue.put(number, b"%d" % number)
    assert list(queue.items()) == [(number, b"%d" % number) for number in (0, 1, 2, 9, 10, 100)]
    assert [number for number, _ in queue.items(after=2)] == [9, 10, 100]
    assert [number for number, _ in queue.items(after=50)] == [100]
    assert len(queue) == 6
    assert queue.get(9) == b"9"
    assert queue.get(3) is None


def test_putting_again_replaces_and_appending_never_does(queue: Queue) -> None:
    queue.put(0, b"old")
    queue.put(0, b"new")
    assert [queue.append(b"x"), queue.append(b""), queue.append(b"z")] == [1, 2, 3]
    assert list(queue.items()) == [(0, b"new"), (1, b"x"), (2, b""), (3, b"z")]


def test_those_who_append_at_once_each_get_a_number_of_their_own(queue: Queue) -> None:
    numbers: list[int] = []

    def append(who: int) -> None:
        for _ in range(5):
            numbers.append(queue.append(b"%d" % who))

    threads = [threading.Thread(target=append, args=[who]) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == list(range(20))
    assert sorted(value for _, value in queue.items()) == sorted([b"%d" % who for who in range(4)] * 5)


def test_a_queue_that_was_cleared_begins_anew(queue: Queue) -> None:
    queue.append(b"x")
    queue.clear()
    assert (len(queue), list(queue.items()), queue.append(b"y")) == (0, [], 0)


@pytest.mark.usefixtures("small_pages")
def test_a_node_may_have_any_name_and_keeps_it(root: Tree) -> None:
    for name in NAMES:
        root.put(name.encode(), "leaf", name)
        root.put(b"below", "inner", name, "x")
    assert dict(root.at("leaf").walk()) == {(name,): name.encode() for name in NAMES}
    assert sorted(root.at("leaf").children()) == sorted(root.at("inner").children()) == sorted(NAMES)
    assert root.get("leaf", "a/b") == b"a/b"
    assert root.get("leaf", "a") == b"a"
    assert root.get("leaf", "b") is None
    assert root.get("inner", "a") is None


@pytest.mark.usefixtures("small_pages")
def test_children_are_told_once_however_much_is_below_them(root: Tree) -> None:
    for number in range(5):
        for below in range(7):
            root.put(b"", f"inner{number}", "deep", str(below))
        root.put(b"", f"leaf{number}")
    expected = [f"inner{number}" for number in range(5)] + [f"leaf{number}" for number in range(5)]
    assert list(root.children()) == expected
    assert list(root.at("inner3").children()) == ["deep"]
    assert list(root.at("leaf0").children()) == []
    assert list(root.at("nobody").children()) == []


@pytest.mark.usefixtures("small_pages")
def test_a_walk_gives_all_data_with_the_names_on_the_way(root: Tree) -> None:
    given = {("a", "b", "c"): b"1", ("a", "b", "d"): b"2", ("a", "e"): b"", ("f",): b"4", ("a-", "b"): b"5"}
    for names, value in given.items():
        root.put(value, *names)
    assert dict(root.walk()) == given
    assert dict(root.at("a", "b").walk()) == {("c",): b"1", ("d",): b"2"}
    root.at("a").clear()
    assert dict(root.walk()) == {("f",): b"4", ("a-", "b"): b"5"}
