"""The cleaner: removes finished requests when their time has come, key by key, the record last.

An interrupted clean-up simply goes on: `due/…` goes after everything else, and it is what the cleaner starts from.

A pinned request is put off, again and again: the later `due/…` is written before the earlier one goes, so whatever
dies or comes between, some `due/…` stands, and the end of the pin needs no luck to be noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from mr import codec
from mr.clock import Clock, stamp
from mr.collections.pages import entries, remove_all
from mr.errors import BlobStoreUnavailable, RequestNotFound, StateError
from mr.model import ids
from mr.model.request import Request
from mr.ports.store import Absent, At, Delete, Entry, Put, Store, Transaction
from mr.rules import keys
from mr.services.blobs import Blobs

_log = logging.getLogger(__name__)

PUT_OFF_S = 3600.0
"""How long a pinned request is left alone before the cleaner looks whether it still is."""
BLOBS_AGAIN_S = 60.0
"""How long a request is left alone whose blobs cannot be removed; the others need not wait for that."""


class Cleaner:
    """Removes what is due. Two at once are harmless."""

    def __init__(self, store: Store, clock: Clock, blobs: Blobs | None = None) -> None:
        self._store, self._clock, self._blobs = store, clock, blobs or Blobs()

    def clean(self, limit: int = 100) -> int:
        """Remove up to `limit` requests whose time has come; how many.

        One whose blobs cannot be removed is put off. Raises: StoreUnavailable; the next call goes on.
        """
        now = stamp(self._clock.now())
        removed = 0
        for entry in self._store.range(keys.DUE, limit=limit, keys_only=True).entries:
            at, w, r = entry.key[len(keys.DUE) :].split("/")
            if at > now:
                break
            if self._store.get(keys.pinned(w, r)) is not None:
                self._put_off(entry.key, w, r, PUT_OFF_S)
                continue
            try:
                self._request(w, r, also=entry.key)
            except BlobStoreUnavailable as error:
                _log.warning("the blobs of request %s are removed later: %s", r, error)
                self._put_off(entry.key, w, r, BLOBS_AGAIN_S)
                continue
            removed += 1
        return removed

    def remove(self, w: str, r: str, *, pinned: bool = False) -> None:
        """Remove one finished request by hand, at once; a pinned one only if `pinned` is said.

        Raises: RequestNotFound; StateError if it still runs, is pinned, or was resumed or pinned just now;
        BlobStoreUnavailable, and then asking again goes on.
        """
        self._finished(w, r)
        if pinned:
            self._delete(keys.pinned(w, r))
        else:
            self._refuse_pinned(w, r)
        if not self._request(w, r):
            raise StateError(f"request {r} was resumed or pinned just now", hint=f"see: mr request show {w}/{r}")

    def would_remove(self, w: str, r: str) -> Iterator[str]:
        """The keys that `remove` would take away, without doing so.

        Raises: RequestNotFound; StateError if it still runs, or is pinned.
        """
        request = self._finished(w, r)
        self._refuse_pinned(w, r)
        for prefix in _everything(w, r):
            for entry in entries(self._store, prefix, keys_only=True):
                yield entry.key
        single = [keys.stopped(w, r)]
        if request.reply_to is not None:
            single.append(keys.replies(request.reply_to, r))
        single.append(keys.request(w, r))
        if request.due_at is not None:
            single.append(keys.due(request.due_at, w, r))
        yield from (key for key in single if self._store.get(key) is not None)

    def _finished(self, w: str, r: str) -> Request:
        """The record of a request that is over. Raises: RequestNotFound; StateError."""
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            raise RequestNotFound(f"workflow {w!r} has no request {r}")
        request = codec.decode(entry.value, Request, where=entry.key)
        if not request.state.is_final:
            raise StateError(f"request {r} still runs", hint=f"cancel it first: mr request cancel {w}/{r}")
        return request

    def _refuse_pinned(self, w: str, r: str) -> None:
        if self._store.get(keys.pinned(w, r)) is not None:
            raise StateError(f"request {r} is pinned", hint=f"unpin it first: mr request unpin {w}/{r}")

    def _put_off(self, due: str, w: str, r: str, seconds: float) -> None:
        later = stamp(self._clock.now() + timedelta(seconds=seconds))
        for operation in (Put(keys.due(later, w, r), b"{}"), Delete(due)):
            self._store.commit(Transaction(operations=[operation]))

    def answered(self, answers: list[tuple[str, str, str]], due_at: str | None) -> None:
        """Forget replies that were delivered, as (front end, workflow, request), and let their requests go sooner."""
        at_once = self._store.limits.operations // 2
        for start in range(0, len(answers), at_once):
            operations: list[Put | Delete] = []
            for front_end, w, r in answers[start : start + at_once]:
                operations.append(Delete(keys.replies(front_end, r)))
                if due_at is not None:
                    operations.append(Put(keys.due(due_at, w, r), b"{}"))
            if self._store.abilities.transactions:
                self._store.commit(Transaction(operations=operations))
            else:
                for operation in operations:
                    self._store.commit(Transaction(operations=[operation]))

    def _request(self, w: str, r: str, also: str | None = None) -> bool:
        """Remove a finished request, or what is left of one; False if it is none, or not to go."""
        entry = self._store.get(keys.request(w, r))
        request = codec.decode(entry.value, Request, where=entry.key) if entry is not None else None
        if request is not None and not request.state.is_final:
            # It was resumed: its end will name another time.
            self._delete(also)
            return False
        if entry is not None and not self._begin(entry, w, r):
            return False
        # Without transactions a zombie may write behind the broom: one more round leaves it nothing.
        for _ in range(1 if self._store.abilities.transactions else 2):
            for prefix in _everything(w, r):
                if prefix == keys.datasets(w, r):
                    self._remove_blobs(w, r)
                remove_all(self._store, prefix)
        self._delete(keys.stopped(w, r))
        if request is not None and request.reply_to is not None:
            self._delete(keys.replies(request.reply_to, r))
        if entry is not None:
            condition = At(entry.key, entry.version)
            self._store.commit(Transaction(conditions=[condition], operations=[Delete(entry.key)]))
        if request is not None and request.due_at is not None:
            self._delete(keys.due(request.due_at, w, r))
        self._delete(also)
        return True

    def _remove_blobs(self, w: str, r: str) -> None:
        """Remove the blobs of a request before what names them, so that whoever goes on with it knows of them, too."""
        # Without notes of what it keeps it has none (see `quota.py`).
        if self._blobs.is_there and self._store.count(keys.stored(w, r)):
            self._blobs.remove(w, r)

    def _begin(self, request: Entry, w: str, r: str) -> bool:
        """Take the root's manifest away, so that the request can be neither resumed nor pinned half-way.

        False if it just was.
        """
        if not self._store.abilities.transactions:
            # Its end may have died between its record and its fence.
            self._delete(keys.active(w, r))
            return True
        conditions: list[Absent | At] = [At(request.key, request.version), Absent(keys.pinned(w, r))]
        return self._store.commit(
            Transaction(conditions=conditions, operations=[Delete(keys.manifest(w, r, ids.ROOT))])
        ).succeeded

    def _delete(self, key: str | None) -> None:
        if key is not None:
            self._store.commit(Transaction(operations=[Delete(key)]))


def _everything(w: str, r: str) -> tuple[str, ...]:
    """The prefixes below which a request keeps what it keeps, beside its record and some single keys."""
    return keys.facts(w, r), keys.datasets(w, r), keys.sessions(w, r), keys.receipts(w, r)
