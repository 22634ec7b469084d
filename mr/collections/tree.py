"""The tree collection: nodes with names of any text, each with data or with children, below a prefix.

    <prefix>0.17/w1.5/colour    the data of the node ("0.17", "w1.5", "colour")

Names are percent-encoded, so a name may hold slashes and be no path. A node has data or children, never both: not every
store has room for a key beside others that go on from it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.collections.pages import PAGE, entries, remove_all
from mr.ports.store import Put, Store, Transaction
from mr.rules import keys

_BEHIND = "\x7f"
"""Sorts behind every character of an encoded name."""


class Tree:
    """The tree below a prefix, which ends in a slash. All methods raise StoreUnavailable."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self.prefix = store, prefix

    def at(self, *names: str) -> Tree:
        """The part of the tree below a node."""
        return Tree(self._store, f"{self.key(*names)}/")

    def key(self, *names: str) -> str:
        """Where the data of a node stands, for who writes it together with other things."""
        return self.prefix + "/".join(map(keys.encoded, names))

    def get(self, *names: str) -> bytes | None:
        """The data of a node; None if it has none."""
        entry = self._store.get(self.key(*names))
        return entry.value if entry is not None else None

    def put(self, value: bytes, *names: str) -> None:
        """Give a node its data."""
        self._store.commit(Transaction(operations=[Put(self.key(*names), value)]))

    def children(self, *, after: str | None = None) -> Iterator[str]:
        """Names of the nodes right below, in the order of their keys, read in pages.

        `after`: those behind this one only, which has children itself.
        Of what is further below, a page of keys is read at most; a subtree costs no more for being big.
        """
        behind = "" if after is None else f"{self.key(after)}/{_BEHIND}"
        while True:
            page = self._store.range(self.prefix, after=behind, limit=PAGE, keys_only=True)
            last = None
            for entry in page.entries:
                name, slash, _ = entry.key[len(self.prefix) :].partition("/")
                if name != last:
                    yield keys.decoded(name)
                last = name
                behind = f"{self.prefix}{name}/{_BEHIND}" if slash else entry.key
            if not page.more:
                return

    def walk(
        self, *, after: tuple[str, ...] = (), at_once: int | None = None
    ) -> Iterator[tuple[tuple[str, ...], bytes]]:
        """All nodes with data: their names from here, and the data; those behind `after`, in pages (of `at_once`)."""
        start = self.key(*after) if after else ""
        for entry in entries(self._store, self.prefix, after=start, at_once=at_once):
            parts = entry.key[len(self.prefix) :].split("/")
            yield tuple([keys.decoded(part) for part in parts]), entry.value

    def clear(self) -> None:
        """Remove every node."""
        remove_all(self._store, self.prefix)

    def __len__(self) -> int:
        return self._store.count(self.prefix)
