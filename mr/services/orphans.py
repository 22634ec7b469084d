"""Orphans: keys in the store, and blobs, that are about a request which is not there.

A clean-up leaves nothing; orphans come from processes that stood still while one went on, on stores without
transactions, and from hands. They are harmless, take room, and nobody else ever looks for them.

A blob store that two deployments shared would have blobs of which each finds the other's to be orphans: it must belong
to one.

The hard part is to be sure. A request without record and fence is over or was never accepted, so nothing of it is
wanted; but on a store without transactions an acceptance writes its record last, and may be slow. So what is younger
than an hour is left alone where a time is known, everything is looked at twice, and where the store can, each delete
holds only while record and fence are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from mr import codec
from mr.clock import Clock, stamp
from mr.collections.pages import entries
from mr.errors import CorruptEntry
from mr.model.request import Reply
from mr.ports.blob_store import BlobStore
from mr.ports.store import Absent, Delete, Entry, Store, Transaction
from mr.rules import keys

YOUNG_S = 3600.0
LOOK_AGAIN_S = 5.0

# Families whose keys go on with `<workflow>/<request>`.
FAMILIES: Mapping[str, str] = {
    "facts": keys.FACTS,
    "chunks": keys.DATASETS,
    "sessions": keys.SESSIONS,
    "receipts": keys.RECEIPTS,
    "stopped": keys.STOPPED,
    "pins": keys.PINNED,
    "fences": keys.ACTIVE,
}


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one request. `kinds` has the number of keys by kind, and of blobs, `newest_at` the latest time.

    `version` is that of the key written last: while it stands still nobody writes. A fence, `is_fenced`, is the
    sweeper's to remove.
    """

    workflow: str
    request_id: str
    kinds: dict[str, int]
    version: int
    newest_at: str = ""
    is_young: bool = False

    @property
    def count(self) -> int:
        """Keys of all kinds, and blobs."""
        return sum(self.kinds.values())

    @property
    def is_fenced(self) -> bool:
        """Whether the fence of the request stands."""
        return "fences" in self.kinds


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, and what was left alone because it is young, fenced, or changed meanwhile."""

    removed: list[Orphan]
    left: list[Orphan]


class _Timed(msgspec.Struct):
    at: str = ""


class Orphans:
    """Finds and removes orphans. Repeating is harmless. `blobs` is where those lie, if they do."""

    def __init__(
        self, store: Store, clock: Clock, sleep: Callable[[float], None], blobs: BlobStore | None = None
    ) -> None:
        self._store, self._clock, self._sleep, self._blobs = store, clock, sleep, blobs

    def find(self) -> list[Orphan]:
        """All orphans, by workflow and request. Reads every key of every request once, and lists all blobs.

        Raises: StoreUnavailable, BlobStoreUnavailable.
        """
        kinds: dict[tuple[str, str], dict[str, int]] = {}
        versions: dict[tuple[str, str], int] = {}
        for name, kind, entry in self._keys():
            counts = kinds.setdefault(name, {})
            counts[kind] = counts.get(kind, 0) + 1
            versions[name] = max(versions.get(name, 0), entry.version)
        written: dict[tuple[str, str], float] = {}
        for blob in self._blobs.list() if self._blobs is not None else ():
            w, _, rest = blob.name.partition("/")
            r, below, _ = rest.partition("/")
            if below:
                counts = kinds.setdefault((w, r), {})
                counts["blobs"] = counts.get("blobs", 0) + 1
                written[w, r] = max(written.get((w, r), 0.0), blob.written_at or 0.0)
        # Records last: of a request that was accepted meanwhile the record is seen.
        for entry in entries(self._store, keys.REQUESTS, keys_only=True):
            w, _, r = entry.key[len(keys.REQUESTS) :].partition("/")
            kinds.pop((w, r), None)
        return [
            self._orphan(*name, counts, versions.get(name, 0), written.get(name, 0.0))
            for name, counts in sorted(kinds.items())
        ]

    def remove(self) -> Removal:
        """Look twice, and remove what is old, was the same both times, and has neither record nor fence.

        Raises: StoreUnavailable, BlobStoreUnavailable; what is removed stays so.
        """
        before = {(one.workflow, one.request_id): one for one in self.find()}
        if not before:
            return Removal(removed=[], left=[])
        self._sleep(LOOK_AGAIN_S)
        found = self.find()
        going: dict[tuple[str, str], list[str]] = {
            (one.workflow, one.request_id): []
            for one in found
            if before.get((one.workflow, one.request_id)) == one and not one.is_young and not one.is_fenced
        }
        for name, _, entry in self._keys() if going else ():
            if name in going:
                going[name].append(entry.key)
        with_blobs = {(one.workflow, one.request_id) for one in found if "blobs" in one.kinds}
        gone = {
            name for name, its_keys in going.items()
            if self._remove(*name, its_keys) and (name not in with_blobs or self._remove_blobs(*name))
        }  # fmt: skip
        return Removal(
            removed=[one for one in found if (one.workflow, one.request_id) in gone],
            left=[one for one in found if (one.workflow, one.request_id) not in gone],
        )

    def _keys(self) -> Iterator[tuple[tuple[str, str], str, Entry]]:
        """Every key that is about a request, with workflow and request, and its kind."""
        for kind, prefix in FAMILIES.items():
            for entry in entries(self._store, prefix, keys_only=True):
                w, _, rest = entry.key[len(prefix) :].partition("/")
                yield (w, rest.partition("/")[0]), kind, entry
        for entry in entries(self._store, keys.DUE, keys_only=True):
            _, _, name = entry.key[len(keys.DUE) :].partition("/")
            w, _, r = name.partition("/")
            yield (w, r), "due", entry
        for entry in entries(self._store, keys.REPLIES):
            try:
                reply = codec.decode(entry.value, Reply, where=entry.key)
            except CorruptEntry:
                continue  # nothing says whose it is
            yield (reply.workflow_name, entry.key.rpartition("/")[2]), "replies", entry

    def _orphan(self, w: str, r: str, kinds: dict[str, int], version: int, written_s: float) -> Orphan:
        newest = stamp(datetime.fromtimestamp(written_s, UTC)) if written_s else ""
        for prefix in (keys.facts(w, r), keys.receipts(w, r), keys.pinned(w, r)):
            for entry in entries(self._store, prefix):
                try:
                    newest = max(newest, codec.decode(entry.value, _Timed, where=entry.key).at)
                except CorruptEntry:
                    continue  # `"parts"`, or written by hand: it tells no time
        young = stamp(self._clock.now() - timedelta(seconds=YOUNG_S))
        return Orphan(workflow=w, request_id=r, kinds=kinds, version=version, newest_at=newest, is_young=newest > young)

    def _remove_blobs(self, w: str, r: str) -> bool:
        """Remove the blobs of one, whose id no later request gets; False if its record or its fence has come."""
        assert self._blobs is not None
        if any(self._store.get(key) is not None for key in (keys.request(w, r), keys.active(w, r))):
            return False
        self._blobs.remove(keys.blobs(w, r))
        return True

    def _remove(self, w: str, r: str, going: list[str]) -> bool:
        """Remove the keys of one; False if its record or its fence has come."""
        guards = [Absent(keys.request(w, r)), Absent(keys.active(w, r))]
        if self._store.abilities.transactions:
            at_once = self._store.limits.operations - len(guards)
            for start in range(0, len(going), at_once):
                operations = [Delete(key) for key in going[start : start + at_once]]
                if not self._store.commit(Transaction(conditions=guards, operations=operations)).succeeded:
                    return False
            return True
        for key in going:
            if any(self._store.get(guard.key) is not None for guard in guards):
                return False
            self._store.commit(Transaction(operations=[Delete(key)]))
        return True
