"""The promises of the collections, over every store: order, pages, names of any text, and racing writers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.adapters.stores.sqlite import SqliteStore
from mr.collections import pages, tree
from mr.collections.queue import Queue
from mr.collections.shared_queue import NUMBER_MAX, Patience, SharedQueue
from mr.collections.shared_tree import SharedTree
from mr.collections.tree import Tree
from mr.errors import ValueRefused
from mr.ports.store import Put, Store, Transaction
from mr.rules import limits
from tests.servers import EtcdServer

T = TypeVar("T")
NAMES = ["a", "a-b", "a.b", "a/b", "../x", "..", ".", "_a", "%2F", "~", "ключ", "😀", " ", "Z", "0", "10", "9"]


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


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Call each in a thread of its own; fails if one does."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors


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


def test_putting_again_replaces_and_the_end_is_behind_the_last(queue: Queue) -> None:
    assert queue.end() == 0
    queue.put(0, b"old")
    queue.put(0, b"new")
    assert (list(queue.items()), queue.end()) == ([(0, b"new")], 1)
    queue.put(7, b"")
    assert queue.end() == 8


@pytest.mark.usefixtures("small_pages")
def test_the_end_is_behind_the_last_however_many_numbers_are_left_out(queue: Queue) -> None:
    for number in (3, 4, 5, 20, 21, 22, 23, 1000):
        queue.put(number, b"x")
    assert queue.end() == 1001


def test_those_who_append_at_once_each_get_a_number_of_their_own(store: Store) -> None:
    numbers: list[int] = []
    shared = SharedQueue(store, "c/x/")

    def append(who: int) -> None:
        for _ in range(5):
            numbers.append(shared.append(b"%d" % who))

    at_once([partial(append, who) for who in range(4)])
    assert sorted(numbers) == list(range(20))
    assert sorted(value for _, value in shared.items()) == sorted([b"%d" % who for who in range(4)] * 5)
    assert shared.get(numbers[0]) is not None


def test_what_is_appended_under_a_key_by_many_at_once_stands_there_once(store: Store) -> None:
    """Given four who append the same keys, and two strangers among them, then each key has one item, known to all."""
    found: list[tuple[str, int]] = []

    def append(who: int) -> None:
        mine = SharedQueue(store, "c/x/")
        for number in range(6):
            if who < 4:
                key = f"day/{number}"
                found.append((key, mine.append(b'"by %d"' % who, key)))
            else:
                mine.append(b'"stranger"')

    at_once([partial(append, who) for who in range(6)])
    items = dict(SharedQueue(store, "c/x/").items())
    assert sorted(items) == list(range(6 + 12))
    assert len(found) == 24
    assert len(set(found)) == 6  # all were told the same number for a key
    assert all(items[number].startswith(b'"by') for _, number in found)
    assert sorted(items.values()).count(b'"stranger"') == 12


def test_a_repeat_under_a_key_goes_on_wherever_the_first_was_cut_off(store: Store) -> None:
    class Cut(Exception):
        pass

    def after(steps: int) -> Patience:
        def patiently(call: Callable[[], T], /) -> T:
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise Cut
            return call()

        return patiently

    shared = SharedQueue(store, "c/x/")
    for steps in range(8):
        key = f"cut after {steps}"
        with suppress(Cut):
            SharedQueue(store, "c/x/", after(steps)).append(b"1", key)
        shared.append(b"0")  # somebody takes the number that may be entered
        with suppress(Cut):
            SharedQueue(store, "c/x/", after(steps)).append(b"2", key)
        number = shared.append(b"3", key)
        assert shared.append(b"4", key) == number
        assert [value for _, value in shared.items()].count(b"0") == steps + 1
    assert len(shared) == 2 * 8


@pytest.mark.parametrize("key", ["", "key"], ids=["a stranger", "a repeat"])
def test_whoever_comes_in_between_an_append_finds_a_number_of_his_own_or_the_same(store: Store, key: str) -> None:
    """Given an append under a key, when others append between any two of its steps, then each item is there once."""
    for step in range(8):
        came: list[int] = []

        def patiently(call: Callable[[], T], /, step: int = step, came: list[int] = came) -> T:
            if len(came) == step:
                SharedQueue(store, "c/x/").append(b"0")
                came.append(SharedQueue(store, "c/x/").append(b"1", key))
            else:
                came.append(-1)
            return call()

        number = SharedQueue(store, "c/x/", patiently).append(b"1", "key")
        if step < len(came):
            assert (number == came[step]) == bool(key)
        items = [value for _, value in SharedQueue(store, "c/x/").items()]
        assert items.count(b"1") == (2 if not key and step < len(came) else 1), step
        assert SharedQueue(store, "c/x/").append(b"2", "key") == number
        SharedQueue(store, "c/x/").clear()


def test_an_append_whose_answer_was_lost_is_found_again(store: Store) -> None:
    lost = 0

    def patiently(call: Callable[[], T], /) -> T:
        """Every answer is lost once."""
        nonlocal lost
        lost += 1
        call()
        return call()

    shared = SharedQueue(store, "c/x/", patiently)
    assert [shared.append(b"1"), shared.append(b"2", "key"), shared.append(b"2", "key"), shared.append(b"1")] == [
        0, 1, 1, 2,
    ]  # fmt: skip
    assert [value for _, value in shared.items()] == [b"1", b"2", b"1"]
    assert lost > 6


@pytest.mark.usefixtures("small_pages")
def test_a_shared_queue_that_was_cleared_begins_anew_and_knows_no_key(store: Store) -> None:
    shared = SharedQueue(store, "c/x/")
    for number in range(7):
        shared.append(b"%d" % number, f"key {number % 5}")
    assert [number for number, _ in shared.items(after=1)] == [2, 3, 4]
    assert shared.get(9) is None
    shared.clear()
    assert (len(shared), list(shared.items()), shared.append(b"5", "key 1")) == (0, [], 0)


@pytest.mark.parametrize("text", ["x", "é", '\\"', "%"], ids=["letters", "two bytes", "quotes", "percent signs"])
def test_a_value_as_big_as_it_may_be_fits_every_store(store: Store, text: str) -> None:
    value = b'"' + text.encode() * ((limits.VALUE_MAX - 2) // len(text.encode())) + b'"'
    assert SharedQueue(store, "c/x/q/").append(value, "key") == 0
    assert SharedQueue(store, "c/x/q/").get(0) == value
    SharedTree(store, "c/x/t/").put(value, "a")
    assert SharedTree(store, "c/x/t/").get("a") == value


def test_a_queue_without_numbers_left_says_so(store: Store) -> None:
    Queue(store, "c/x/items/").put(NUMBER_MAX, b'{"id":"x","value":1}')
    for key in ("", "key"):
        with pytest.raises(ValueRefused, match="is full"):
            SharedQueue(store, "c/x/").append(b"1", key)


@pytest.mark.usefixtures("small_pages")
def test_a_node_that_many_share_may_have_data_and_children(store: Store) -> None:
    shared = SharedTree(store, "c/x/")
    for names in ((), *((name,) for name in NAMES), *((name, below) for name in NAMES for below in NAMES)):
        shared.put("/".join(names).encode(), *names)
    assert sorted(shared.children()) == sorted(shared.at("a/b").children()) == sorted(NAMES)
    order = list(shared.children())
    assert [list(shared.children(after=name)) for name in order] == [order[at + 1 :] for at in range(len(order))]
    walked = list(shared.walk())
    expected: dict[tuple[str, ...], bytes] = {
        (): b"",
        **{(name,): name.encode() for name in NAMES},
        **{(name, below): f"{name}/{below}".encode() for name in NAMES for below in NAMES},
    }
    assert dict(walked) == expected
    assert list(shared.walk(after=(), at_once=2)) == walked[1:]
    assert list(shared.walk(after=walked[50][0])) == walked[51:]
    assert (shared.get(), shared.get("a"), shared.at("a").get("a-b"), shared.get("b")) == (b"", b"a", b"a/a-b", None)


def test_a_node_goes_with_all_below_it_and_nothing_beside(store: Store) -> None:
    shared = SharedTree(store, "c/x/")
    for names in (("a",), ("a", "b"), ("a", "b", "c"), ("a", "bc"), ("ab",)):
        shared.put(b"1", *names)
    shared.remove("a", "b")
    assert [names for names, _ in shared.walk()] == [("a",), ("a", "bc"), ("ab",)]
    shared.remove("a")
    shared.remove("a")
    assert [names for names, _ in shared.walk()] == [("ab",)]
    shared.remove()
    assert (len(shared), list(shared.children())) == (0, [])


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
