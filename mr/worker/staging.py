"""Staging: chunks of big data on their way beside the records, written by threads while the loop goes on.

A chunk that becomes a blob may take seconds, or wait for a server that is away. So those have threads of their own, and
the chunks of other requests go past them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mr.codec import Items
from mr.rules import keys
from mr.services.committer import Committer
from mr.services.progress import Visit
from mr.services.quota import Quota
from mr.worker.committing import Stopped
from mr.worker.endings import fence as fence_of

STAGERS = 2
SPILLERS = 4
"""Blobs that are written at a time."""


class Staging:
    """Writes chunks. `post` brings word back into the loop."""

    def __init__(self, committer: Committer, quota: Quota, post: Callable[[Callable[[], None]], Any]) -> None:
        self._committer, self._quota, self._post = committer, quota, post
        self._stagers = ThreadPoolExecutor(STAGERS, thread_name_prefix="stager")
        self._spillers = ThreadPoolExecutor(SPILLERS, thread_name_prefix="spiller")

    def stage(self, visit: Visit, kind: str, number: int, items: Items, then: Callable[[], None]) -> None:
        """Write chunk `number` of a kind; `then` is called in the loop when it is durable."""
        w, r = visit.workflow, visit.request_id
        key = keys.chunk(w, r, visit.execution, kind, number)
        fence = fence_of(visit)

        def write() -> None:
            # A refusal means that the request is over; its visit finds that out by itself.
            try:
                self._committer.stage(fence, [(key, items.array())])
            except Stopped:
                return
            self._post(then)

        (self._spillers if self._quota.spills(w, r) else self._stagers).submit(write)

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._stagers, self._spillers):
            pool.shutdown(wait=False, cancel_futures=True)
