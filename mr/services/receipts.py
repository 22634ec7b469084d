"""Receipts: where due work was published, noted late and in bulk.

They spare the sweeper from publishing a second time what is only waiting. A short request never has one: they
are written a second after publishing, and only while the request's fence stands. Losing them costs a repeat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from threading import Lock

import msgspec

from mr import codec
from mr.clock import Clock, stamp
from mr.model.invocation import Receipt
from mr.ports.broker import Publisher
from mr.ports.store import Equals, Put, Store, Transaction

WRITE_AFTER_S = 1.0


class _Note(msgspec.Struct, frozen=True):
    at: float
    fence: tuple[str, bytes]
    keys: list[str]
    receipt: Receipt


class Receipts:
    """Collects in memory, writes on `flush`. Safe to call from several threads."""

    def __init__(self, store: Store, publisher: Publisher, clock: Clock) -> None:
        self._store, self._publisher, self._clock = store, publisher, clock
        self._instances: Mapping[str, str] = {}
        self._notes: deque[_Note] = deque()
        self._lock = Lock()

    def published(self, fence: tuple[str, bytes], keys: list[str], broker: str) -> None:
        """Messages went to an instance of the broker.

        The start of the instance is that seen last: if it was started anew since, a repeat too many is the price.
        """
        if broker not in self._instances:
            self._instances = self._publisher.instances()
        started = self._instances.get(broker, "")
        receipt = Receipt(at=stamp(self._clock.now()), broker=broker, started=started)
        with self._lock:
            self._notes.append(_Note(self._clock.monotonic(), fence, keys, receipt))

    def held(self, fence: tuple[str, bytes], keys: list[str], worker: str) -> None:
        """A worker keeps running what its message, finished now, had asked for."""
        receipt = Receipt(at=stamp(self._clock.now()), worker=worker)
        self._write([_Note(0.0, fence, keys, receipt)])

    def again(self, fence: tuple[str, bytes], keys: list[str], broker: str, started: str) -> None:
        """Messages went out once more, to an instance that was started at `started`, or later.

        Raises: StoreUnavailable; a repeat too many is the price.
        """
        receipt = Receipt(at=stamp(self._clock.now()), broker=broker, started=started)
        self._write([_Note(0.0, fence, keys, receipt)])

    def flush(self, *, older_s: float = WRITE_AFTER_S) -> None:
        """Write what is older than that; with 0 everything, as a process does before it ends.

        Raises: StoreUnavailable; what was not written is forgotten, at the price of a repeat.
        """
        before = self._clock.monotonic() - older_s
        if self._notes:
            self._instances = self._publisher.instances()
        due: list[_Note] = []
        with self._lock:
            while self._notes and self._notes[0].at <= before:
                due.append(self._notes.popleft())
        self._write(due)

    def _write(self, notes: list[_Note]) -> None:
        by_fence: dict[tuple[str, bytes], dict[str, bytes]] = {}
        for note in notes:
            by_fence.setdefault(note.fence, {}).update(dict.fromkeys(note.keys, codec.encode(note.receipt)))
        for (key, value), puts in by_fence.items():
            items = list(puts.items())
            at_once = self._store.limits.operations // 2
            for start in range(0, len(items), at_once):
                batch = items[start : start + at_once]
                if not self._store.abilities.transactions:
                    self._write_singly(key, value, batch)
                elif not self._store.commit(
                    Transaction(conditions=[Equals(key, value)], operations=[Put(k, v) for k, v in batch])
                ).succeeded:
                    break  # the request is over

    def _write_singly(self, key: str, value: bytes, batch: list[tuple[str, bytes]]) -> None:
        entry = self._store.get(key)
        if entry is not None and entry.value == value:
            for name, receipt in batch:
                self._store.commit(Transaction(operations=[Put(name, receipt)]))
