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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import etcd

from mr.adapters.stores.etcd2 import tree
from mr.adapters.stores.etcd2.cluster import Cluster
from mr.adapters.stores.etcd2.condition import conditions
from mr.adapters.stores.etcd2.leases import Leases
from mr.adapters.stores.etcd2.watch import Etcd2Watch
from mr.addresses import Tls
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

DELETES_AT_ONCE = 8
"""One at a time, each waits for the disk; together they wait for it once."""


class Etcd2Store(Store):
    """Entries in an etcd that serves the v2 API.

    `endpoints` are `host:port`; any of them serves, the next is tried when one fails. A write waits `timeout_s` at
    most for each of its steps, a read that for each endpoint.
    """

    abilities = Abilities(transactions=False, keys_nest=False, carries_messages=False, lease_ttl_min_s=1.0)
    limits = Limits()

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str = "",
        password: str = "",
        timeout_s: float = 2.0,
        tls: Tls | None = None,
    ) -> None:
        self._cluster = Cluster(endpoints, username=username, password=password, timeout_s=timeout_s, tls=tls)
        self._leases = Leases()

    def commit(self, transaction: Transaction) -> Outcome:
        """Also raises ValueRefused where a key would have to stand in the place of a directory, or below a key."""
        _check(transaction, self.limits)
        operation = transaction.operations[0] if transaction.operations else None
        if isinstance(operation, Put) and operation.lease is not None:
            self._leases.check(operation.lease, operation.key)
        try:
            succeeded, revision, written = self._decide(transaction.conditions, operation)
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
            if written is not None and written.key == key:  # no need to ask
                entries[key] = written
            else:
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
        paths = [tree.path(name) for name in sorted(self._below(prefix)[0])[:limit]]
        self._each(self._remove, paths)
        self._prune(paths)
        return len(paths)

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
                self._refresh(tree.path(key), tree.text_of(value), int(lease.ttl_s))
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

    def _decide(
        self, conditions: Sequence[Absent | Equals | At], operation: Put | Delete | None
    ) -> tuple[bool, int, Entry | None]:
        """Whether the conditions hold, so that the operation is done; the revision; and what was written, if so."""
        if isinstance(operation, Put) and all(isinstance(one, Absent) for one in conditions):
            try:
                entry = self._write(operation, prevExist=False) if conditions else self._put(operation)
            except etcd.EtcdAlreadyExist as error:
                if self._is_directory(operation.key):
                    raise etcd.EtcdNotFile(str(error)) from error
                return False, int(error.payload["index"]), None
            return True, entry.version, entry
        if not conditions:
            return True, self.revision() if operation is None else self._delete(operation.key), None
        while True:
            found, revision = self._read(conditions[0].key)
            if not all(_holds(condition, found) for condition in conditions):
                return False, revision, None
            if operation is None or found is None:
                return True, revision, None
            with contextlib.suppress(*_CONFLICT):  # somebody was faster: look again
                if isinstance(operation, Delete):
                    return True, self._delete(operation.key, prevIndex=found.version), None
                entry = self._write(operation, prevIndex=found.version)
                return True, entry.version, entry

    def _put(self, put: Put) -> Entry:
        """Whatever is there; most often nothing."""
        while True:
            with contextlib.suppress(etcd.EtcdAlreadyExist):
                return self._write(put, prevExist=False)
            with contextlib.suppress(etcd.EtcdKeyNotFound):
                return self._write(put, prevExist=True)

    def _write(self, put: Put, **expectation: Any) -> Entry:
        """Write a key if it is as expected.

        Raises: _CONFLICT; _IN_THE_WAY.
        """
        at, text, ttl = tree.path(put.key), tree.text_of(put.value), int(put.lease.ttl_s) if put.lease else None
        return tree.entry_of(
            self._cluster.call(lambda client: client.write(at, text, ttl=ttl, **expectation), writes=True)
        )

    def _delete(self, key: str, **expectation: Any) -> int:
        """Remove a key if it is as expected; without an expectation it may be missing. The revision.

        Raises: _CONFLICT, only with an expectation.
        """
        at = tree.path(key)
        try:
            node = self._remove(at, **expectation)
        except _NOTHING as error:
            if expectation:
                raise
            return int(error.payload["index"])
        self._prune([at])
        return int(node.modifiedIndex)

    def _refresh(self, at: str, text: str, ttl_s: int) -> None:
        """Prolong the time to live of a key that has this value; watches do not see it. Raises: as `_write`."""
        self._cluster.call(lambda client: client.refresh(at, ttl_s, prevValue=text), writes=True)

    def _remove(self, at: str, **expectation: Any) -> Any:
        return self._cluster.call(lambda client: client.delete(at, **expectation), writes=True)

    def _prune(self, gone: Sequence[str]) -> None:
        """Remove the directories above paths where nothing is any more, as far as nothing else is in them.

        etcd would as well take a key that has come to stand there; none does, for a name of mr that has been a
        directory never becomes a key.
        """
        with contextlib.suppress(StoreUnavailable):  # an empty one does no harm
            while gone:
                above = {at.rpartition("/")[0] for at in gone} - {""}
                gone = self._each(lambda at: self._remove(at, dir=True), sorted(above))

    def _each(self, remove: Callable[[str], object], paths: Sequence[str]) -> list[str]:
        """Remove what is at the paths; those where nothing is any more."""

        def is_gone(at: str) -> bool:
            try:
                remove(at)
            except etcd.EtcdKeyNotFound:
                return True
            except (etcd.EtcdDirNotEmpty, *_IN_THE_WAY):
                return False
            return True

        if len(paths) < DELETES_AT_ONCE:
            return list(filter(is_gone, paths))
        with ThreadPoolExecutor(DELETES_AT_ONCE) as pool:
            return [at for at, gone in zip(paths, pool.map(is_gone, paths), strict=True) if gone]

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
