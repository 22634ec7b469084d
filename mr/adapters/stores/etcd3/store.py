"""Store on etcd v3, by gRPC where it can be had, and through etcd's JSON gateway.

One call is one round trip: a commit is one transaction of etcd, with its counts and reads inside. etcd answers every
read linearisably. From the top down:

    store        what the port asks                    watch       changes, over any cut
    cluster      which endpoint, login, asking again   condition   how the members are
    endpoint     gRPC or the gateway                   refusals    what failures mean
    methods      each call in the words of both        messages    what is asked and answered
    grpc         sockets over `http2` and `hpack`      protobuf    its words
    http         the gateway's sockets                 json        its words

The hard parts are etcd's limits (128 operations a branch, about 1.5 MB, no key twice), which are checked before
anything is sent; and its quota: when the file is full it refuses puts and leases but still deletes, and space comes
back only after `compact`, which `Maintenance` does, and `reclaim`, which nobody does by default.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from mr.adapters.stores.etcd3 import methods
from mr.adapters.stores.etcd3.cluster import Cluster
from mr.adapters.stores.etcd3.condition import conditions
from mr.adapters.stores.etcd3.messages import NO_KEY, RangeAnswer, Span, TransactionAnswer, check, key_bytes, span
from mr.adapters.stores.etcd3.watch import Etcd3Watch
from mr.addresses import Tls
from mr.errors import NotFound
from mr.model.condition import Condition
from mr.ports.store import Abilities, Entry, Lease, Limits, Outcome, Page, Store, Transaction, Watch

A = TypeVar("A")

# Compacting a million revisions or rewriting a file of some GiB takes its time; etcd answers when it is done.
HOUSEKEEPING_TIMEOUT_S = 120.0

KEEP_S = 300.0
"""A watch that was cut off for less finds everything it missed."""


class EtcdStatus(msgspec.Struct, frozen=True):
    """Version of the server, size of its file, and how much of it is in use (the rest waits for `reclaim`)."""

    version: str
    size_bytes: int
    in_use_bytes: int


class Etcd3Store(Store):
    """Entries in an etcd v3 cluster.

    `endpoints` are `host:port`; any of them serves, the next is tried when one fails. Connections are opened when
    first needed, by each process for itself. A write waits `timeout_s` at most, a read that for each endpoint.
    Without `grpc`, and over TLS, only the gateway is asked.
    """

    abilities = Abilities(transactions=True, carries_messages=False, lease_ttl_min_s=1.0)
    limits = Limits()

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str = "",
        password: str = "",
        timeout_s: float = 2.0,
        grpc: bool = True,
        tls: Tls | None = None,
    ) -> None:
        self._cluster = Cluster(
            endpoints, username=username, password=password, timeout_s=timeout_s, grpc=grpc, tls=tls
        )
        self._timeout_s = timeout_s

    def commit(self, transaction: Transaction) -> Outcome:
        check(transaction, self.limits)
        writes = bool(transaction.operations)
        answer = self._cluster.call(methods.TRANSACTION, transaction, writes=writes, repeats=not writes)
        counts: dict[str, int] = {}
        entries: dict[str, Entry | None] = {}
        skipped = len(transaction.operations) if answer.succeeded else 0
        for number, prefix in enumerate(transaction.counts, skipped):
            counts[prefix] = _range_of(answer, number).count
        for number, key in enumerate(transaction.reads, skipped + len(transaction.counts)):
            kvs = _range_of(answer, number).kvs
            entries[key] = kvs[0].entry() if kvs else None
        return Outcome(succeeded=answer.succeeded, revision=answer.header.revision, counts=counts, entries=entries)

    def get(self, key: str) -> Entry | None:
        kvs = self._range(Span(key_bytes(key))).kvs
        return kvs[0].entry() if kvs else None

    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        first, end = span(prefix)
        if after:
            first = max(first, key_bytes(after) + b"\0")
        answer = self._range(Span(first, end, limit=limit, keys_only=keys_only))
        return Page(entries=[kv.entry() for kv in answer.kvs], revision=answer.header.revision, more=answer.more)

    def count(self, prefix: str) -> int:
        return self._range(Span(*span(prefix), count_only=True)).count

    def delete_prefix(self, prefix: str, *, limit: int = 1000) -> int:
        # Two plain calls instead of one transaction: etcd lets them pass when its quota is used up.
        kvs = self._range(Span(*span(prefix), limit=limit, keys_only=True)).kvs
        if not kvs:
            return 0
        return self._cluster.call(methods.DELETE, Span(kvs[0].key, kvs[-1].key + b"\0"), writes=True).deleted

    def watch(self, prefix: str, after_revision: int) -> Watch:
        return Etcd3Watch(self._cluster, prefix, after_revision, timeout_s=self._timeout_s)

    def revision(self) -> int:
        return self._range(NO_KEY).header.revision

    def grant(self, ttl_s: float) -> Lease:
        # A repeat after a lost answer leaves a lease that nobody uses, until its time is over.
        answer = self._cluster.call(methods.GRANT, max(1, math.ceil(ttl_s)), writes=True)
        return Lease(answer.ID, float(answer.TTL))

    def keep(self, lease: Lease) -> bool:
        return self._cluster.call(methods.KEEP, lease.id, writes=True).TTL > 0

    def revoke(self, lease: Lease) -> None:
        with contextlib.suppress(NotFound):  # It ended before, or a repeat finds its own work done.
            self._cluster.call(methods.REVOKE, lease.id, writes=True)

    def conditions(self) -> list[Condition]:
        return conditions(self._cluster, self._timeout_s)

    def close(self) -> None:
        self._cluster.close()

    def status(self) -> EtcdStatus:
        """What the endpoint that answers says about itself."""
        answer = self._cluster.call(methods.STATUS, {})
        return EtcdStatus(answer.version, answer.db_size, answer.db_size_in_use)

    def compact(self, revision: int, *, waits: bool = True) -> None:
        """Forget what entries were before `revision`. Watches that are further behind end with WatchLost.

        etcd frees the space little by little beside its work; who `waits` returns when that is done. A revision
        already compacted, or not reached yet, is left alone.
        """
        with contextlib.suppress(NotFound):
            self._housekeep(methods.COMPACT, {"revision": revision, "physical": waits})

    def reclaim(self) -> None:
        """Give back the space that compaction freed, and let etcd take writes again after its quota was used up.

        Each member is busy while it rewrites its file: tens of milliseconds for 16 MiB, seconds for gigabytes.
        """
        for number in range(self._cluster.endpoints):
            self._housekeep(methods.DEFRAGMENT, {}, only=number)
        for alarm in self._cluster.call(methods.ALARM, {"action": "GET"}).alarms:
            if alarm.alarm == "NOSPACE":
                lifted = {"action": "DEACTIVATE", "memberID": alarm.memberID, "alarm": "NOSPACE"}
                self._housekeep(methods.ALARM, lifted)

    def _range(self, asked: Span) -> RangeAnswer:
        return self._cluster.call(methods.RANGE, asked)

    def _housekeep(
        self, method: methods.Method[Mapping[str, object], A], asked: Mapping[str, object], only: int | None = None
    ) -> None:
        self._cluster.call(method, asked, writes=True, only=only, timeout_s=HOUSEKEEPING_TIMEOUT_S)


class Maintenance:
    """Compacts etcd to what it was `keep_s` ago; to be called about once a minute, by one process of the cluster.

    A call forgets what one interval wrote, so the steps are small, and waits for no space to be freed. The first
    compaction comes `keep_s` after the first call, for the past before that is not known by time. Where the server
    compacts by itself, or two processes do this, whatever was compacted already is left alone.
    """

    def __init__(self, store: Etcd3Store, *, keep_s: float = KEEP_S) -> None:
        self._store = store
        self._keep_s = keep_s
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self) -> None:
        """Note where etcd stands, and forget what is old enough. Raises: StoreUnavailable; the next call goes on."""
        now = time.monotonic()
        self._seen.append((now, self._store.revision()))
        old = 0
        while self._seen[0][0] < now - self._keep_s:
            old = self._seen.popleft()[1]
        if old:
            self._store.compact(old, waits=False)


def _range_of(answer: TransactionAnswer, number: int) -> RangeAnswer:
    found = answer.responses[number].response_range
    assert found is not None, "counts and reads stand behind the operations"
    return found
