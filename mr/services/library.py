"""Library: handler source by version, and definition sets by hash.

Both are named by their content, so they are written once, never change, and may be kept in memory for ever. That
makes big pushes simple: content goes in first, in as many steps as it takes, and means nothing until the one small
transaction that makes a set the current one. A push that dies half way leaves content that nobody names.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from mr import codec
from mr.errors import DefinitionError, NotFound
from mr.model.definitions import DefinitionSet
from mr.model.handler import Handler
from mr.ports.store import Delete, Limits, Put, Store, Transaction
from mr.rules import keys

T = TypeVar("T")
SETS_KEPT = 256
HANDLERS_KEPT = 1024
# What a key, a version and the frame of an operation may add on the way to a store.
OVERHEAD_BYTES = 64


class Library:
    """Handlers and definition sets of all workflows. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sets: _Kept[DefinitionSet] = _Kept(SETS_KEPT)
        self._handlers: _Kept[Handler] = _Kept(HANDLERS_KEPT)

    def definitions(self, workflow: str, digest: str) -> DefinitionSet:
        """A definition set; do not change what is inside.

        Raises: NotFound if no such set is stored.
        """
        return self._sets.get(
            workflow, digest, lambda: self._read(keys.definition_set(workflow, digest), DefinitionSet)
        )

    def known(self, workflow: str, digest: str) -> DefinitionSet | None:
        """A definition set if it is at hand without asking the store."""
        return self._sets.at_hand(workflow, digest)

    def handler(self, workflow: str, version: str) -> Handler:
        """A handler with its source.

        Raises: NotFound if no such version is stored.
        """
        return self._handlers.get(workflow, version, lambda: self._read(keys.library(workflow, version), Handler))

    def add(self, workflow: str, handlers: Iterable[Handler], definitions: DefinitionSet) -> None:
        """Store content, in steps; a repeat writes the same again.

        Raises: DefinitionError if a handler or the set is too big for the store.
        """
        content = {keys.library(workflow, handler.version): codec.encode(handler) for handler in handlers}
        content[keys.definition_set(workflow, definitions.hash)] = codec.encode(definitions)
        for key, value in content.items():
            if len(value) > self._store.limits.value_bytes:
                raise DefinitionError(
                    f"{key} has {len(value)} bytes; the store takes {self._store.limits.value_bytes}",
                    hint="fewer handlers in one workflow, or a shorter source",
                )
        puts = [Put(key, value) for key, value in content.items()]
        together = self._store.abilities.transactions
        for batch in batches(puts, self._store.limits) if together else ([put] for put in puts):
            self._store.commit(Transaction(operations=batch))

    def _read(self, key: str, kind: type[T]) -> T:
        entry = self._store.get(key)
        if entry is None:
            raise NotFound(f"{key} is not in the store")
        return codec.decode(entry.value, kind, where=key)


class _Kept(Generic[T]):
    """The values used last, by workflow and digest. Two threads may fetch the same value; both get a good one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[tuple[str, str], T] = OrderedDict()
        self._lock = threading.Lock()

    def at_hand(self, workflow: str, digest: str) -> T | None:
        place = (workflow, digest)
        with self._lock:
            if place not in self._values:
                return None
            self._values.move_to_end(place)
            return self._values[place]

    def get(self, workflow: str, digest: str, fetch: Callable[[], T]) -> T:
        found = self.at_hand(workflow, digest)
        if found is not None:
            return found
        value = fetch()
        with self._lock:
            self._values[workflow, digest] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


def batches(operations: Iterable[Put | Delete], limits: Limits) -> Iterator[list[Put | Delete]]:
    """Operations cut, in order, into what single transactions can hold."""
    batch: list[Put | Delete] = []
    size = 0
    for operation in operations:
        added = size_bytes(operation)
        if batch and (len(batch) >= limits.operations or size + added > limits.transaction_bytes):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += added
    if batch:
        yield batch


def size_bytes(operation: Put | Delete) -> int:
    """About how much an operation adds to a transaction."""
    value = operation.value if isinstance(operation, Put) else b""
    return len(operation.key.encode()) + len(value) + OVERHEAD_BYTES
