"""Broker in the SQLite file of the store, so that publishing can be part of a commit.

A message is a row that belongs to nobody (`consumer` 0) or to a consumer. A consumer is alive while it renews its
own row every second: messages need no touches, and those of a killed or stopped process come back within two
seconds and a bit. Each delivery raises `attempts`, and ids are never used again, so (id, attempts) names a delivery
for ever: an answer that comes too late finds nothing, never somebody else's delivery.

The hard part is asking neither too often nor too rarely. A consumer keeps one visit to the file under way at most.
Each takes along all answers so far and asks for as many messages as hands are free; whether there may be more (a
ring came, or it got all it asked for) is remembered until hands are free again. The answer names the moment when
something else falls due: a delayed message, or a consumer that may be dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import msgspec

from mr.adapters.sqlite_file import SqliteFile
from mr.adapters.sqlite_wake import Bell
from mr.adapters.sqlite_writer import Batch
from mr.errors import BackendError, BrokerUnavailable, StoreFull, StoreUnavailable, ValueRefused
from mr.ports.broker import MESSAGE_MAX_BYTES, Backlog, Consumer, Delivery, Publication, Publisher

CONSUMER_LEASE_S = 2.0
"""How long after its last sign of life a consumer's messages go to others."""

_RENEW_S = 1.0

_log = logging.getLogger(__name__)

# Take messages of the topics, in the order in which they are given, up to a number.
_CLAIM = """
UPDATE messages SET consumer = :consumer, attempts = attempts + 1 WHERE id IN (
    SELECT m.id FROM json_each(:topics) AS t CROSS JOIN messages AS m
    WHERE m.consumer = 0 AND m.topic = t.value AND m.visible_at <= :now LIMIT :count
) RETURNING id, topic, attempts, (SELECT body FROM bodies WHERE bodies.id = messages.id)
"""
# When the next delayed message of the topics falls due.
_NEXT_DELAYED = """
SELECT min((SELECT m.visible_at FROM messages AS m
            WHERE m.consumer = 0 AND m.topic = t.value AND m.visible_at > :now ORDER BY m.visible_at LIMIT 1))
FROM json_each(:topics) AS t
"""
# When the next other consumer is dead, unless it gives a sign of life.
_NEXT_DEAD = "SELECT min(expires_at) FROM consumers WHERE id <> ?"
_RENEW = """
INSERT INTO consumers (id, expires_at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
"""
_FINISH = "DELETE FROM messages WHERE id = ? AND attempts = ?"
_REQUEUE = "UPDATE messages SET consumer = 0, visible_at = ? WHERE id = ? AND attempts = ? RETURNING topic"
# Give back everything of one consumer.
_RELEASE = "UPDATE messages SET consumer = 0, visible_at = 0 WHERE consumer = ? RETURNING topic"
# Messages of a topic that nobody has: (those before now, those after).
_WAITING = """
SELECT count(*) FILTER (WHERE visible_at <= :now), count(*) FILTER (WHERE visible_at > :now)
FROM messages WHERE consumer = 0 AND topic = :topic
"""
_TOPICS = "SELECT DISTINCT topic FROM messages ORDER BY topic"
_IN_FLIGHT = "SELECT topic, count(*) FROM messages WHERE consumer > 0 GROUP BY topic"


class SqlitePublisher(Publisher):
    """Publishes to a SQLite file, given by its path or as one that the caller has opened and will close.

    `joins_commit` is true where the store at hand is the same file.
    """

    def __init__(self, file: SqliteFile | str | os.PathLike[str], *, joins_commit: bool = True) -> None:
        self._owns = not isinstance(file, SqliteFile)
        self._file = file if isinstance(file, SqliteFile) else SqliteFile(file)
        self.joins_commit = joins_commit

    def publish(self, publications: Sequence[Publication]) -> str:
        for one in publications:
            if not 0 < len(one.body) <= MESSAGE_MAX_BYTES:
                raise ValueRefused(
                    f"a message of {len(one.body)} bytes for {one.topic!r}; expected 1 to {MESSAGE_MAX_BYTES}"
                )
        if publications:
            try:
                self._file.write(lambda batch: batch.publish(publications))
            except (StoreUnavailable, StoreFull) as error:
                raise BrokerUnavailable(error.message, hint=error.hint) from error
        return self._file.path

    def backlog(self, topics: Sequence[str]) -> Mapping[str, Backlog]:
        def query(db: sqlite3.Connection, now: float) -> dict[str, Backlog]:
            in_flight = dict(db.execute(_IN_FLIGHT))
            found = {}
            for topic in topics:
                waiting, delayed = db.execute(_WAITING, {"topic": topic, "now": now}).fetchone()
                found[topic] = Backlog(waiting=waiting, in_flight=in_flight.get(topic, 0), delayed=delayed)
            return found

        try:
            return self._file.read(query)
        except StoreUnavailable as error:
            raise BrokerUnavailable(error.message, hint=error.hint) from error

    def instances(self) -> Mapping[str, str]:
        """The one file, and the word it got when it was made."""
        try:
            (word,) = self._file.read(lambda db, now: db.execute("SELECT word FROM meta").fetchone())
        except StoreUnavailable:
            return {}
        return {self._file.path: word}

    def topics(self) -> Sequence[str]:
        try:
            return self._file.read(lambda db, now: [topic for (topic,) in db.execute(_TOPICS)])
        except StoreUnavailable as error:
            raise BrokerUnavailable(error.message, hint=error.hint) from error

    def close(self) -> None:
        if self._owns:
            self._file.close()


