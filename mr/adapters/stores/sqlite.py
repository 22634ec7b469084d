"""Store in one SQLite file, which also carries the messages of a broker.

A transaction is a unit of work in the batch of the process's writer thread (`sqlite_writer`): its conditions are
looked at, its operations done, its counts and reads taken in the order of the queue, inside one SQLite transaction.

The hard part is leases, because nobody is awake to end them. Readers pass over entries of a lease that is over;
every batch of writes begins by removing them, for watches too; and whoever sleeps in a watch wakes for the next
one that ends and has it removed.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence

from mr.adapters.sqlite_condition import conditions
from mr.adapters.sqlite_file import SqliteFile
from mr.adapters.sqlite_relay import Courier, Relay, is_single
from mr.adapters.sqlite_writer import Batch
from mr.errors import NotFound, StoreFull, StoreUnavailable, ValueRefused, WatchLost
from mr.model.condition import Condition
from mr.ports.broker import MESSAGE_MAX_BYTES
from mr.ports.store import (
    Abilities,
    Absent,
    At,
    Change,
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

LEASE_MIN_S = 0.1
DELETE_MAX = 1000
"""One step of `delete_prefix` removes no more, so that other writers never wait long."""

_POLL_S = 1.0
_CHANGES_READ = 2000

# One entry, as a writer sees it: what is over has been removed.
_GET = "SELECT version, created, value FROM entries WHERE key = ?"
# Entries of a lease that is over; the inner query runs once for a statement, over a handful of rows.
_ALIVE = "lease NOT IN (SELECT id FROM leases WHERE expires_at <= ?)"
# Write an entry; `created` stays that of the first write.
_PUT = """
INSERT INTO entries (key, version, created, lease, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET version = excluded.version, lease = excluded.lease, value = excluded.value
"""
# Changes of a watch, from where it stands.
_CHANGES = """
SELECT revision, key, removed, created, value FROM changes
WHERE (revision, key) > (?, ?) AND key >= ? AND key < ? ORDER BY revision, key LIMIT ?
"""
# Above every key: a character beyond the last one there is.
_END = "\U0010ffff" * 4


class SqliteStore(Store):
    """Entries in a SQLite file, given by its path or as one that the caller has opened and will close."""

    abilities = Abilities(transactions=True, carries_messages=True, lease_ttl_min_s=LEASE_MIN_S)

    def __init__(self, file: SqliteFile | str | os.PathLike[str]) -> None:
        self._owns = not isinstance(file, SqliteFile)
        self.file = file if isinstance(file, SqliteFile) else SqliteFile(file)
        self._relay: Relay | None = None
        self._courier: Courier | None = None

    def take_commits(self) -> None:
        """Commit for other processes from now on, as soon as none else does."""
        self._relay = self._relay or Relay(self.file.path, self._write)

    def hand_over_commits(self) -> None:
        """Have another process commit from now on, while one does so."""
        self._courier = self._courier or Courier(self.file.path)

    def commit(self, transaction: Transaction) -> Outcome:
        """Raises, beside what the port says: NotFound if a lease of a Put is over; nothing is applied then."""
        _check(transaction, self.limits)
        if self._courier is not None and is_single(transaction):
            outcome = self._courier.hand_in(transaction)
            if outcome is not None:
                return outcome
        return self._write(transaction)

    def _write(self, transaction: Transaction) -> Outcome:
        return self.file.write(lambda batch: _apply(batch, transaction))

    def get(self, key: str) -> Entry | None:
        def query(db: sqlite3.Connection, now: float) -> Entry | None:
            row = db.execute(f"{_GET} AND {_ALIVE}", (key, now)).fetchone()
            return Entry(key, row[2], row[0], row[1]) if row else None

        return self.file.read(query)

    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        value = "x''" if keys_only else "value"

        def query(db: sqlite3.Connection, now: float) -> Page:
            rows = db.execute(
                f"SELECT key, {value}, version, created FROM entries "
                f"WHERE key >= ? AND key > ? AND key < ? AND {_ALIVE} ORDER BY key LIMIT ?",
                (prefix, after, _end(prefix), now, limit + 1),
            ).fetchall()
            entries = [Entry(*row) for row in rows[:limit]]
            return Page(entries=entries, revision=_revision(db), more=len(rows) > limit)

        return self.file.read(query)

    def count(self, prefix: str) -> int:
        def query(db: sqlite3.Connection, now: float) -> int:
            statement = f"SELECT count(*) FROM entries WHERE key >= ? AND key < ? AND {_ALIVE}"
            return int(db.execute(statement, (prefix, _end(prefix), now)).fetchone()[0])

        return self.file.read(query)

    def delete_prefix(self, prefix: str, *, limit: int = DELETE_MAX) -> int:
        def work(batch: Batch) -> int:
            rows = batch.db.execute(
                "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (prefix, _end(prefix), min(limit, DELETE_MAX)),
            ).fetchall()
            if rows:
                batch.advance()
                batch.db.executemany("DELETE FROM entries WHERE key = ?", rows)
                for (key,) in rows:
                    batch.removed(key)
            return len(rows)

        def work_without_room(batch: Batch) -> int:
            batch.forget_history()
            return work(batch)

        try:
            return self.file.write(work)
        except StoreFull:
            return self.file.write(work_without_room)

    def watch(self, prefix: str, after_revision: int) -> Watch:
        return SqliteWatch(self.file, prefix, after_revision)

    def revision(self) -> int:
        return self.file.read(lambda db, now: _revision(db))

    def grant(self, ttl_s: float) -> Lease:
        lease = Lease(secrets.randbits(62) | 1, max(ttl_s, LEASE_MIN_S))

        def work(batch: Batch) -> None:
            batch.db.execute(
                "INSERT INTO leases (id, ttl_s, expires_at) VALUES (?, ?, ?)",
                (lease.id, lease.ttl_s, time.monotonic() + lease.ttl_s),
            )

        # A power cut ends all leases anyway, so no lease needs the disk.
        self.file.write(work, durable=False)
        return lease

    def keep(self, lease: Lease) -> bool:
        def work(batch: Batch) -> bool:
            statement = "UPDATE leases SET expires_at = ? + ttl_s WHERE id = ?"
            return batch.db.execute(statement, (time.monotonic(), lease.id)).rowcount == 1

        return self.file.write(work, durable=False)

    def revoke(self, lease: Lease) -> None:
        self.file.write(lambda batch: batch.remove_leased(lease.id), durable=False)

    def conditions(self) -> list[Condition]:
        return conditions(self.file)

    def close(self) -> None:
        if self._relay is not None:
            self._relay.close()
        if self._courier is not None:
            self._courier.close()
        if self._owns:
            self.file.close()


class SqliteWatch(Watch):
    """Changes below a prefix, read from the history in the file.

    Writers keep values in the history only where somebody watches. So of several writes to one key before this
    watch stood, only the last is shown.
    """

    def __init__(self, file: SqliteFile, prefix: str, after_revision: int) -> None:
        self._file, self._prefix = file, prefix
        self._at: tuple[int, str] = (after_revision, _END)
        self._in_use = threading.Lock()
        self._closed = False
        self._bell = file.bell()
        try:
            file.write(lambda batch: batch.register(self._bell.address, "watch", (prefix,)), durable=False)
        except BaseException:
            self._bell.close()
            raise

    def next(self, timeout_s: float) -> list[Change]:
        """Also raises StoreUnavailable after `close` of the file; after its own `close` it is empty."""
        deadline = time.monotonic() + timeout_s
        with self._in_use:
            while not self._closed:
                self._bell.drain()
                changes, lease_ends_at = self._file.read(self._read)
                left_s = deadline - time.monotonic()
                if changes or left_s <= 0:
                    return changes
                if lease_ends_at is not None and lease_ends_at <= time.monotonic():
                    self._file.write(lambda batch: None, durable=False)  # every batch removes what is over
                    continue
                lease_s = _POLL_S if lease_ends_at is None else max(0.0, lease_ends_at - time.monotonic())
                self._bell.wait(min(left_s, _POLL_S, lease_s))
        return []

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        address = self._bell.address
        try:
            self._file.hand_in(lambda batch: batch.register(address, "", ()), lambda result, error: None)
        except StoreUnavailable:
            pass  # the file is closed: whoever rings in vain clears it away
        self._bell.ring()
        with self._in_use:
            self._bell.close()

    def _read(self, db: sqlite3.Connection, now: float) -> tuple[list[Change], float | None]:
        revision, trimmed = db.execute("SELECT revision, trimmed FROM meta").fetchone()
        if self._at[0] < trimmed or self._at[0] > revision:
            raise WatchLost(
                f"changes below {self._prefix!r} after revision {self._at[0]} are gone; "
                f"the history has {trimmed} to {revision}"
            )
        changes: list[Change] = []
        bounds = (self._prefix, _end(self._prefix))
        rows = db.execute(_CHANGES, (*self._at, *bounds, _CHANGES_READ)).fetchall()
        for at, key, removed, created, value in rows:
            if removed:
                changes.append(Change(key, None, at))
            elif value is not None:
                changes.append(Change(key, Entry(key, value, at, created), at))
            else:
                entry = db.execute(_GET, (key,)).fetchone()
                if entry is not None and entry[0] == at:  # else a later change of it follows
                    changes.append(Change(key, Entry(key, entry[2], at, entry[1]), at))
        self._at = (rows[-1][0], rows[-1][1]) if len(rows) == _CHANGES_READ else (revision, _END)
        if rows and not changes:
            return self._read(db, now)
        (lease_ends_at,) = db.execute("SELECT min(expires_at) FROM leases").fetchone()
        return changes, lease_ends_at


def _apply(batch: Batch, transaction: Transaction) -> Outcome:
    db = batch.db
    succeeded = all(_holds(db, condition) for condition in transaction.conditions)
    if succeeded:
        _operate(batch, transaction.operations)
        if transaction.messages:
            batch.publish(transaction.messages)
    counts = {}
    for prefix in transaction.counts:
        statement = "SELECT count(*) FROM entries WHERE key >= ? AND key < ?"
        (counts[prefix],) = db.execute(statement, (prefix, _end(prefix))).fetchone()
    entries: dict[str, Entry | None] = {}
    for key in transaction.reads:
        row = db.execute(_GET, (key,)).fetchone()
        entries[key] = Entry(key, row[2], row[0], row[1]) if row else None
    return Outcome(succeeded=succeeded, revision=batch.revision, counts=counts, entries=entries)


def _holds(db: sqlite3.Connection, condition: Absent | Equals | At) -> bool:
    row = db.execute(_GET, (condition.key,)).fetchone()
    if isinstance(condition, Absent):
        return row is None
    if isinstance(condition, Equals):
        return row is not None and row[2] == condition.value
    return row is not None and row[0] == condition.version


def _operate(batch: Batch, operations: Sequence[Put | Delete]) -> None:
    db = batch.db
    for operation in operations:
        if isinstance(operation, Put) and operation.lease is not None:
            lease = operation.lease.id
            if db.execute("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone() is None:
                raise NotFound(f"the lease of {operation.key!r} is over")
    # No key is written twice, so their order does not matter.
    puts = [operation for operation in operations if isinstance(operation, Put)]
    gone = [one.key for one in operations if isinstance(one, Delete) and _exists(db, one.key)]
    if not puts and not gone:
        return
    revision = batch.advance()
    db.executemany(_PUT, [(one.key, revision, revision, one.lease.id if one.lease else 0, one.value) for one in puts])
    db.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in gone])
    for one in puts:
        batch.wrote(one.key, one.value)
    for key in gone:
        batch.removed(key)


def _exists(db: sqlite3.Connection, key: str) -> bool:
    return db.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone() is not None


def _revision(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT revision FROM meta").fetchone()[0])


def _end(prefix: str) -> str:
    """The first text behind all that start with prefix, in the order of UTF-8, which is that of code points."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return _END


def _check(transaction: Transaction, limits: Limits) -> None:
    """Refuse what is over the limits, counted as etcd does, so that what fits here fits there.

    Raises: ValueRefused naming the limit.
    """
    operations = transaction.operations
    questions = len(transaction.counts) + len(transaction.reads)
    if max(len(transaction.conditions), len(operations) + questions) > limits.operations:
        raise ValueRefused(
            f"a transaction has {len(transaction.conditions)} conditions, {len(operations)} operations and "
            f"{questions} questions; at most {limits.operations} conditions and as many of the others fit"
        )
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueRefused("a transaction writes one key twice")
    size = 0
    for condition in transaction.conditions:
        size += _key_bytes(condition.key)
        if isinstance(condition, Equals):
            size += len(condition.value)
    for operation in operations:
        size += _key_bytes(operation.key)
        if isinstance(operation, Put):
            if len(operation.value) > limits.value_bytes:
                raise ValueRefused(
                    f"the value of {operation.key!r} has {len(operation.value)} bytes; "
                    f"at most {limits.value_bytes} are accepted"
                )
            size += len(operation.value)
    if size > limits.transaction_bytes:
        raise ValueRefused(f"a transaction of {size} bytes is over the limit of {limits.transaction_bytes} bytes")
    for message in transaction.messages:
        if not 0 < len(message.body) <= MESSAGE_MAX_BYTES:
            raise ValueRefused(
                f"a message of {len(message.body)} bytes for {message.topic!r}; expected 1 to {MESSAGE_MAX_BYTES}"
            )


def _key_bytes(key: str) -> int:
    if not key:
        raise ValueRefused("a key of the store is empty")
    try:
        return len(key.encode())
    except UnicodeEncodeError as error:
        raise ValueRefused(f"the key {key!r} holds a lone surrogate") from error
