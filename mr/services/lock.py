"""A lock key, for changes of several keys on a store that writes one at a time.

It only keeps those who mean well out of each other's way: it stands under a lease, so it may run out while its holder
stands still. What must not happen then has to be guarded by a condition of its own, as a write's last step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mr.errors import NotFound, StoreUnavailable, VersionConflict
from mr.ports.store import Absent, Lease, Put, Store, Transaction
from mr.rules import keys

HELD_S = 5.0
PATIENCE_S = 10.0
PAUSE_S = 0.05


@contextmanager
def locked(store: Store, key: str) -> Iterator[None]:
    """A block that nobody else is in for the same key, unless it takes longer than HELD_S.

    Raises: VersionConflict if others never leave it; StoreUnavailable.
    """
    mine = secrets.token_hex(8).encode()
    deadline = time.monotonic() + PATIENCE_S
    while (lease := _take(store, keys.lock(key), mine)) is None:
        if time.monotonic() > deadline:
            raise VersionConflict(f"{key} is being changed by somebody else", hint="try again")
        time.sleep(PAUSE_S)
    try:
        yield
    finally:
        with suppress(StoreUnavailable):  # it runs out by itself
            store.revoke(lease)


def _take(store: Store, name: str, mine: bytes) -> Lease | None:
    lease = store.grant(HELD_S)
    take = Transaction(conditions=[Absent(name)], operations=[Put(name, mine, lease)], reads=[name])
    try:
        outcome = store.commit(take)
        entry = outcome.entries[name]
        # It may be mine by an attempt whose answer was lost, under an earlier lease, and then runs out sooner.
        if outcome.succeeded or (entry is not None and entry.value == mine):
            return lease
    except NotFound:
        pass  # the lease was over before it was used
    except StoreUnavailable as error:
        if not error.unknown:
            raise
    store.revoke(lease)
    return None
