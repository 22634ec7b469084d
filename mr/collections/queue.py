"""The queue collection: documents in an order, each under its number below a prefix.

    <prefix>00000000   first
    <prefix>00000001   second

Who numbers what he writes, as an execution does with its chunks, puts: a repeat writes the same again. Those who share
a queue append: who loses the race for a number takes the next one, and nothing is ever overwritten. Items are not taken
out one by one; a queue goes as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.collections.pages import entries
from mr.ports.store import Absent, Put, Store, Transaction
from mr.rules import keys


class Queue:
    """The queue below a prefix, which ends in a slash. All methods raise StoreUnavailable."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self.prefix = store, prefix

    def key(self, number: int) -> str:
        """Where the item stands, for who writes it together with other things."""
        return keys.item(self.prefix, number)

    def get(self, number: int) -> bytes | None:
        """One item; None if it is not there, or not any more."""
        entry = self._store.get(self.key(number))
        return entry.value if entry is not None else None

    def put(self, number: int, value: bytes) -> None:
        """Write an item under a number of one's own."""
        self._store.commit(Transaction(operations=[Put(self.key(number), value)]))

    def append(self, value: bytes) -> int:
        """Write an item behind all others; its number.

        Guarantee: an item has its number to itself. After StoreUnavailable with `unknown` set it may stand there.
        """
        number = len(self)
        while True:
            key = self.key(number)
            if self._store.commit(Transaction(conditions=[Absent(key)], operations=[Put(key, value)])).succeeded:
                return number
            number += 1  # somebody else was quicker

    def items(self, *, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """Numbers and items in order, those behind the number `after`, read in pages."""
        start = self.key(after) if after >= 0 else ""
        for entry in entries(self._store, self.prefix, after=start):
            yield int(entry.key[len(self.prefix) :]), entry.value

    def clear(self) -> None:
        """Take all items out."""
        while self._store.delete_prefix(self.prefix):
            pass

    def __len__(self) -> int:
        return self._store.count(self.prefix)
