"""Queues and trees that the handlers of a workflow share, and those who look after them.

    collections/<workflow>/queues/<name>/…      a SharedQueue
    collections/<workflow>/trees/<name>/…       a SharedTree

What a handler asks for is done at once and seen by all; it stays when the invocation fails, and when its request is
gone. Whoever runs it may run again, so each operation bears repetition, but for an append without a key. Everything
that comes from an executor is checked here: handlers may have changed what runs there. The workflow is never theirs to
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import Any, Literal, TypeVar

import msgspec

from mr import codec
from mr.collections.shared_queue import NUMBER_MAX, Patience, SharedQueue, once
from mr.collections.shared_tree import SharedTree
from mr.collections.tree import Tree
from mr.errors import CorruptEntry, ValueRefused
from mr.model import names, operation
from mr.model.operation import Operation
from mr.ports.store import Store
from mr.rules import keys, limits
from mr.services.insisting import insist

T = TypeVar("T")
Kind = Literal["queues", "trees"]
KINDS: tuple[Kind, ...] = ("queues", "trees")

PAGE = 64
"""Values in an answer; each may have limits.VALUE_MAX bytes."""
NAMES_PAGE = 500
PATH_DEPTH_MAX = 32
PATIENCE_S = 10.0


class Answer(msgspec.Struct, frozen=True):
    """JSON documents; `more`: there may be others behind the last."""

    documents: list[bytes] = []
    more: bool = False


class Listed(msgspec.Struct, frozen=True):
    """A collection that is there, and how many items or nodes with data it has."""

    kind: Kind
    name: str
    count: int


class Collections:
    """The collections of all workflows. Safe to call from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def queue(self, w: str, name: str, patiently: Patience = once) -> SharedQueue:
        """One queue, there or not yet. Raises: InvalidName."""
        return SharedQueue(self._store, keys.collections(w, "queues", names.check("queue", name)), patiently)

    def tree(self, w: str, name: str) -> SharedTree:
        """One tree, there or not yet. Raises: InvalidName."""
        return SharedTree(self._store, keys.collections(w, "trees", names.check("tree", name)))

    def listing(self, w: str) -> list[Listed]:
        """All that have anything in them. Raises: StoreUnavailable."""
        return [
            Listed(kind, name, len(self.queue(w, name) if kind == "queues" else self.tree(w, name)))
            for kind, name in self.names(w)
        ]

    def names(self, w: str) -> Iterator[tuple[Kind, str]]:
        """Kinds and names of the same, without counting."""
        for kind in KINDS:
            for name in Tree(self._store, keys.collections(w, kind)).children():
                if names.is_name(name):  # else somebody wrote it by hand
                    yield kind, name

    def remove(self, w: str, kind: Kind, name: str) -> None:
        """Remove one with all that is in it."""
        if kind == "queues":
            self.queue(w, name).clear()
        else:
            self.tree(w, name).remove()

    def perform(self, w: str, asked: Operation, value: bytes, pause: Callable[[float], None]) -> Answer:
        """Do what a handler of the workflow asks for; `value` is JSON where something is written.

        While the store is away it is asked again, for PATIENCE_S. Raises: InvalidName; ValueRefused for a path, key,
        number or value that is none; StoreUnavailable, StoreFull; CorruptEntry; what `pause` raises to give up.
        """
        patiently = _Patient(pause)
        if isinstance(asked, operation.WRITES):
            _check_value(value)
        if isinstance(asked, operation.Append):
            _check_size("the key of an item", asked.key)
            # Sends each of its questions again, not all of it: that could append twice.
            return _numbers(self.queue(w, asked.queue, patiently).append(value, asked.key))
        return patiently(lambda: self._answer(w, asked, value))

    def _answer(self, w: str, asked: Operation, value: bytes) -> Answer:
        match asked:
            case operation.Item(queue=name, number=number):
                return _maybe(self.queue(w, name).get(number) if 0 <= number <= NUMBER_MAX else None)
            case operation.Items(queue=name, after=after):
                _check_number(after)
                return _page(self.queue(w, name).items(after=after, at_once=PAGE))
            case operation.Count(queue=name):
                return _numbers(len(self.queue(w, name)))
            case operation.Clear(queue=name):
                self.queue(w, name).clear()
            case operation.Put(tree=name, path=path):
                self.tree(w, name).put(value, *_path(path))
            case operation.Get(tree=name, path=path):
                return _maybe(self.tree(w, name).get(*_path(path)))
            case operation.Children(tree=name, path=path, after=after_name):
                _path([] if after_name is None else [after_name])
                children = self.tree(w, name).at(*_path(path)).children(after=after_name)
                documents = [codec.encode(child) for child in islice(children, NAMES_PAGE)]
                return Answer(documents, more=len(documents) == NAMES_PAGE)
            case operation.Walk(tree=name, path=path, after=after_path):
                _path([] if after_path is None else after_path)
                return _page(self.tree(w, name).at(*_path(path)).walk(after=after_path, at_once=PAGE))
            case operation.Remove(tree=name, path=path):
                self.tree(w, name).remove(*_path(path))
        return Answer()


class _Patient:
    """Asks again while the store is away, for PATIENCE_S from the first question on."""

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause, self._until = pause, monotonic() + PATIENCE_S

    def __call__(self, call: Callable[[], T], /) -> T:
        return insist(call, self._pause, until=self._until)


def _check_value(value: bytes) -> None:
    if len(value) > limits.VALUE_MAX:
        raise ValueRefused(
            f"a value in a collection has {len(value)} bytes as JSON; one record takes {limits.VALUE_MAX}"
        )
    try:
        codec.decode(value, object)
    except CorruptEntry as error:
        raise ValueRefused(f"a value in a collection is no JSON: {error}") from error


def _check_number(after: int) -> None:
    if not -1 <= after <= NUMBER_MAX:
        raise ValueRefused(f"expected the number of an item, from 0 to {NUMBER_MAX}, or -1, got: {after}")


def _check_size(what: str, name: str | tuple[str, ...]) -> None:
    size = len(codec.dumps(name))
    if size > limits.PATH_MAX:
        raise ValueRefused(f"{what} has {size} bytes as JSON; at most {limits.PATH_MAX} are accepted")


def _path(path: Iterable[str]) -> tuple[str, ...]:
    """The path, if it may be one. Raises: ValueRefused."""
    path = tuple(path)
    _check_size("a path in a tree", path)
    if len(path) > PATH_DEPTH_MAX:
        raise ValueRefused(f"a path in a tree has {len(path)} names; at most {PATH_DEPTH_MAX} are accepted")
    if "" in path:
        raise ValueRefused(f"a path in a tree has an empty name: {list(path)}")
    return path


def _numbers(number: int) -> Answer:
    return Answer([b"%d" % number])


def _maybe(value: bytes | None) -> Answer:
    return Answer([] if value is None else [value])


def _page(found: Iterable[tuple[Any, bytes]]) -> Answer:
    documents = [codec.encode((place, msgspec.Raw(value))) for place, value in islice(found, PAGE)]
    return Answer(documents, more=len(documents) == PAGE)