class SqliteDelivery(Delivery):
    """A message in the hands of one consumer."""

    __slots__ = ("_answered", "_consumer", "attempts", "body", "id", "topic")

    def __init__(self, consumer: SqliteConsumer, message_id: int, topic: str, attempts: int, body: bytes) -> None:
        self._consumer, self._answered = consumer, False
        self.id, self.topic, self.attempts, self.body = message_id, topic, attempts, body

    def finish(self) -> None:
        if not self._answered:
            self._answered = True
            self._consumer.answer(self, None)

    def requeue(self, delay_s: float = 0.0) -> None:
        if not self._answered:
            self._answered = True
            self._consumer.answer(self, delay_s)

    def touch(self) -> None:
        """Nothing to do: the consumer renews its claim to all its messages while its process lives."""


class _Visit(msgspec.Struct):
    """What a consumer wants of the file at one time, and does there (`__call__`, in the writer thread)."""

    consumer: int
    topics: list[str]
    count: int
    holds: bool
    renew: bool
    finished: list[tuple[int, int]]
    requeued: list[tuple[float, int, int]]

    def __call__(self, batch: Batch) -> _Visited:
        db = batch.db
        if self.renew and self.holds:
            self._renew(batch)
        if self.finished:
            db.executemany(_FINISH, self.finished)
        for delay_s, message_id, attempts in self.requeued:
            visible_at = batch.now + delay_s if delay_s > 0 else 0
            for (topic,) in db.execute(_REQUEUE, (visible_at, message_id, attempts)).fetchall():
                batch.wake(topic)
        for (dead,) in db.execute("SELECT id FROM consumers WHERE expires_at <= ?", (batch.now,)).fetchall():
            _release(batch, dead)
        if self.count <= 0:
            return _Visited([])
        what = {
            "consumer": self.consumer,
            "topics": json.dumps(self.topics),
            "count": self.count,
            "now": batch.now,
        }
        rows = db.execute(_CLAIM, what).fetchall()
        if rows and self.renew:
            self._renew(batch)  # only now: who waits for messages and has none writes nothing
        if len(rows) == self.count:
            return _Visited(rows)
        (delayed,) = db.execute(_NEXT_DELAYED, what).fetchone()
        (dead_at,) = db.execute(_NEXT_DEAD, (self.consumer,)).fetchone()
        return _Visited(rows, [moment for moment in (delayed, dead_at) if moment is not None])

    def _renew(self, batch: Batch) -> None:
        batch.db.execute(_RENEW, (self.consumer, batch.now + CONSUMER_LEASE_S))


class _Visited(msgspec.Struct):
    """What came of a visit: rows of messages, and moments at which to look again unless rung before."""

    rows: list[tuple[int, str, int, bytes]]
    again_at: list[float] = []


