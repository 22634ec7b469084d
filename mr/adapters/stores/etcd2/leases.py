"""Leases, which etcd v2 does not have: it has a time to live for each key, in whole seconds.

A lease is what this process remembers: until when it holds, and which keys with which values stand under it. To keep
it is to refresh them one by one. A key belongs to it as long as it has the value that was put: by the value, because
its index also changes by a refresh whose answer got lost.

Nothing here asks etcd. Ends are taken from before the question, so what is remembered never lasts longer than what
etcd keeps.
"""

from __future__ import annotations

import math
import secrets
import time
from threading import Lock

import msgspec

from mr.errors import NotFound
from mr.ports.store import Lease


class _Held(msgspec.Struct):
    ends_at: float
    values: dict[str, bytes] = {}


class Leases:
    """The leases of this process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._lock = Lock()

    def grant(self, ttl_s: float) -> Lease:
        """A new one, of whole seconds."""
        lease = Lease(secrets.randbits(62) | 1, float(max(1, math.ceil(ttl_s))))
        with self._lock:
            self._held[lease.id] = _Held(time.monotonic() + lease.ttl_s)
        return lease

    def check(self, lease: Lease, key: str) -> None:
        """Raises: NotFound if the lease is over."""
        if not self.holds(lease):
            raise NotFound(f"the lease of {key!r} is over")

    def holds(self, lease: Lease) -> bool:
        """Whether it is not over."""
        held = self._held.get(lease.id)
        return held is not None and time.monotonic() < held.ends_at

    def enter(self, lease: Lease | None, key: str, value: bytes) -> None:
        """A key was put under the lease, or, without one, free of all."""
        with self._lock:
            for number, held in self._held.items():
                if lease is not None and number == lease.id:
                    held.values[key] = value
                else:
                    held.values.pop(key, None)

    def values(self, lease: Lease) -> dict[str, bytes]:
        """What stands under it."""
        with self._lock:
            held = self._held.get(lease.id)
            return dict(held.values) if held else {}

    def drop(self, lease: Lease, key: str, value: bytes) -> None:
        """The key has another value by now, or is gone."""
        with self._lock:
            held = self._held.get(lease.id)
            if held is not None and held.values.get(key) == value:
                del held.values[key]

    def prolong(self, lease: Lease, since: float) -> None:
        """It was kept; `since` is the monotonic time before etcd was asked."""
        with self._lock:
            if lease.id in self._held:
                self._held[lease.id].ends_at = since + lease.ttl_s

    def end(self, lease: Lease) -> None:
        """Forget it."""
        with self._lock:
            self._held.pop(lease.id, None)
