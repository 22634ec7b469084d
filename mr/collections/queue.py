"""The queue collection: documents in an order, each under its number below a prefix.

    <prefix>00000000   first
    <prefix>00000001   second

Who writes numbers what he writes, as an execution does with its chunks: a repeat writes the same again. Those who share
a queue have `shared_queue`. Items are not taken out one by one; a queue goes as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.collections.pages import entries, remove_all
from mr.ports.store import Put, Store, Transaction
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

    def items(self, *, after: int = -1, at_once: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Numbers and items in order, those behind the number `after`, read in pages (of `at_once`)."""
        start = self.key(after) if after >= 0 else ""
        for entry in entries(self._store, self.prefix, after=start, at_once=at_once):
            yield int(entry.key[len(self.prefix) :]), entry.value

    def end(self) -> int:
        """The number behind the last item."""
        number = len(self)
        # If no number is left out, that is it.
        start = self.key(number - 1) if number else ""
        for entry in entries(self._store, self.prefix, after=start, keys_only=True):
            number = int(entry.key[len(self.prefix) :]) + 1
        return number

    def clear(self) -> None:
        """Take all items out."""
        remove_all(self._store, self.prefix)

    def __len__(self) -> int:
        return self._store.count(self.prefix)
