"""Many entries: page by page, so that neither the store nor the reader has to hold all of them."""

from __future__ import annotations

from collections.abc import Iterator

from mr.ports.store import Entry, Store

PAGE = 500
STEP = 1000
"""Keys removed at once: one delete of 100,000 keys stops etcd for 0.3 s."""


def entries(
    store: Store, prefix: str, *, after: str = "", keys_only: bool = False, at_once: int | None = None
) -> Iterator[Entry]:
    """All entries below a prefix, those after the key `after` only; each page is of its own moment.

    `at_once`: entries in a page, where values may be so big that the usual number would be too much.
    Raises: StoreUnavailable, also between two entries.
    """
    while True:
        page = store.range(prefix, after=after, limit=at_once or PAGE, keys_only=keys_only)
        yield from page.entries
        if not page.more:
            return
        after = page.entries[-1].key


def remove_all(store: Store, prefix: str) -> None:
    """Remove all entries below a prefix. A repeat goes on. Raises: StoreUnavailable."""
    while store.delete_prefix(prefix, limit=STEP):
        pass
