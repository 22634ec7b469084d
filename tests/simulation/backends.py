"""Simulated store and broker: the ports, kept in memory, at the mercy of the world.

They pass the contract suites in a world without faults (`real_time.py`), so that they promise what real ones do.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mr.errors import BrokerUnavailable, NotFound, StoreUnavailable, ValueRefused, WatchLost
from mr.ports.broker import MESSAGE_MAX_BYTES, Backlog, Delivery, Publication, Publisher
from mr.ports.store import (
    Abilities,
    Absent,
    At,
    Change,
    Entry,
    Equals,
    Lease,
    Limits,
    Outcome,
    Page,
    Put,
    Store,
    Transaction,
    Watch,
)

from .world import Process, World


class SimStore(Store):
    """Linearisable; every call is a switch point before and after. Records what the oracle wants to see."""

    limits = Limits(operations=24, transaction_bytes=60_000, value_bytes=50_000)

    def __init__(self, world: World, *, transactions: bool, broker: SimBroker | None) -> None:
        self.abilities = Abilities(transactions=transactions, carries_messages=broker is not None, lease_ttl_min_s=0.1)
        self._world, self._broker = world, broker
        self.entries: dict[str, Entry] = {}
        self._names: list[str] = []
        self._leases: dict[int, tuple[float, float, set[str]]] = {}
        self._revision = 0
        self._granted = 0
        self._away_until = 0.0
        self._is_closed = False
        self._forgotten = 0
        self.changes: list[Change] = []
        self.observers: list[Any] = []

    def commit(self, transaction: Transaction) -> Outcome:
        self._check(transaction)
        is_write = bool(transaction.operations)
        self._enter("commit" if is_write else "read")
        if is_write:
            if self._world.strikes("unknown_not_applied"):
                raise StoreUnavailable("cut before the store had it", unknown=True)
            if self._world.strikes("unknown_applied_later"):
                self._world.at(self._world.rng.choice((0.01, 0.5, 3.0)), lambda: self._late(transaction))
                raise StoreUnavailable("cut while the store had it", unknown=True)
        outcome = self._apply(transaction)
        if is_write and self._world.strikes("unknown_applied"):
            raise StoreUnavailable("cut after the store had it", unknown=True)
        self._world.step("commit.after" if is_write else "read.after")
        return outcome

    def get(self, key: str) -> Entry | None:
        self._enter("read")
        return self._find(key)

    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        self._enter("read")
        page = self.page(prefix, after, limit)
        if not keys_only:
            return page
        return msgspec.structs.replace(page, entries=[msgspec.structs.replace(e, value=b"") for e in page.entries])

    def page(self, prefix: str, after: str = "", limit: int = 10**9) -> Page:
        self._expire()
        names = self._below(prefix)
        if after:
            names = [name for name in names if name > after]
        return Page(
            entries=[self.entries[name] for name in names[:limit]], revision=self._revision, more=len(names) > limit
        )

    def count(self, prefix: str) -> int:
        self._enter("read")
        self._expire()
        return len(self._below(prefix))

    def delete_prefix(self, prefix: str, *, limit: int = 1000) -> int:
        self._enter("commit")
        self._expire()
        # Small steps give a storm more places to strike.
        names = self._below(prefix)[: min(limit, 3) if self._world.is_faulty else limit]
        for name in names:
            self._remove(name)
        return len(names)

    def watch(self, prefix: str, after_revision: int) -> Watch:
        return SimWatch(self, self._world, prefix, after_revision)

    def revision(self) -> int:
        self._enter("read")
        self._expire()
        return self._revision

    def grant(self, ttl_s: float) -> Lease:
        self._enter("commit")
        self._granted += 1
        lease = Lease(self._granted, max(ttl_s, self.abilities.lease_ttl_min_s))
        self._leases[lease.id] = (self._world.time + lease.ttl_s, lease.ttl_s, set())
        return lease

    def keep(self, lease: Lease) -> bool:
        self._enter("commit")
        self._expire()
        if lease.id not in self._leases:
            return False
        _, ttl_s, names = self._leases[lease.id]
        self._leases[lease.id] = (self._world.time + ttl_s, ttl_s, names)
        return True

    def revoke(self, lease: Lease) -> None:
        self._enter("commit")
        self._end_lease(lease.id)

    def close(self) -> None:
        self._is_closed = True

    def forget(self) -> None:
        """Keep no change from before now, as after a compaction."""
        self._forgotten = self._revision
        self.changes = []

    # -- inside -------------------------------------------------------------------------------------------------

    def _enter(self, kind: str) -> None:
        self._world.step(f"{kind}.before")
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        if self._world.strikes("store_away"):
            self._away_until = self._world.time + self._world.rng.choice((0.1, 1.0, 4.0))
        if self._world.time < self._away_until:
            self._world.step("away", 0.05)
            raise StoreUnavailable("the store is away")

    def _check(self, t: Transaction) -> None:
        keys = [operation.key for operation in t.operations]
        for key in (*keys, *(condition.key for condition in t.conditions), *t.reads):
            _check_key(key)
        if any(isinstance(o, Put) and len(o.value) > self.limits.value_bytes for o in t.operations):
            raise ValueRefused("too big a value")
        if len(set(keys)) < len(keys):
            raise ValueRefused("a key twice")
        size = sum(len(o.key) + (len(o.value) if isinstance(o, Put) else 0) for o in t.operations)
        if max(len(t.conditions), len(keys) + len(t.counts) + len(t.reads)) > self.limits.operations:
            raise ValueRefused("too many operations")
        if size > self.limits.transaction_bytes:
            raise ValueRefused("too many bytes")
        if t.messages and not self.abilities.carries_messages:
            raise ValueRefused("this store carries no messages")
        if not self.abilities.transactions and len({*keys, *(c.key for c in t.conditions)}) > 1:
            raise ValueRefused("one key at a time")

    def _late(self, transaction: Transaction) -> None:
        try:
            self._apply(transaction)
        except NotFound:
            pass

    def _apply(self, t: Transaction) -> Outcome:
        self._expire()
        succeeded = all(self._holds(condition) for condition in t.conditions)
        if succeeded:
            for o in t.operations:
                if isinstance(o, Put) and o.lease is not None and o.lease.id not in self._leases:
                    raise NotFound("lease is gone")
            if t.operations:
                self._revision += 1
            for o in t.operations:
                if isinstance(o, Put):
                    self._write(o)
                else:
                    self._remove(o.key, bump=False)
            if t.messages:
                assert self._broker is not None
                self._broker.take(t.messages)
        return Outcome(
            succeeded=succeeded,
            revision=self._revision,
            counts={prefix: len(self._below(prefix)) for prefix in t.counts},
            entries={key: self._find(key) for key in t.reads},
        )

    def _holds(self, condition: Absent | Equals | At) -> bool:
        entry = self.entries.get(condition.key)
        match condition:
            case Absent():
                return entry is None
            case Equals():
                return entry is not None and entry.value == condition.value
            case At():
                return entry is not None and entry.version == condition.version

    def _write(self, put: Put) -> None:
        old = self.entries.get(put.key)
        entry = Entry(put.key, put.value, self._revision, old.created if old else self._revision)
        if old is None:
            insort(self._names, put.key)
        self.entries[put.key] = entry
        self._free(put.key)
        if put.lease is not None:
            self._leases[put.lease.id][2].add(put.key)
        self.changes.append(Change(put.key, entry, self._revision))
        for observer in self.observers:
            observer(put.key, old, entry)

    def _remove(self, key: str, *, bump: bool = True) -> None:
        old = self.entries.pop(key, None)
        if old is None:
            return
        del self._names[bisect_left(self._names, key)]
        self._free(key)
        if bump:
            self._revision += 1
        self.changes.append(Change(key, None, self._revision))
        for observer in self.observers:
            observer(key, old, None)

    def _free(self, key: str) -> None:
        """Take the key out of the lease that it was put under."""
        for _, _, names in self._leases.values():
            names.discard(key)

    def look(self, prefix: str, after: int) -> list[Change]:
        """Changes for a watch. Raises: WatchLost."""
        self._expire()
        if after < self._forgotten:
            raise WatchLost(f"wants what came after {after}, and all up to {self._forgotten} is forgotten")
        return [c for c in self.changes if c.revision > after and c.key.startswith(prefix)]

    def _find(self, key: str) -> Entry | None:
        self._expire()
        return self.entries.get(key)

    def _below(self, prefix: str) -> list[str]:
        start = bisect_left(self._names, prefix)
        found = []
        for name in self._names[start:]:
            if not name.startswith(prefix):
                break
            found.append(name)
        return found

    def _expire(self) -> None:
        for id_, (at, _, _) in list(self._leases.items()):
            if at < self._world.time:
                self._end_lease(id_)

    def _end_lease(self, id_: int) -> None:
        for key in sorted(self._leases.pop(id_, (0.0, 0.0, set()))[2]):
            self._remove(key)


def _check_key(key: str) -> None:
    try:
        if not key.encode():
            raise ValueRefused("a key must not be empty")
    except UnicodeEncodeError as error:
        raise ValueRefused("a key must be text") from error


class SimWatch(Watch):
    """Changes from the store's whole history; late, as a watch may be."""

    def __init__(self, store: SimStore, world: World, prefix: str, after: int) -> None:
        self._store, self._world, self._prefix, self._after = store, world, prefix, after
        self._is_closed = False

    def next(self, timeout_s: float) -> list[Change]:
        deadline = self._world.time + timeout_s
        while not self._is_closed:
            self._world.step("watch", 0.01)
            found = self._store.look(self._prefix, self._after)
            if found:
                self._after = found[-1].revision
                return found
            if self._world.time >= deadline:
                break
        return []

    def close(self) -> None:
        self._is_closed = True


