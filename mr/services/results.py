"""Results: wait for the end of a request, and read what came out."""

from __future__ import annotations

from collections.abc import Iterator

from mr import codec
from mr.clock import Clock
from mr.codec import Items
from mr.errors import RequestFailed, RequestNotFound, ResultTimeout, StoreUnavailable, WatchLost
from mr.model.request import Request, RequestState
from mr.ports.store import Store
from mr.rules import keys
from mr.services.datasets import Datasets

LOOK_EVERY_S = 5.0
"""A watch is a hint: the state is looked at this often, whatever the watch says."""


class Results:
    """Reads requests. Safe to call from several threads."""

    def __init__(self, store: Store, datasets: Datasets, clock: Clock) -> None:
        self._store, self._datasets, self._clock = store, datasets, clock

    def request(self, w: str, r: str) -> Request:
        """The request's record.

        Raises: RequestNotFound.
        """
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            raise RequestNotFound(f"workflow {w!r} has no request {r}", hint="it may have been cleaned away")
        return codec.decode(entry.value, Request, where=entry.key)

    def requests(self, w: str, *, limit: int = 1000) -> list[tuple[str, Request]]:
        """Ids and records of a workflow's requests, the newest last."""
        prefix = keys.requests(w)
        found: list[tuple[str, Request]] = []
        after = ""
        while True:
            page = self._store.range(prefix, after=after)
            found += [(e.key[len(prefix) :], codec.decode(e.value, Request, where=e.key)) for e in page.entries]
            if not page.more:
                break
            after = page.entries[-1].key
        return sorted(found, key=lambda pair: pair[1].created_at)[-limit:]

    def ids(self, w: str, begin: str = "", *, limit: int = 1000) -> list[str]:
        """Ids of a workflow's requests that begin so, in their own order."""
        prefix = keys.requests(w)
        page = self._store.range(prefix + begin, limit=limit, keys_only=True)
        return [entry.key[len(prefix) :] for entry in page.entries]

    def wait(self, w: str, r: str, timeout_s: float | None = None) -> Request:
        """The request's record once it is over.

        Raises: ResultTimeout if it is not in time (it goes on); RequestNotFound; StoreUnavailable.
        """
        deadline = None if timeout_s is None else self._clock.monotonic() + timeout_s
        while True:
            page = self._store.range(keys.request(w, r), limit=1)
            request = self.request(w, r)
            if request.state.is_final:
                return request
            left = LOOK_EVERY_S if deadline is None else min(LOOK_EVERY_S, deadline - self._clock.monotonic())
            if left <= 0:
                raise ResultTimeout(f"request {r} is still {request.state.value} after {timeout_s} s; it goes on")
            try:
                with self._store.watch(keys.request(w, r), page.revision) as watch:
                    watch.next(left)
            except (WatchLost, StoreUnavailable):
                continue  # the next look at the state says more

    def pairs(self, w: str, r: str) -> Iterator[Items]:
        """The pairs of a succeeded request, in reducer order, piece by piece; each element is `[key, value]`.

        Raises: RequestFailed for one that failed or was cancelled; RequestNotFound; ResultTimeout if it runs.
        """
        request = self.request(w, r)
        if not request.state.is_final:
            raise ResultTimeout(f"request {r} is still {request.state.value}")
        raise_if_failed(r, request)
        return self._datasets.pairs(w, r)


def raise_if_failed(r: str, request: Request) -> None:
    """Raises: RequestFailed with the report, unless the request succeeded."""
    if request.state is not RequestState.SUCCEEDED:
        report = request.error or {"class": "cancelled", "type": "Cancelled", "message": request.state.value}
        raise RequestFailed(f"request {r} {request.state.value}: {report['message']}", report)
