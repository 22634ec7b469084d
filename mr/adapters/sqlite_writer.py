"""The one thread of a process that writes to the SQLite file, in batches.

Units of work from all callers are queued; whatever is there when the thread gets the lock of the file becomes one
SQLite transaction with one fsync, and its callers go on together when that is on disk. While it waits for the
disk the next batch fills, so there is no timer. A batch in which nothing needs to survive a power cut (claims,
finishes, leases: losing them only repeats work) is committed without fsync; the next durable one covers it.

The hard parts. A unit that breaks rolls back everything, so the batch is then run again unit by unit and only the
bad one fails. And the thread must be a real one even where gevent has patched `threading`: it would stall the whole
process in the kernel otherwise. So it uses what nobody patches, the C-level names in `_thread`, `_queue` and
`_socket`; the callers' side uses plain `threading.Lock`, which waits politely in either world.
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import os
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from mr.adapters import sqlite_schema as schema
from mr.adapters.sqlite_wake import Ringer, remove
from mr.errors import MrError, StoreUnavailable
from mr.ports.broker import Publication

T = TypeVar("T")
Work = Callable[["Batch"], T]
Then = Callable[[Any, Exception | None], None]

_BATCH_MAX = 512
_SETTLE_EVERY = 256
_VACUUM_PAGES = 1000
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.000_2, 0.005


class Batch:
    """One open SQLite transaction, as units of work see it. Expired leases are gone already.

    `now` is `time.monotonic`. A unit either raises an MrError before it changes anything, or is applied.
    """

    def __init__(self, db: sqlite3.Connection, waiters: Waiters) -> None:
        self.db = db
        self.now = time.monotonic()
        self._waiters = waiters
        row = db.execute("SELECT revision, trimmed, generation, next_message FROM meta").fetchone()
        self._meta: tuple[int, int, int, int] = row
        self.revision: int = row[0]
        self.trimmed: int = row[1]
        self.generation: int = row[2]
        self._next_message: int = row[3]
        self._changes: list[tuple[int, str, bool, int | None, bytes | None]] = []
        self._topics: set[str] = set()
        waiters.refresh(db, self.generation)
        self._expire()

    def advance(self) -> int:
        """The revision of a write that is about to happen."""
        self.revision += 1
        return self.revision

    def wrote(self, key: str, value: bytes) -> None:
        """Note for watches that a key was written at this revision.

        The value is noted only where somebody watches; who comes later reads the entry itself.
        """
        if key.startswith(self._waiters.prefixes):
            (created,) = self.db.execute("SELECT created FROM entries WHERE key = ?", (key,)).fetchone()
            self._changes.append((self.revision, key, False, created, value))
        else:
            self._changes.append((self.revision, key, False, None, None))

    def removed(self, key: str) -> None:
        """Note for watches that a key was removed at this revision."""
        self._changes.append((self.revision, key, True, None, None))

    def remove_leased(self, lease: int) -> None:
        """Remove a lease and, at one revision, all entries under it."""
        keys = [key for (key,) in self.db.execute("SELECT key FROM entries WHERE lease = ? AND lease <> 0", (lease,))]
        if keys:
            self.advance()
            self.db.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])
            for key in keys:
                self.removed(key)
        self.db.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def publish(self, publications: Sequence[Publication]) -> None:
        """Queue messages. Their ids are never used again, so that (id, attempts) names a delivery for ever."""
        first = self._next_message
        self._next_message += len(publications)
        self.db.executemany(
            "INSERT INTO messages (id, consumer, topic, visible_at, attempts) VALUES (?, 0, ?, ?, 0)",
            [
                (number, one.topic, self.now + one.delay_s if one.delay_s > 0 else 0)
                for number, one in enumerate(publications, first)
            ],
        )
        self.db.executemany(
            "INSERT INTO bodies (id, body) VALUES (?, ?)",
            [(number, one.body) for number, one in enumerate(publications, first)],
        )
        self._topics.update(one.topic for one in publications)

    def wake(self, topic: str) -> None:
        """Somebody who consumes the topic may have something to do."""
        self._topics.add(topic)

    def register(self, address: str, kind: str, patterns: Iterable[str]) -> None:
        """Ring the bell at `address` for these patterns only (`watch`: prefixes; `consume`: topics)."""
        self.db.execute("DELETE FROM waiters WHERE address = ?", (address,))
        self.db.executemany(
            "INSERT OR IGNORE INTO waiters (address, kind, pattern) VALUES (?, ?, ?)",
            [(address, kind, pattern) for pattern in patterns],
        )
        self.generation += 1
        self._waiters.refresh(self.db, self.generation)

    def forget_history(self) -> None:
        """Give up the history of changes for its room; watches that have not read it are lost."""
        self.db.execute("DELETE FROM changes")
        self.trimmed = self.revision

    def finish(self, history: int) -> list[str]:
        """Write the history and counters; returns the bells to ring after the commit."""
        if self._changes:
            self.db.executemany(
                "INSERT INTO changes (revision, key, removed, created, value) VALUES (?, ?, ?, ?, ?)", self._changes
            )
        if self.revision - self.trimmed > history + history // 10:
            self.trimmed = self.revision - history
            self.db.execute("DELETE FROM changes WHERE revision <= ?", (self.trimmed,))
        meta = (self.revision, self.trimmed, self.generation, self._next_message)
        if meta != self._meta:
            self.db.execute("UPDATE meta SET revision = ?, trimmed = ?, generation = ?, next_message = ?", meta)
        return self._waiters.concerned((key for _, key, _, _, _ in self._changes), self._topics)

    def _expire(self) -> None:
        for (lease,) in self.db.execute("SELECT id FROM leases WHERE expires_at <= ?", (self.now,)).fetchall():
            self.remove_leased(lease)


class Waiters:
    """Who wants to be rung for what: the table of that name, read again only when its generation changed."""

    def __init__(self) -> None:
        self.prefixes: tuple[str, ...] = ()
        self._watching: list[tuple[str, str]] = []
        self._consuming: dict[str, list[str]] = {}
        self._generation: int | None = None

    def refresh(self, db: sqlite3.Connection, generation: int) -> None:
        """Be as the open transaction sees the table."""
        if generation == self._generation:
            return
        self._watching, self._consuming = [], {}
        for address, kind, pattern in db.execute("SELECT address, kind, pattern FROM waiters"):
            if kind == "watch":
                self._watching.append((pattern, address))
            else:
                self._consuming.setdefault(pattern, []).append(address)
        self.prefixes = tuple({prefix for prefix, _ in self._watching})
        self._generation = generation

    def forget(self) -> None:
        """What was read may have been rolled back."""
        self._generation = None

    def concerned(self, keys: Iterable[str], topics: Iterable[str]) -> list[str]:
        """Addresses to ring for changed keys and topics with messages."""
        found = {address for topic in topics for address in self._consuming.get(topic, ())}
        if self.prefixes:
            watched = [key for key in keys if key.startswith(self.prefixes)]
            if watched:
                found.update(
                    address for prefix, address in self._watching if any(key.startswith(prefix) for key in watched)
                )
        return list(found)


class _Unit:
    __slots__ = ("durable", "error", "result", "then", "work")

    def __init__(self, work: Work[Any], then: Then, durable: bool) -> None:
        self.work, self.then, self.durable = work, then, durable
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """The thread and its queue. Handing in is safe from any thread and never blocks.

    `busy_s` is how long another process may hold the lock before units fail; `history` how many revisions are
    kept for watches.
    """

    def __init__(self, path: str, busy_s: float, history: int) -> None:
        self._path, self._busy_s, self._history = path, busy_s, history
        self._queue: _queue.SimpleQueue[_Unit | None] = _queue.SimpleQueue()
        self._pending: deque[_Unit] = deque()
        self._waiters = Waiters()
        self._durable = True
        self._batches = 0
        self._closing = False
        self._ended = threading.Lock()
        self._ended.acquire()
        self._nap = _thread.allocate()
        self._nap.acquire()
        self._db: sqlite3.Connection | None = self._open()
        self._ringer = Ringer()
        # `start_new` is the name of `start_new_thread` that stays the C-level one where gevent patched.
        _thread.start_new(self._run, ())

    def hand_in(self, work: Work[Any], then: Then, *, durable: bool) -> None:
        """Queue a unit; `then(result, error)` is called in the writer's thread and must be quick."""
        if self._closing:
            raise StoreUnavailable(f"{self._path} is closed")
        self._queue.put(_Unit(work, then, durable))

    def call(self, work: Work[T], *, durable: bool) -> T:
        """Run a unit and wait until it is committed.

        Raises: what the unit raised; StoreUnavailable, StoreFull, CorruptEntry.
        """
        gate = threading.Lock()
        gate.acquire()
        answer: list[tuple[Any, Exception | None]] = []

        def then(result: Any, error: Exception | None) -> None:
            answer.append((result, error))
            gate.release()

        self.hand_in(work, then, durable=durable)
        # The time limit only catches a unit that slipped in behind the end of the thread.
        while not gate.acquire(timeout=5.0):
            if self._closing and self._queue.empty() and not answer and not self._ended.locked():
                raise StoreUnavailable(f"{self._path} is closed", unknown=True)
        result, error = answer[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Finish what is queued and end the thread. Twice is harmless."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        # With a time limit, for gevent takes a wait without one and without other events for a dead end.
        while not self._ended.acquire(timeout=1.0):
            pass
        self._ended.release()

    def _run(self) -> None:
        try:
            while self._take():
                self._write(self._pending)
                self._batches += 1
                if self._batches % _SETTLE_EVERY == 0:
                    self._settle()
        finally:
            self._closing = True
            if self._db is not None:
                self._db.close()
            self._ringer.close()
            self._refuse_rest()
            self._ended.release()

    def _take(self) -> bool:
        """Wait for something to do; False when the end was asked for and nothing is left."""
        while not self._pending:
            unit = self._queue.get()
            if unit is None:
                return False
            self._pending.append(unit)
        self._drain()
        return True

    def _drain(self) -> None:
        with contextlib.suppress(_queue.Empty):
            while len(self._pending) < _BATCH_MAX:
                unit = self._queue.get_nowait()
                if unit is None:
                    self._queue.put(None)  # the end comes after what is pending
                    return
                self._pending.append(unit)

    def _refuse_rest(self) -> None:
        with contextlib.suppress(_queue.Empty):
            while True:
                unit = self._queue.get_nowait()
                if unit is not None:
                    self._answer(unit, None, StoreUnavailable(f"{self._path} is closed"))

    def _write(self, pending: deque[_Unit]) -> None:
        """One batch: as many of the pending units as fit together."""
        durable = any(unit.durable for unit in pending)
        try:
            db = self._begin(durable)
        except Exception as error:
            # Not caught narrowly: whatever it is, nobody may wait for ever.
            self._fail([pending.popleft() for _ in range(len(pending))], error)
            return
        self._drain()  # waiting for the lock took its time
        units = []
        while pending and (durable or not pending[0].durable):
            units.append(pending.popleft())
        self._apply(db, units)

    def _apply(self, db: sqlite3.Connection, units: list[_Unit]) -> None:
        committing = False
        try:
            batch = Batch(db, self._waiters)
            for unit in units:
                try:
                    unit.result = unit.work(batch)
                except MrError as error:
                    unit.error = error
            bells = batch.finish(self._history)
            committing = True
            db.execute("COMMIT")
        except Exception as error:
            # Also a mistake of ours in one unit must neither be half applied nor hurt the others.
            self._roll_back(error)
            if committing or len(units) == 1:
                self._fail(units, error, unknown=committing)
            else:
                for unit in units:
                    unit.result = unit.error = None
                    self._write(deque([unit]))
            return
        dead = self._ringer.ring(bells)
        for unit in units:
            self._answer(unit, unit.result, unit.error)
        if dead:
            self._bury(dead)

    def _begin(self, durable: bool) -> sqlite3.Connection:
        """Get the lock of the file, trying for `busy_s`.

        SQLite's own waiting sleeps ever longer and so starves whoever came first; ours is short and random.
        """
        if self._db is None:
            self._db = self._open()
        db = self._db
        if durable != self._durable:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
        return db

    def _patiently(self, attempt: Callable[[], object]) -> None:
        deadline = time.monotonic() + self._busy_s
        pause = _PAUSE_MIN_S
        while True:
            try:
                attempt()
                return
            except sqlite3.OperationalError as error:
                if not schema.is_busy(error) or time.monotonic() > deadline:
                    raise
            self._nap.acquire(True, random.uniform(pause / 2, pause))
            pause = min(pause * 1.5, _PAUSE_MAX_S)

    def _open(self) -> sqlite3.Connection:
        opened: list[sqlite3.Connection] = []
        try:
            self._patiently(lambda: opened.append(schema.connect(self._path)))
            db = opened[0]
            self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
            schema.create(db, self._path)
            db.execute("COMMIT")
        except BaseException as error:
            for db in opened:
                db.close()
            if isinstance(error, sqlite3.Error):
                raise schema.translated(error, self._path) from error
            raise
        self._durable = True
        self._waiters.forget()
        return db

    def _roll_back(self, error: Exception) -> None:
        self._waiters.forget()
        db = self._db
        assert db is not None
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            pass
        else:
            if not isinstance(error, sqlite3.Error) or schema.is_full(error):
                return
        # After an I/O error the state of a connection is anybody's guess: the next batch opens a new one.
        self._db = None
        db.close()

    def _fail(self, units: list[_Unit], error: Exception, *, unknown: bool = False) -> None:
        for unit in units:
            built = schema.translated(error, self._path, unknown=unknown)
            if built is not error:
                built.__cause__ = error
            self._answer(unit, None, built)

    def _answer(self, unit: _Unit, result: Any, error: Exception | None) -> None:
        # A callback that fails (its event loop is closed, say) has nobody left to tell.
        with contextlib.suppress(Exception):
            unit.then(result, error)

    def _bury(self, addresses: list[str]) -> None:
        for address in addresses:
            remove(address)

        def work(batch: Batch) -> None:
            for address in addresses:
                batch.register(address, "", ())

        self._pending.append(_Unit(work, lambda result, error: None, False))

    def _settle(self) -> None:
        """Now and then: keep the WAL below its limit, and give free pages back to the disk."""
        db = self._db
        if db is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            if os.path.getsize(f"{self._path}-wal") > schema.WAL_KEPT_BYTES:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            if free > _VACUUM_PAGES and free > pages // 2:
                # Its rows have no columns, so that `execute` would stop after the first page.
                db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
