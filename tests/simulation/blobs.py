"""A simulated blob store: the port, kept in memory, at the mercy of the world.

It looks who puts what while what stands in the store. A blob that was put while its request had its fence has to go
with it. One that came later has to be taken back by who put it, unless that process died or could not reach it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mr.errors import BlobStoreUnavailable
from mr.ports.blob_store import Blob, BlobStore
from mr.rules import keys, paths

from .backends import SimStore
from .world import Process, World


class SimBlobStore(BlobStore):
    """Every call is a switch point before and after; `store` is that of the requests."""

    place = "simulated"

    def __init__(self, world: World, store: SimStore) -> None:
        self._world, self._store = world, store
        self.blobs: dict[str, bytes] = {}
        self._late: dict[str, Process] = {}
        self._excused: set[str] = set()

    def put(self, name: str, data: bytes) -> None:
        steps = paths.plain(name)
        self._enter()
        if self._world.strikes("blob"):
            how = self._world.rng.choice(("refused", "kept, and not said so", "slow"))
            if how == "slow":
                self._world.step("blob.before", self._world.rng.choice((0.5, 20.0)))
            if how != "refused":
                self._keep(name, steps, data)
            if how != "slow":
                raise BlobStoreUnavailable("the blob store is away")
        self._keep(name, steps, data)
        self._world.step("blob.after")

    def get(self, name: str) -> bytes | None:
        paths.plain(name)
        self._enter()
        if self._world.strikes("blob"):
            raise BlobStoreUnavailable("the blob store is away")
        return self.blobs.get(name)

    def remove(self, prefix: str) -> None:
        paths.plain(prefix)
        self._enter()
        if self._world.strikes("blob"):
            self._excused.add(prefix)
            raise BlobStoreUnavailable("the blob store is away")
        for name in self._below(prefix):
            self.blobs.pop(name, None)
        self._world.step("blob.after")

    def list(self, prefix: str = "") -> Iterator[Blob]:
        if prefix:
            paths.plain(prefix)
        self._enter()
        return iter([Blob(name, len(self.blobs[name])) for name in self._below(prefix)])

    def leftovers(self) -> Sequence[str]:
        """Blobs that should not be there any more when everything is cleaned."""
        return [name for name in self.blobs if not self._is_excused(name)]

    def still(self) -> BlobStore:
        """The same blobs, for the oracle's own reads: nothing happens."""
        return _Still(self)

    def _enter(self) -> None:
        self._world.step("blob.before")

    def _keep(self, name: str, steps: tuple[str, ...], data: bytes) -> None:
        self.blobs[name] = data
        if len(steps) > 2 and keys.active(steps[0], steps[1]) not in self._store.entries:
            self._late[name] = self._world.process

    def _below(self, prefix: str) -> Sequence[str]:
        return [name for name in list(self.blobs) if not prefix or name == prefix or name.startswith(f"{prefix}/")]

    def _is_excused(self, name: str) -> bool:
        late = self._late.get(name)
        return late is not None and (not late.is_alive or name in self._excused)


class _Still(SimBlobStore):
    def __init__(self, other: SimBlobStore) -> None:
        self.blobs = other.blobs

    def get(self, name: str) -> bytes | None:
        return self.blobs.get(name)
