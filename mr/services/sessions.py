"""Sessions: what mappers kept for their reducers, for somebody who looks for a mistake.

A session stands in the store once its mapper is recorded. The common leaf is reduced at the end of its own run and
leaves none; nor does a mapper that is running now. Values of an execution that lost are nobody's, and not shown.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mr import codec
from mr.collections.tree import Tree
from mr.model.invocation import Manifest
from mr.ports.store import Store
from mr.rules import keys
from mr.services.results import Results


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What the mapper at `path` kept, by key."""

    path: str
    values: dict[str, Any]


class Sessions:
    """Reads sessions. Safe to call from several threads."""

    def __init__(self, store: Store, results: Results) -> None:
        self._store, self._results = store, results

    def of(self, w: str, r: str) -> list[Session]:
        """The sessions of a request that stand in the store, in the order of the tree.

        Raises: RequestNotFound; StoreUnavailable.
        """
        self._results.request(w, r)
        kept = Tree(self._store, keys.sessions(w, r))
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for (path, execution, key), value in kept.walk():
            found.setdefault((path, execution), {})[key] = codec.decode(
                value, Any, where=kept.key(path, execution, key)
            )
        sessions = [
            Session(path=path, values=values)
            for (path, execution), values in found.items()
            if self._has_won(w, r, path, execution)
        ]
        return sorted(sessions, key=lambda one: [int(number) for number in one.path.split(".")])

    def _has_won(self, w: str, r: str, path: str, execution: str) -> bool:
        entry = self._store.get(keys.manifest(w, r, path))
        return entry is not None and codec.decode(entry.value, Manifest, where=entry.key).execution == execution
