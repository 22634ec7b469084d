"""Entities: the model's structs in the store, one key each, typed.

Reading is one get; every write says what must be there before, so that nobody overwrites what he has not seen.
Repeating a write after an unknown outcome may therefore be refused by one's own entry; callers look then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec

from mr import codec
from mr.collections.pages import entries
from mr.errors import AlreadyExists, MrError, NotFound, VersionConflict
from mr.model import names
from mr.ports.store import Absent, At, Delete, Entry, Put, Store, Transaction

T = TypeVar("T")


class Stored(msgspec.Struct, Generic[T], frozen=True):
    """A value and the version under which it may be replaced or deleted."""

    value: T
    version: int


class Entities(Generic[T]):
    """The entities of one noun.

    `key` makes the store's key from the names (workflow, or workflow and name); `unknown` is raised by `get`.
    Every method raises InvalidName for a name that nothing can have.
    """

    def __init__(
        self, store: Store, noun: str, kind: type[T], key: Callable[..., str], unknown: type[MrError] = NotFound
    ) -> None:
        self._store = store
        self._noun = noun
        self._kind = kind
        self._key = key
        self._unknown = unknown

    def key(self, *path: str) -> str:
        """The key in the store."""
        return self._key(
            *[names.check("workflow" if place == 0 else self._noun, name) for place, name in enumerate(path)]
        )

    def find(self, *path: str) -> Stored[T] | None:
        """The entity and its version, or None.

        Raises: CorruptEntry if the entry is no such entity.
        """
        entry = self._store.get(self.key(*path))
        return None if entry is None else Stored(self._decode(entry), entry.version)

    def get(self, *path: str) -> T:
        """The entity.

        Raises: the noun's own error if there is none.
        """
        found = self.find(*path)
        if found is None:
            raise self.missing(*path)
        return found.value

    def missing(self, *path: str) -> MrError:
        """The error for an entity that does not exist."""
        place = f"workflow {path[0]!r} has no {self._noun} {path[1]!r}" if len(path) > 1 else ""
        return self._unknown(place or f"there is no {self._noun} {path[0]!r}")

    def list(self, prefix: str) -> Iterator[tuple[str, T]]:
        """Names and entities below a prefix, in the order of their keys, read in pages."""
        for entry in entries(self._store, prefix):
            yield entry.key[len(prefix) :], self._decode(entry)

    def create(self, value: T, *path: str) -> int:
        """Store a new entity and give its version.

        Raises: AlreadyExists.
        """
        key = self.key(*path)
        outcome = self._store.commit(Transaction(conditions=[Absent(key)], operations=[Put(key, codec.encode(value))]))
        if not outcome.succeeded:
            raise AlreadyExists(f"{self._noun} {'/'.join(path)!r} exists already")
        return outcome.revision

    def replace(self, value: T, version: int, *path: str) -> int:
        """Store the entity if it still has the version, and give the new one.

        Raises: VersionConflict if it changed; NotFound if it is gone.
        """
        key = self.key(*path)
        return self._change(
            Transaction(conditions=[At(key, version)], operations=[Put(key, codec.encode(value))], reads=[key]), *path
        )

    def delete(self, version: int, *path: str) -> None:
        """Remove the entity if it still has the version.

        Raises: VersionConflict if it changed; NotFound if it is gone.
        """
        key = self.key(*path)
        self._change(Transaction(conditions=[At(key, version)], operations=[Delete(key)], reads=[key]), *path)

    def _change(self, transaction: Transaction, *path: str) -> int:
        outcome = self._store.commit(transaction)
        if outcome.succeeded:
            return outcome.revision
        if outcome.entries.get(self.key(*path)) is None:
            raise NotFound(f"{self._noun} {'/'.join(path)!r} does not exist")
        raise VersionConflict(f"{self._noun} {'/'.join(path)!r} was changed by somebody else")

    def _decode(self, entry: Entry) -> T:
        return codec.decode(entry.value, self._kind, where=entry.key)
