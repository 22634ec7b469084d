"""A queue that many append to, any of whom may be repeated.

    <prefix>items/00000042    {"id": …, "value": …}     an item, under its number
    <prefix>keys/day-1        42                        the number of what was appended under a key

The hard part is that a write may come again, or its answer be lost, and that not every store changes two keys at once.
So all of it goes one key at a time. An item is created under the number behind the last; who finds that taken looks
whose item it is, and takes the next number if it is another's. An item with a key has its number entered first. That
entry moves on only when another's item stands under the number, and nothing is taken out of a queue; so wherever its
repeats were cut off, and however many there are at once, all of them create one item.

Numbers go up and none is given twice, until the queue is cleared: it begins anew. Who appends while it is cleared may
come to stand behind a gap, which nothing minds.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import msgspec

from mr import codec
from mr.collections.pages import remove_all
from mr.collections.queue import Queue
from mr.errors import ValueRefused
from mr.ports.store import Absent, At, Entry, Put, Store, Transaction
from mr.rules import keys

T = TypeVar("T")

NUMBER_MAX = 99_999_999
"""What the padding of numbers has room for."""


class Patience(Protocol):
    """Calls, and again while the store is away."""

    def __call__(self, call: Callable[[], T], /) -> T:
        """What the call gives. Raises: what it raises in the end."""


class Item(msgspec.Struct, frozen=True):
    """What stands under a number. `id` is the key of the item, or else drawn for this one call."""

    id: str
    value: msgspec.Raw


def once(call: Callable[[], T]) -> T:
    """No patience."""
    return call()


class SharedQueue:
    """The queue below a prefix, which ends in a slash. Values are JSON. All methods raise StoreUnavailable.

    `patiently` sends a single question again; without it `append` may have been done when it raises, and only what has
    a key may then be appended again.
    """

    def __init__(self, store: Store, prefix: str, patiently: Patience = once) -> None:
        self._store, self.prefix, self._patiently = store, prefix, patiently
        self._items, self._keys = Queue(store, f"{prefix}items/"), f"{prefix}keys/"

    def append(self, value: bytes, key: str = "") -> int:
        """Write an item behind all others; its number. With a key, a repeat finds the first one's item and adds none.

        Raises: ValueRefused if there are no numbers left.
        """
        if key:
            return self._append_under(key, value)
        item = Item(secrets.token_hex(8), msgspec.Raw(value))
        number = self._end()
        while not self._stands(number, item):
            number += 1  # somebody else was quicker
        return number

    def get(self, number: int) -> bytes | None:
        """One item; None if it is not there."""
        found = self._items.get(number)
        return None if found is None else self._value(number, found)

    def items(self, *, after: int = -1, at_once: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Numbers and items in order, those behind the number `after`, read in pages (of `at_once`)."""
        for number, found in self._items.items(after=after, at_once=at_once):
            yield number, self._value(number, found)

    def clear(self) -> None:
        """Take all items out, and forget their keys."""
        remove_all(self._store, self.prefix)

    def __len__(self) -> int:
        return len(self._items)

    def _append_under(self, key: str, value: bytes) -> int:
        item = Item(key, msgspec.Raw(value))
        name = self._keys + keys.encoded(key)
        entered = self._patiently(lambda: self._store.get(name))
        if entered is None:
            entered = self._enter(Absent(name))
        while True:
            number = codec.decode(entered.value, int, where=name)
            if self._stands(number, item):
                return number
            entered = self._enter(At(name, entered.version))

    def _enter(self, condition: Absent | At) -> Entry:
        """Enter the number behind the last item, unless somebody else is quicker; what is entered then."""
        name = condition.key
        put = Put(name, b"%d" % self._end())
        enter = Transaction(conditions=[condition], operations=[put], reads=[name])
        found = self._patiently(lambda: self._store.commit(enter)).entries[name]
        # A queue that is cleared meanwhile has forgotten it.
        return found if found is not None else self._enter(Absent(name))

    def _stands(self, number: int, item: Item) -> bool:
        """Create an item under a number; whether it is the one that stands there now, perhaps since an earlier try."""
        if number > NUMBER_MAX:
            raise ValueRefused(f"the queue {self.prefix} is full: it has an item {NUMBER_MAX}; clear it")
        key = self._items.key(number)
        create = Transaction(conditions=[Absent(key)], operations=[Put(key, codec.encode(item))], reads=[key])
        outcome = self._patiently(lambda: self._store.commit(create))
        found = outcome.entries[key]
        return outcome.succeeded or (found is not None and self._item(number, found.value).id == item.id)

    def _end(self) -> int:
        return self._patiently(self._items.end)

    def _item(self, number: int, found: bytes) -> Item:
        return codec.decode(found, Item, where=self._items.key(number))

    def _value(self, number: int, found: bytes) -> bytes:
        return bytes(self._item(number, found).value)
