"""One SQLite file, open in one process: the ground that its store and its broker stand on together.

Writes go through the one writer thread (`sqlite_writer`), reads through connections of their own, which in WAL mode
never wait for a writer and see every commit that has returned. Several processes may open the same file; they wake
each other through bells (`sqlite_wake`). What the file holds is in `sqlite_schema`.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from mr.adapters import sqlite_schema as schema
from mr.adapters.sqlite_wake import Bell
from mr.adapters.sqlite_writer import Then, Work, Writer
from mr.errors import StoreUnavailable

T = TypeVar("T")
Query = Callable[[sqlite3.Connection, float], T]

_READERS_KEPT = 8


class SqliteFile:
    """The file at `path`, made if it does not exist. All methods are safe to call from several threads.

    `busy_s` is how long another process may hold its lock before a call fails; `history` how many revisions stay
    for watches that lag.
    Raises: ConfigError if it cannot be a file of mr (network file system, another program's); StoreUnavailable.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_s: float = 10.0, history: int = 10_000) -> None:
        self.path = os.path.realpath(path)
        self._busy_s = busy_s
        schema.prepare(self.path)
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = Writer(self.path, busy_s, history)

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run `work` in the next batch and wait until it is committed, on disk if `durable`.

        Raises: what `work` raised; StoreUnavailable (`unknown` if it failed while committing); StoreFull.
        """
        return self._writer.call(work, durable=durable)

    def hand_in(self, work: Work[T], then: Then, *, durable: bool = False) -> None:
        """The same without waiting: `then(result, error)` is called in the writer thread and must be quick.

        Raises: StoreUnavailable if the file is closed.
        """
        self._writer.hand_in(work, then, durable=durable)

    def read(self, query: Query[T]) -> T:
        """Run `query(connection, now)` on one snapshot that has every commit which returned before.

        Raises: StoreUnavailable; CorruptEntry; ValueRefused if a text is none.
        """
        deadline = time.monotonic() + self._busy_s
        while True:
            db: sqlite3.Connection | None = None
            try:
                db = self._reader()
                db.execute("BEGIN")
                result = query(db, time.monotonic())
                db.execute("COMMIT")
            except (sqlite3.Error, UnicodeEncodeError) as error:
                if db is not None:
                    db.close()
                # Reads meet a lock only in rare moments, as when a crashed process's WAL is recovered.
                if schema.is_busy(error) and time.monotonic() < deadline:
                    time.sleep(random.uniform(0.000_5, 0.003))
                    continue
                raise schema.translated(error, self.path) from error
            except BaseException:
                if db is not None:
                    db.close()
                raise
            self._give_back(db)
            return result

    def bell(self) -> Bell:
        """A new bell, which all processes with this file can ring."""
        try:
            return Bell(f"{self.path}.wake")
        except OSError as error:
            raise StoreUnavailable(f"no socket beside {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Finish what is queued, then let go of everything. Twice is harmless."""
        self._closed = True
        self._writer.close()
        while self._readers:
            self._readers.pop().close()

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(f"{self.path} is closed")
        try:
            return self._readers.pop()
        except IndexError:
            db = schema.connect(self.path)
            db.execute("PRAGMA query_only = ON")
            return db

    def _give_back(self, db: sqlite3.Connection) -> None:
        if self._closed or len(self._readers) >= _READERS_KEPT:
            db.close()
        else:
            self._readers.append(db)
