"""Pins: a pinned request is never cleaned away, until somebody takes the pin out or removes it by hand.

A pin is a key of its own, `pinned/<workflow>/<request>`, so that whoever ends the request need not know of it. A
clean-up begins by removing the root's manifest where no pin stands, and a pin is set only where that manifest stands:
one of the two is refused. On a store without transactions a pin may come too late for a clean-up that has begun at
that very moment; it looks again, and says so if it can still see that.
"""

from __future__ import annotations

from mr import codec
from mr.clock import Clock, stamp
from mr.collections.pages import entries
from mr.errors import RequestNotFound, StateError
from mr.model import ids
from mr.model.request import Pin, Request
from mr.ports.store import Absent, At, Delete, Equals, Put, Store, Transaction
from mr.rules import keys


class Pins:
    """Sets and takes out pins. Setting one twice leaves the first; both are harmless to repeat."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def find(self, w: str, r: str) -> Pin | None:
        """The pin of a request, if it is pinned."""
        entry = self._store.get(keys.pinned(w, r))
        return None if entry is None else codec.decode(entry.value, Pin, where=entry.key)

    def of(self, w: str) -> frozenset[str]:
        """Ids of the pinned requests of a workflow."""
        prefix = keys.pinned(w, "")
        return frozenset(entry.key[len(prefix) :] for entry in entries(self._store, prefix, keys_only=True))

    def pin(self, w: str, r: str, *, by: str = "", note: str = "") -> Pin:
        """Pin a request, running or over; the pin that stands then.

        Raises: RequestNotFound, also if it is being cleaned away.
        """
        made = Pin(at=stamp(self._clock.now()), by=by, note=note)
        put = Put(keys.pinned(w, r), codec.encode(made))
        root = self._root(w, r)
        if self._store.abilities.transactions:
            outcome = self._store.commit(
                Transaction(conditions=[root, Absent(put.key)], operations=[put], reads=[put.key])
            )
            standing = outcome.entries[put.key]
        else:
            self._store.commit(Transaction(conditions=[Absent(put.key)], operations=[put]))
            try:
                self._root(w, r)
            except RequestNotFound:
                self._store.commit(Transaction(conditions=[Equals(put.key, put.value)], operations=[Delete(put.key)]))
                raise
            standing = self._store.get(put.key)
        if standing is None:
            raise RequestNotFound(f"request {r} is being cleaned away")
        return codec.decode(standing.value, Pin, where=put.key)

    def unpin(self, w: str, r: str) -> Request:
        """Take the pin out; the request goes when its time comes, at once if that is over.

        Raises: RequestNotFound; StateError if it is not pinned.
        """
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            raise RequestNotFound(f"workflow {w!r} has no request {r}")
        request = codec.decode(entry.value, Request, where=entry.key)
        if self._store.get(keys.pinned(w, r)) is None:
            raise StateError(f"request {r} is not pinned", hint=f"see: mr request show {w}/{r}")
        self._store.commit(Transaction(operations=[Delete(keys.pinned(w, r))]))
        if request.due_at is not None:
            # The cleaner has put it off, by an hour at most; one `due/…` more is harmless.
            self._store.commit(Transaction(operations=[Put(keys.due(request.due_at, w, r), b"{}")]))
        return request

    def _root(self, w: str, r: str) -> At:
        """That the clean-up of the request has not begun."""
        root = self._store.get(keys.manifest(w, r, ids.ROOT))
        if root is None:
            known = self._store.get(keys.request(w, r)) is not None
            raise RequestNotFound(
                f"request {r} is being cleaned away" if known else f"workflow {w!r} has no request {r}"
            )
        return At(root.key, root.version)