class SqliteConsumer(Consumer):
    """Consumes from a SQLite file, given by its path or as one that the caller has opened and will close."""

    def __init__(self, file: SqliteFile | str | os.PathLike[str]) -> None:
        self._owns = not isinstance(file, SqliteFile)
        self._file = file if isinstance(file, SqliteFile) else SqliteFile(file)
        self._id = secrets.randbits(62) | 1
        self._topics: list[str] = []
        self._paused: Set[str] = frozenset()
        self._allowed = 0
        self._in_flight: set[tuple[int, int]] = set()
        self._finished: list[tuple[int, int]] = []
        self._requeued: list[tuple[float, int, int]] = []
        self._maybe_more = True
        self._visiting = False
        self._scheduled = False
        self._renewed_at = 0.0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._bell: Bell | None = None

    async def start(self, on_delivery: Callable[[Delivery], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_delivery = on_delivery
        try:
            bell = self._bell = self._file.bell()
        except StoreUnavailable as error:
            raise BrokerUnavailable(error.message) from error
        self._loop.add_reader(bell.fileno(), self._on_ring, bell)
        self._look_again(_RENEW_S)

    async def subscribe(self, topics: Sequence[str]) -> None:
        assert self._bell is not None, "start comes first"
        wanted, address = list(dict.fromkeys(topics)), self._bell.address
        try:
            await self._written(lambda batch: batch.register(address, "consume", wanted))
        except (StoreUnavailable, StoreFull) as error:
            raise BrokerUnavailable(error.message, hint=error.hint) from error
        self._topics = wanted
        self._maybe_more = True
        self._visit_soon()

    def allow(self, in_flight: int) -> None:
        self._allowed = in_flight
        self._visit_soon()

    def pause(self, topics: Set[str]) -> None:
        self._paused = frozenset(topics)
        self._maybe_more = True
        self._visit_soon()

    async def close(self) -> None:
        """Twice is harmless. If the file does not answer, messages come back when the consumer's lease is over."""
        if self._closed:
            return
        self._closed = True
        if self._bell is not None:
            await self._leave(self._bell)
        if self._owns:
            self._file.close()

    async def _leave(self, bell: Bell) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(bell.fileno())
        visit = self._next_visit(0, renew=False)

        def work(batch: Batch) -> None:
            visit(batch)
            _release(batch, self._id)
            batch.register(bell.address, "", ())

        try:
            await self._written(work)
        except BackendError as error:
            _log.warning("a consumer could not give its messages back: %s", error)
        bell.close()

    def answer(self, delivery: SqliteDelivery, delay_s: float | None) -> None:
        """A delivery is finished, or (with a delay) requeued."""
        key = (delivery.id, delivery.attempts)
        self._in_flight.discard(key)
        if self._closed:
            return
        if delay_s is None:
            self._finished.append(key)
        else:
            self._requeued.append((delay_s, *key))
        self._visit_soon()

    def _visit_soon(self) -> None:
        # Once for all that happens in this round of the loop, so that answers and claims travel together.
        if not self._scheduled and not self._visiting and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._visit)

    def _visit(self) -> None:
        self._scheduled = False
        if self._visiting or self._closed:
            return
        count = self._allowed - len(self._in_flight) if self._maybe_more and self._topics else 0
        due = time.monotonic() - self._renewed_at >= _RENEW_S * 0.9
        if count <= 0 and not (due and self._in_flight) and not self._finished and not self._requeued:
            return
        if count > 0:
            self._maybe_more = False
        visit = self._next_visit(count, due)

        def then(result: _Visited | None, error: Exception | None) -> None:
            self._loop.call_soon_threadsafe(self._visited, visit, result, error)

        self._visiting = True
        try:
            self._file.hand_in(visit, then)
        except StoreUnavailable as error:
            self._visited(visit, None, error)

    def _next_visit(self, count: int, renew: bool) -> _Visit:
        topics = [topic for topic in self._topics if topic not in self._paused] if self._paused else self._topics
        visit = _Visit(self._id, topics, count, bool(self._in_flight), renew, self._finished, self._requeued)
        self._finished, self._requeued = [], []
        if count > 0 and len(self._topics) > 1:
            # The next claim begins with the next topic, so that none starves behind a full one.
            self._topics = [*self._topics[1:], self._topics[0]]
        return visit

    def _visited(self, visit: _Visit, result: _Visited | None, error: Exception | None) -> None:
        self._visiting = False
        if self._closed:
            return  # what came with it was given back by `close`
        if result is None:
            # The answers are kept and tried again with the next tick; once more than needed is harmless.
            _log.warning("the file of the broker does not answer: %s", error)
            self._finished[:0] = visit.finished
            self._requeued[:0] = visit.requeued
            self._maybe_more = True
            return
        rows = result.rows
        if visit.renew and (rows or visit.holds):
            self._renewed_at = time.monotonic()
        if visit.count > 0 and len(rows) == visit.count:
            self._maybe_more = True
        if result.again_at:
            self._look_again(min(result.again_at) - time.monotonic())
        for message_id, topic, attempts, body in rows:
            self._in_flight.add((message_id, attempts))
            # Each on its own, so that one which fails does not take the others along.
            self._loop.call_soon(self._on_delivery, SqliteDelivery(self, message_id, topic, attempts, body))
        self._visit_soon()

    def _on_ring(self, bell: Bell) -> None:
        bell.drain()
        self._maybe_more = True
        self._visit_soon()

    def _look_again(self, delay_s: float) -> None:
        """Tick in `delay_s`, or sooner if that was planned."""
        at = self._loop.time() + max(0.001, min(delay_s, _RENEW_S))
        if self._timer is not None:
            if self._timer.when() <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._look_again(_RENEW_S)
        self._maybe_more = True
        self._visit_soon()

    async def _written(self, work: Callable[[Batch], None]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def then(result: Any, error: Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle, error)

        self._file.hand_in(work, then)
        await done


def _release(batch: Batch, consumer: int) -> None:
    """Give back all that a consumer has, and forget it."""
    for (topic,) in set(batch.db.execute(_RELEASE, (consumer,)).fetchall()):
        batch.wake(topic)
    batch.db.execute("DELETE FROM consumers WHERE id = ?", (consumer,))
