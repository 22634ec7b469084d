"""House-keeping of a worker: lease and record, receipts, sweeping, cleaning, the store.

Nothing here is needed for a right result; all of it saves work, or brings back what was lost. There are two threads,
because a sweep through ten thousand requests takes longer than the lease lasts that says who lives, and a third where
events are sent, because nobody knows how long their receivers take.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

import mr
from mr import codec
from mr.clock import Clock, stamp
from mr.errors import BrokerUnavailable, NotFound, StoreFull, StoreUnavailable
from mr.model.invocation import WorkerRecord
from mr.ports.store import Absent, Equals, Lease, Put, Store, Transaction
from mr.rules import keys
from mr.services.cleaner import Cleaner
from mr.services.receipts import Receipts
from mr.services.sweeper import Sweeper

_log = logging.getLogger(__name__)

LEASE_S = 2.0
TICK_S = 0.6
PRINTS_S = 3.0
"""The record is written for what handlers print alone only so often."""
SWEEP_S = 1.0
SWEEP_IDLE_S = 5.0
MAINTAIN_S = 60.0


class House:
    """Its threads; `stop` ends them and gives the lease back.

    `maintain` is what the store wants done every minute by the leader, if anything; `writer` names what the worker
    writes results with; `post` sends events.
    """

    def __init__(
        self,
        *,
        name: str,
        store: Store,
        receipts: Receipts,
        sweeper: Sweeper,
        cleaner: Cleaner,
        clock: Clock,
        capabilities: Sequence[str],
        workflows: Callable[[], Sequence[str]],
        serves_all: bool,
        slots: int,
        holds: Callable[[], list[str]],
        printed: Callable[[], dict[str, str]],
        on_fleet: Callable[[int, int], None],
        maintain: Callable[[], None] | None = None,
        writer: str = "",
        post: Callable[[], object] | None = None,
    ) -> None:
        self._name, self._store, self._receipts = name, store, receipts
        self._sweeper, self._cleaner, self._clock = sweeper, cleaner, clock
        self._capabilities, self._workflows, self._slots = list(capabilities), workflows, slots
        self._holds, self._printed = holds, printed
        self._on_fleet, self._maintain, self._writer = on_fleet, maintain, writer
        self._serves_all, self._post = serves_all, post
        self._started_at = stamp(clock.now())
        self._lease: Lease | None = None
        self._noted: WorkerRecord | None = None
        self._is_leader = self._is_postman = False
        self._sweep_at = self._maintain_at = self._prints_at = 0.0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._again_and_again, args=(what,), name=name, daemon=True)
            for name, what in (("lease", self._keep_lease), ("house", self._work), ("post", self._send))
            if what != self._send or post is not None
        ]

    def start(self) -> None:
        """Begin, once the worker is on record."""
        self._tick()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Note what was published last, end, and take the worker off the record."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(5.0)
        self._try(partial(self._receipts.flush, older_s=0.0))
        if self._lease is not None:
            try:
                self._store.revoke(self._lease)
            except (StoreUnavailable, StoreFull):
                _log.info("the lease of worker %s runs out by itself", self._name)

    def _again_and_again(self, what: Callable[[], None]) -> None:
        while not self._stopping.wait(TICK_S):
            self._try(what)

    def _tick(self) -> None:
        self._try(self._keep_lease)
        self._try(self._work)

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except (StoreUnavailable, StoreFull, BrokerUnavailable) as error:
            _log.info("house-keeping goes on later: %s", error)
        except Exception:  # the thread has to outlive whatever one entry in the store may hold
            _log.exception("house-keeping met something that should not be")

    def _work(self) -> None:
        self._receipts.flush()
        self._sweep()
        self._maintain_store()

    def _keep_lease(self) -> None:
        if self._lease is None or not self._store.keep(self._lease):
            self._lease = self._store.grant(LEASE_S)
            self._noted, self._is_leader, self._is_postman = None, False, False
        record = WorkerRecord(
            host=socket.gethostname(),
            pid=os.getpid(),
            capabilities=self._capabilities,
            workflows=list(self._workflows()),
            slots=self._slots,
            version=mr.__version__,
            started_at=self._started_at,
            holds=self._holds(),
            printed=self._printed(),
            serves_all=self._serves_all,
            writer=self._writer,
        )
        if not self._is_news(record):
            return
        write = Put(keys.worker(self._name), codec.encode(record), self._lease)
        try:
            self._store.commit(Transaction(operations=[write]))
        except NotFound:
            self._lease = None
        else:
            self._noted, self._prints_at = record, self._clock.monotonic() + PRINTS_S

    def _is_news(self, record: WorkerRecord) -> bool:
        """Whether to write it; what handlers print goes along, and is written for itself only now and then."""
        if record == self._noted or self._noted is None:
            return self._noted is None
        if msgspec.structs.replace(record, printed=self._noted.printed) != self._noted:
            return True
        return self._clock.monotonic() >= self._prints_at

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        if now < self._sweep_at or not self._leads():
            return
        fleet = [
            codec.decode(entry.value, WorkerRecord, where=entry.key)
            for entry in self._store.range(keys.WORKERS, limit=10_000).entries
        ]
        self._on_fleet(len(fleet), sum(worker.slots for worker in fleet))
        is_idle = not self._store.range(keys.ACTIVE, limit=1, keys_only=True).entries
        if not is_idle and self._is_leader:
            self._sweeper.sweep()
        removed = self._cleaner.clean() if self._is_leader else 0
        self._sweep_at = now + (SWEEP_IDLE_S if is_idle and not removed else SWEEP_S)

    def _maintain_store(self) -> None:
        now = self._clock.monotonic()
        if self._maintain is not None and self._is_leader and now >= self._maintain_at:
            self._maintain_at = now + MAINTAIN_S
            self._maintain()

    def _send(self) -> None:
        """One of those workers that have somebody to send events to sends them; two are harmless."""
        if self._post is not None and self._lease is not None:
            try:
                self._is_postman = self._sits(keys.POSTMAN, self._is_postman, self._lease)
            except NotFound:
                return  # the lease is over; the other thread asks for a new one
            if self._is_postman:
                self._post()

    def _leads(self) -> bool:
        """Whether it is known who leads; who does not looks at the fleet only. Two leaders are harmless."""
        if self._lease is None:
            return False
        try:
            self._is_leader = self._sits(keys.SWEEPER, self._is_leader, self._lease)
        except NotFound:
            return False  # the lease is over; the other thread asks for a new one
        return True

    def _sits(self, seat: str, has_it: bool, lease: Lease) -> bool:
        """Whether a seat is this worker's, as long as its lease lasts; it is taken if it is free.

        Raises: NotFound if the lease is over.
        """
        value = self._name.encode()
        outcome = self._store.commit(
            Transaction(conditions=[Absent(seat)], operations=[Put(seat, value, lease)], reads=[seat])
            if not has_it
            else Transaction(conditions=[Equals(seat, value)], reads=[seat])
        )
        entry = outcome.entries[seat]
        return entry is not None and entry.value == value
