"""The quota: what one request may keep in the store, so that a runaway one is stopped before it fills it for all.

The hard part is to know a sum that many workers add to, without another write for each of theirs. So every worker
counts for itself what it writes for a request. Each time that has grown by a **step** it notes the step in the store,
under a key of its own, and adds up all notes there are. A request that stays below a step costs nothing.

    queues/dataset/<workflow>/<request>/stored/<worker>.<n>     bytes, as a decimal number

The sum leaves out what is not noted yet: less than a step for each worker. The step is an eighth of the limit, divided
by the number of workers, so a request is stopped between its limit and an eighth more, beside what its executors still
send until they are killed. Whatever is written counts, of use in the end or not: keys and values of facts, and all
chunks, also those of attempts that failed. The arguments of the POST do not; they have `MR_BODY_MAX_MB`.

Where there is a blob store, a request at its limit **spills** instead: its chunks become blobs, of which only
references stand in the store. What stays in records may then take as much again, before the request fails after all.
Nothing is ever written as a blob before the notes of its request are over the limit, so one without notes has none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock

import msgspec

from mr.errors import StoreFull, StoreUnavailable
from mr.model.invocation import ErrorReport
from mr.ports.store import Equals, Put, Store, Transaction
from mr.rules import keys

_log = logging.getLogger(__name__)

SHARE = 8
"""A step is the limit, divided by this and by the number of workers."""
REQUESTS_MAX = 10_000
"""Requests that are counted at a time. Who is forgotten begins at 0 again, and so keeps up to a step for nothing."""


class _Account(msgspec.Struct):
    """What this process has written for a request and not noted yet, and what all have noted as it last looked."""

    pending: int = 0
    noted: int = 0


class Quota:
    """Counts what this process writes for requests. Safe to call from several threads.

    `worker` names this process in the keys, `workers` says how many share the work, `has_blobs` whether there is a blob
    store to spill into.
    """

    def __init__(
        self, store: Store, limit_bytes: int, worker: str, workers: Callable[[], int], *, has_blobs: bool = False
    ) -> None:
        self._store, self._limit, self._worker, self._workers = store, limit_bytes, worker, workers
        self._has_blobs = has_blobs
        self._records_limit = 2 * limit_bytes if has_blobs else limit_bytes
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._notes = 0
        self._lock = Lock()

    def stored(self, w: str, r: str, fence: tuple[str, bytes], size_bytes: int) -> None:
        """So much was written for a request just now. May read and write the store; what fails there is made up for."""
        with self._lock:
            account = self._accounts.get((w, r))
            if account is None:
                account = self._accounts[w, r] = _Account()
                if len(self._accounts) > REQUESTS_MAX:
                    del self._accounts[next(iter(self._accounts))]
            account.pending += size_bytes
            is_step = account.pending >= self._limit // (SHARE * max(self._workers(), 1))
            if account.noted > self._records_limit or not is_step:
                return
            step, account.pending = account.pending, 0
            self._notes += 1
            key = keys.stored(w, r, f"{self._worker}.{self._notes}")
        try:
            account.noted = self._sum(w, r, fence, key, step)
        except (StoreUnavailable, StoreFull) as error:
            _log.info("what request %s keeps in the store is added up later: %s", r, error)
            account.pending += step

    def spills(self, w: str, r: str) -> bool:
        """Whether the chunks of the request are to become blobs from now on."""
        return self._has_blobs and self._noted(w, r) > self._limit

    def is_over(self, w: str, r: str) -> bool:
        """Whether the request is known to keep more than it may."""
        return self._noted(w, r) > self._records_limit

    def forget(self, w: str, r: str) -> None:
        """The request has ended."""
        with self._lock:
            self._accounts.pop((w, r), None)

    def report(self, handler: str, output: str = "") -> ErrorReport:
        """Why an invocation of such a request fails."""
        limit = f"{self._limit / 2**20:g} MB"
        if self._has_blobs:
            kept = f"more than twice {limit} in the store (MR_REQUEST_STORE_MB), beside its blobs"
            help_ = "let its handlers yield less, or bigger and fewer datasets, or raise the limit on all workers"
        else:
            kept = f"more than {limit} in the store (MR_REQUEST_STORE_MB)"
            help_ = (
                "set MR_BLOB_URL, on the front end and all workers, to where more may lie, or let its handlers yield "
                "less, or files by name on a shared file system, or raise the limit on all workers"
            )
        return ErrorReport(
            class_="output_limit",
            type="RequestTooBig",
            message=f"the request keeps {kept}: {help_}",
            handler=handler,
            output=output,
        )

    def _noted(self, w: str, r: str) -> int:
        account = self._accounts.get((w, r))
        return account.noted if account is not None else 0

    def _sum(self, w: str, r: str, fence: tuple[str, bytes], key: str, step: int) -> int:
        """Note a step, unless the request is over meanwhile, and add up all there are."""
        note = Put(key, b"%d" % step)
        if self._store.abilities.transactions:
            self._store.commit(Transaction(conditions=[Equals(*fence)], operations=[note]))
        elif (entry := self._store.get(fence[0])) is not None and entry.value == fence[1]:
            self._store.commit(Transaction(operations=[note]))
        total, after = 0, ""
        while True:
            page = self._store.range(keys.stored(w, r), after=after)
            total += sum(int(entry.value) for entry in page.entries)
            if not page.more:
                return total
            after = page.entries[-1].key
