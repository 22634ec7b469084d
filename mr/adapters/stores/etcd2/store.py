"""Store on the v2 API of etcd: one key at a time.

    store    what the port asks            cluster   which endpoint, what failures mean
    leases   by a time to live of keys     watch     one change a question, from a short history
    tree     keys and values as they stand there     condition   how the members are

v2 compares and swaps one key. It has no transactions over several, no counting and no ranges: a directory is read
with all that is below it, values too, and counted here. So a count costs what it counts, and large prefixes are dear.

The hard parts are what v2 forgives: an index of 0 is no condition at all, and a plain write forgets when the key was
created; so every write here says what it expects. And empty directories stay, so whoever removes the last key of one
removes it, too. It is removed only while it is empty, which etcd looks at, so nobody's new key goes with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import etcd

from mr.adapters.stores.etcd2 import tree
from mr.adapters.stores.etcd2.cluster import Cluster
from mr.adapters.stores.etcd2.condition import conditions
from mr.adapters.stores.etcd2.leases import Leases
from mr.adapters.stores.etcd2.watch import Etcd2Watch
from mr.errors import StoreUnavailable, ValueRefused
from mr.model.condition import Condition
from mr.ports.store import (
    Abilities,
    Absent,
    At,
    Delete,
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

# The key is not as it was expected to be; nothing was written.
_CONFLICT = (etcd.EtcdAlreadyExist, etcd.EtcdCompareFailed, etcd.EtcdKeyNotFound)
# A directory stands in the place of the key, or a key in the place of one of its directories.
_IN_THE_WAY = (etcd.EtcdNotFile, etcd.EtcdNotDir)
# There is no such key.
_NOTHING = (etcd.EtcdKeyNotFound, *_IN_THE_WAY)


class Etcd2Store(Store):
    """Entries in an etcd that serves the v2 API.

    `endpoints` are `host:port`; any of them serves, the next is tried when one fails. A write waits `timeout_s` at
    most for each of its steps, a read that for each endpoint.
    """

    abilities = Abilities(transactions=False, keys_nest=False, carries_messages=False, lease_ttl_min_s=1.0)
    limits = Limits()

    def __init__(
        self, endpoints: Sequence[str], *, username: str = "", password: str = "", timeout_s: float = 2.0
    ) -> None:
        self._cluster = Cluster(endpoints, username=username, password=password, timeout_s=timeout_s)
        self._leases = Leases()

    def commit(self, transaction: Transaction) -> Outcome:
        """Also raises ValueRefused where a key would have to stand in the place of a directory, or below a key."""
        _check(transaction, self.limits)
        operation = transaction.operations[0] if transaction.operations else None
        if isinstance(operation, Put) and operation.lease is not None:
            self._leases.check(operation.lease, operation.key)
        try:
            succeeded, revision = self._decide(transaction.conditions, operation)
        except _IN_THE_WAY as error:
            raise ValueRefused(
                f"etcd v2 has no room for the key {operation.key if operation else ''!r} beside those that are there: "
                f"what is a key cannot be the directory of others ({error})"
            ) from error
        if succeeded and isinstance(operation, Put):
            self._leases.enter(operation.lease, operation.key, operation.value)
        counts: dict[str, int] = {}
        entries: dict[str, Entry | None] = {}
        for prefix in transaction.counts:
            nodes, revision = self._below(prefix)
            counts[prefix] = len(nodes)
        for key in transaction.reads:
            entries[key], revision = self._read(key)
        return Outcome(succeeded=succeeded, revision=revision, counts=counts, entries=entries)

    def get(self, key: str) -> Entry | None:
        return self._read(key)[0]

    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        nodes, revision = self._below(prefix)
        names = sorted(name for name in nodes if name > after)
        entries = [tree.entry_of(nodes[name]) for name in names[:limit]]
        if keys_only:
            entries = [Entry(entry.key, b"", entry.version, entry.created) for entry in entries]
        return Page(entries=entries, revision=revision, more=len(names) > limit)

    def count(self, prefix: str) -> int:
        return len(self._below(prefix)[0])

    def delete_prefix(self, prefix: str, *, limit: int = 1000) -> int:
        names = sorted(self._below(prefix)[0])[:limit]
        for name in names:
            with contextlib.suppress(*_NOTHING):
                self._remove(tree.path(name))
        self._prune(names)
        return len(names)

    def watch(self, prefix: str, after_revision: int) -> Watch:
        return Etcd2Watch(self._cluster, prefix, after_revision)

    def revision(self) -> int:
        return int(self._cluster.call(lambda client: client.read("/", quorum=True)).etcd_index)

    def grant(self, ttl_s: float) -> Lease:
        return self._leases.grant(ttl_s)

    def keep(self, lease: Lease) -> bool:
        since = time.monotonic()
        if not self._leases.holds(lease):
            self.revoke(lease)
            return False
        for key, value in self._leases.values(lease).items():
            try:
                self._write(key, None, lease, refresh=True, prevValue=tree.text_of(value))
            except (*_CONFLICT, *_IN_THE_WAY):
                if not self._leases.holds(lease):  # it was over before the question came there
                    self.revoke(lease)
                    return False
                self._leases.drop(lease, key, value)
        self._leases.prolong(lease, since)
        return True

    def revoke(self, lease: Lease) -> None:
        for key, value in self._leases.values(lease).items():
            self.commit(Transaction(conditions=[Equals(key, value)], operations=[Delete(key)]))
        self._leases.end(lease)

    def conditions(self) -> list[Condition]:
        return conditions(self._cluster)

    def close(self) -> None:
        self._cluster.close()

    # -- one key ------------------------------------------------------------------------------------------------

    def _decide(self, conditions: Sequence[Absent | Equals | At], operation: Put | Delete | None) -> tuple[bool, int]:
        """Whether the conditions hold, so that the operation is done; and the revision."""
        if operation is not None and not conditions:
            return True, self._put(operation) if isinstance(operation, Put) else self._delete(operation.key)
        if isinstance(operation, Put) and all(isinstance(one, Absent) for one in conditions):
            try:
                return True, self._write(operation.key, operation.value, operation.lease, prevExist=False)
            except etcd.EtcdAlreadyExist as error:
                if self._is_directory(operation.key):
                    raise etcd.EtcdNotFile(str(error)) from error
                return False, int(error.payload["index"])
        if not conditions:
            return True, self.revision()
        while True:
            entry, revision = self._read(conditions[0].key)
            if not all(_holds(condition, entry) for condition in conditions):
                return False, revision
            if operation is None or entry is None:
                return True, revision
            with contextlib.suppress(*_CONFLICT):  # somebody was faster: look again
                if isinstance(operation, Put):
                    return True, self._write(operation.key, operation.value, operation.lease, prevIndex=entry.version)
                return True, self._delete(operation.key, prevIndex=entry.version)

    def _put(self, put: Put) -> int:
        """Whatever is there; most often nothing."""
        while True:
            with contextlib.suppress(etcd.EtcdAlreadyExist):
                return self._write(put.key, put.value, put.lease, prevExist=False)
            with contextlib.suppress(etcd.EtcdKeyNotFound):
                return self._write(put.key, put.value, put.lease, prevExist=True)

    def _write(self, key: str, value: bytes | None, lease: Lease | None, **expectation: Any) -> int:
        """Write a key if it is as expected, without a value only its time to live; the revision.

        Raises: _CONFLICT; _IN_THE_WAY.
        """
        at, ttl = tree.path(key), int(lease.ttl_s) if lease else None
        text = None if value is None else tree.text_of(value)
        return int(
            self._cluster.call(lambda client: client.write(at, text, ttl=ttl, **expectation), writes=True).modifiedIndex
        )

    def _delete(self, key: str, **expectation: Any) -> int:
        """Remove a key if it is as expected; without an expectation it may be missing. The revision.

        Raises: _CONFLICT, only with an expectation.
        """
        try:
            node = self._remove(tree.path(key), **expectation)
        except _NOTHING as error:
            if expectation:
                raise
            return int(error.payload["index"])
        self._prune([key])
        return int(node.modifiedIndex)

    def _remove(self, at: str, **expectation: Any) -> Any:
        return self._cluster.call(lambda client: client.delete(at, **expectation), writes=True)

    def _prune(self, names: Sequence[str]) -> None:
        """Remove the directories above keys that are gone, as far as nothing else is in them."""
        going = {at for name in names for at in tree.parents(name)}
        for at in sorted(going, key=lambda at: -at.count("/")):
            with contextlib.suppress(etcd.EtcdDirNotEmpty, *_NOTHING, StoreUnavailable):  # an empty one does no harm
                self._remove(at, dir=True)

    def _read(self, key: str) -> tuple[Entry | None, int]:
        at = tree.path(key)
        try:
            node = self._cluster.call(lambda client: client.read(at, quorum=True))
        except _NOTHING as error:
            return None, int(error.payload["index"])
        return None if node.dir else tree.entry_of(node), int(node.etcd_index)

    def _is_directory(self, key: str) -> bool:
        at = tree.path(key)
        with contextlib.suppress(*_NOTHING):
            return bool(self._cluster.call(lambda client: client.read(at, quorum=True)).dir)
        return False

    def _below(self, prefix: str) -> tuple[dict[str, Any], int]:
        """The nodes of all keys that start with prefix, by key, and the revision."""
        at = tree.directory(prefix)
        try:
            top = self._cluster.call(lambda client: client.read(at, quorum=True, recursive=True))
        except _NOTHING as error:
            return {}, int(error.payload["index"])
        named = ((tree.key_of(node.key), node) for node in top.leaves if not node.dir)
        return {key: node for key, node in named if key.startswith(prefix)}, int(top.etcd_index)


def _holds(condition: Absent | Equals | At, entry: Entry | None) -> bool:
    if isinstance(condition, Absent):
        return entry is None
    if isinstance(condition, Equals):
        return entry is not None and entry.value == condition.value
    return entry is not None and entry.version == condition.version


def _check(transaction: Transaction, limits: Limits) -> None:
    """Refuse what concerns more than one key, or is over the limits.

    Raises: ValueRefused.
    """
    concerned = [*transaction.conditions, *transaction.operations]
    for key in [*(one.key for one in concerned), *transaction.reads]:
        tree.path(key)
    if len({one.key for one in concerned}) > 1 or len(transaction.operations) > 1:
        raise ValueRefused("etcd v2 writes one key at a time, and once")
    for operation in transaction.operations:
        if isinstance(operation, Put) and len(operation.value) > limits.value_bytes:
            raise ValueRefused(
                f"the value of {operation.key!r} has {len(operation.value)} bytes; "
                f"at most {limits.value_bytes} are accepted"
            )
    if transaction.messages:
        raise ValueRefused("etcd carries no messages")