class _Held:
    def __init__(self, publication: Publication, visible_at: float) -> None:
        self.topic, self.body = publication.topic, publication.body
        self.visible_at = visible_at
        self.attempts = 0
        self.owner: Process | None = None
        self.taken_at = 0.0


class SimDelivery(Delivery):
    """One delivery; finishing it late, after it timed out, does nothing."""

    def __init__(self, broker: SimBroker, held: _Held) -> None:
        self._broker, self._held = broker, held
        self.topic, self.body, self.attempts = held.topic, held.body, held.attempts

    @property
    def is_live(self) -> bool:
        """Whether the broker still waits for the answer to this very delivery."""
        held = self._held
        return held.attempts == self.attempts and held.owner is not None and held in self._broker.held

    def finish(self) -> None:
        self._broker.world.step("finish.before")
        if self.is_live:
            self._broker.held.remove(self._held)
        self._broker.world.step("finish.after")

    def requeue(self, delay_s: float = 0.0) -> None:
        if self.is_live:
            self._held.owner = None
            self._held.visible_at = self._broker.world.time + delay_s

    def touch(self) -> None:
        if self.is_live:
            self._held.taken_at = self._broker.world.time


class SimBroker(Publisher):
    """Messages in any order; lost, doubled, late, wiped. A dead consumer's come back after their time."""

    TIMEOUT_S = 3.0

    def __init__(self, world: World, *, joins_commit: bool) -> None:
        self.world = world
        self.joins_commit = joins_commit
        self.held: list[_Held] = []
        self._lives = 1

    def publish(self, publications: Sequence[Publication]) -> str:
        for publication in publications:
            if not 0 < len(publication.body) <= MESSAGE_MAX_BYTES:
                raise ValueRefused("a body must have 1 to 1,000,000 bytes")
        self.world.step("publish.before")
        if self.world.strikes("loss"):
            raise BrokerUnavailable("the broker is away")
        self.take([p for p in publications if self.joins_commit or not self.world.strikes("loss")])
        self.world.step("publish.after")
        return "sim"

    def take(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            copies = 2 if self.world.strikes("duplicate") else 1
            for _ in range(copies):
                delay = publication.delay_s
                if self.world.strikes("delay"):
                    delay += self.world.rng.choice((0.05, 1.0, 8.0, 30.0))
                self.held.append(_Held(publication, self.world.time + delay))

    def backlog(self, topics: Sequence[str]) -> Mapping[str, Backlog]:
        self.world.step("backlog")
        self._come_back()
        found = {}
        for topic in topics:
            mine = [held for held in self.held if held.topic == topic]
            flying = sum(held.owner is not None for held in mine)
            delayed = sum(held.owner is None and held.visible_at > self.world.time for held in mine)
            found[topic] = Backlog(waiting=len(mine) - flying - delayed, in_flight=flying, delayed=delayed)
        return found

    def topics(self) -> Sequence[str]:
        return sorted({held.topic for held in self.held})

    def instances(self) -> Mapping[str, str]:
        return {"sim": str(self._lives)}

    def close(self) -> None:
        pass

    def wipe(self) -> None:
        """The broker dies with all its messages and starts anew."""
        self.held = []
        self._lives += 1

    def receive(self, process: Process, topics: Sequence[str]) -> SimDelivery | None:
        """A message for a consumer, any that is visible."""
        self.world.step("take")
        if self.world.strikes("wipe"):
            self.wipe()
        self._come_back()
        now = self.world.time
        ready = [h for h in self.held if h.owner is None and h.visible_at <= now and h.topic in topics]
        if not ready:
            return None
        held = self.world.rng.choice(ready)
        if held is not ready[0]:
            self.world.hits["reorder"] += 1
        held.owner, held.taken_at = process, now
        held.attempts += 1
        return SimDelivery(self, held)

    def _come_back(self) -> None:
        now = self.world.time
        for held in self.held:
            owner = held.owner
            if owner is None:
                continue
            # A live process touches what it has; a dead or a stopped one does not.
            if owner.is_alive and owner.stopped_until <= now:
                held.taken_at = now
            elif now - held.taken_at > self.TIMEOUT_S:
                held.owner = None
                held.visible_at = now
