"""The postman: sends events until they are taken, or three days are over. One worker has one.

Each destination has its own round, in its own thread and from its own keys, in the order in which events are due: one
that hangs or fails holds up nobody else. A round ends with the first event that is not taken; that one gets a later
time, in the store, and so does not stand in the way of the next round, nor get lost with this process.

Two postmen send twice at worst, and a receiver knows a repeat by its id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal

import msgspec

from mr import codec
from mr.addresses import HttpUrl
from mr.clock import Clock, stamp
from mr.errors import CorruptEntry, NotDelivered
from mr.model.event import Event
from mr.ports.event_sender import EventSender
from mr.ports.store import Delete, Entry, Equals, Put, Store, Transaction
from mr.rules import keys, webhook

_log = logging.getLogger(__name__)

ROUND_S = 5.0
PAGE = 50
PATIENCE_S = 30.0
"""A destination that takes longer goes on alone; the others have their next round."""


class _Round(threading.Thread):
    """A round in a thread of its own, which no end of the process waits for."""

    def __init__(self, postman: Postman, to: str) -> None:
        super().__init__(name=f"webhook-{to}", daemon=True)
        self._postman, self._to = postman, to
        self.taken = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.taken = self._postman.round(self._to)
        except Exception as error:  # it is raised where the rounds are waited for
            self.error = error


class Postman:
    """`destinations` are URLs by their names in keys."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        sender: EventSender,
        destinations: Mapping[str, HttpUrl],
        secrets: Sequence[bytes],
        mode: Literal["structured", "binary"],
    ) -> None:
        self._store, self._clock, self._sender = store, clock, sender
        self._destinations, self._secrets, self._mode = destinations, secrets, mode
        self._hanging: dict[str, _Round] = {}

    def rounds(self) -> int:
        """Send what is due now, for a few seconds at most; how many events were taken.

        Raises: StoreUnavailable; the next rounds go on.
        """
        self._hanging = {to: one for to, one in self._hanging.items() if one.is_alive()}
        begun = {to: _Round(self, to) for to in self._destinations if to not in self._hanging and self._due(to, 1)}
        for one in begun.values():
            one.start()
        until = self._clock.monotonic() + PATIENCE_S
        for one in begun.values():
            one.join(max(0.0, until - self._clock.monotonic()))
        self._hanging |= begun
        for one in begun.values():
            if one.error is not None:
                raise one.error
        return sum(one.taken for one in begun.values())

    def _due(self, to: str, limit: int) -> list[Entry]:
        prefix, now = keys.webhooks(to), stamp(self._clock.now())
        entries = self._store.range(prefix, limit=limit).entries
        return [entry for entry in entries if entry.key[len(prefix) :].partition("/")[0] <= now]

    def round(self, to: str) -> int:
        """Send what is due for one destination; how much of it was taken. Raises: StoreUnavailable."""
        taken = 0
        until = self._clock.monotonic() + ROUND_S
        while self._clock.monotonic() < until and (entries := self._due(to, PAGE)):
            for entry in entries:
                if self._clock.monotonic() >= until or not self._send(to, entry):
                    return taken
                taken += 1
        return taken

    def _send(self, to: str, entry: Entry) -> bool:
        url = self._destinations[to]
        try:
            event = codec.decode(entry.value, Event, where=entry.key)
        except CorruptEntry as error:
            _log.error("an event is dropped: %s", error)
            self._replace(entry)
            return True
        headers, body = webhook.message(event, self._mode)
        now = self._clock.now()
        headers |= webhook.signature(self._secrets, event.id, int(now.timestamp()), body)
        try:
            self._sender.send(url, headers, body)
        except NotDelivered as error:
            self._later(to, entry, event, error)
            return False
        self._replace(entry)
        return True

    def _later(self, to: str, entry: Entry, event: Event, error: NotDelivered) -> None:
        attempts = event.attempts + 1
        pause_s = webhook.pause_s(attempts)
        if pause_s is None:
            _log.error("event %s (%s) is given up after %d attempts: %s", event.id, event.kind, attempts, error)
            self._replace(entry)
            return
        _log.warning("event %s (%s) is sent again in %g s: %s", event.id, event.kind, pause_s, error)
        due = stamp(self._clock.now() + timedelta(seconds=pause_s))
        again = msgspec.structs.replace(event, attempts=attempts)
        self._replace(entry, Put(keys.webhook(to, due, event.id), codec.encode(again)))

    def _replace(self, entry: Entry, by: Put | None = None) -> None:
        """Take the event out; where another postman has done so already, nothing."""
        found, gone = Equals(entry.key, entry.value), Delete(entry.key)
        if by is None:
            self._store.commit(Transaction(conditions=[found], operations=[gone]))
        elif self._store.abilities.transactions:
            self._store.commit(Transaction(conditions=[found], operations=[by, gone]))
        else:
            # The later one first: whatever dies between the two, one of them stands.
            self._store.commit(Transaction(operations=[by]))
            self._store.commit(Transaction(conditions=[found], operations=[gone]))
