"""A tree that many write to: every node may have data, and children beside it.

    <prefix>0.17/colour/         the data of the node ("0.17", "colour"): that of its child without a name
    <prefix>0.17/colour/red/     the data of the node ("0.17", "colour", "red")

On a store where what is a key cannot be the directory of others, those who write to one tree would refuse each other
otherwise, each by where the other was first. Who writes last to a node has written its data; a repeat changes nothing
that nobody else has changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.collections.tree import Tree
from mr.ports.store import Store

_DATA = ""
"""The name under which a node has its data; no node is called so."""


class SharedTree:
    """The tree below a prefix, which ends in a slash. Names are not empty. All methods raise StoreUnavailable."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._tree = store, Tree(store, prefix)
        self.prefix = prefix

    def at(self, *names: str) -> SharedTree:
        """The part of the tree from a node on."""
        return SharedTree(self._store, self._tree.at(*names).prefix if names else self.prefix)

    def get(self, *names: str) -> bytes | None:
        """The data of a node; None if it has none."""
        return self._tree.get(*names, _DATA)

    def put(self, value: bytes, *names: str) -> None:
        """Give a node its data."""
        self._tree.put(value, *names, _DATA)

    def children(self, *, after: str | None = None) -> Iterator[str]:
        """Names of the nodes right below, in the order of their keys; those behind `after` only."""
        return (name for name in self._tree.children(after=after) if name != _DATA)

    def walk(
        self, *, after: tuple[str, ...] | None = None, at_once: int | None = None
    ) -> Iterator[tuple[tuple[str, ...], bytes]]:
        """All nodes with data, this one too: their names from here, and the data; those behind `after` only."""
        start = () if after is None else (*after, _DATA)
        for names, value in self._tree.walk(after=start, at_once=at_once):
            yield names[:-1], value

    def remove(self, *names: str) -> None:
        """Remove a node, with all that is below it."""
        self.at(*names)._tree.clear()

    def __len__(self) -> int:
        return len(self._tree)
