"""Blobs: the chunks of requests that keep more than the store should hold, each behind a reference in its place.

    queues/dataset/<w>/<r>/<execution>/<kind>/<n>    [element,…]                        a chunk
    queues/dataset/<w>/<r>/<execution>/<kind>/<n>    {"blob":"<w>/<r>/…","bytes":n}     a chunk that is a blob

A chunk is an array and a reference an object, so whoever reads knows which it is, and no record has to say. The blob
is written, whole, before the transaction that names it; a repeat overwrites it with the same. An execution that is lost
in between leaves a blob that nobody names: it lies below its request and goes with it.
"""

from __future__ import annotations

import msgspec

from mr import codec
from mr.errors import BlobStoreUnavailable, CorruptEntry, PathRefused
from mr.ports.blob_store import BlobStore
from mr.rules import keys


class Reference(msgspec.Struct, frozen=True):
    """What stands in the place of a chunk."""

    blob: str
    bytes: int


class Blobs:
    """Chunks in a blob store; `store` is None where none is configured. Safe to call from several threads."""

    def __init__(self, store: BlobStore | None = None) -> None:
        self._store = store

    @property
    def is_there(self) -> bool:
        """Whether chunks can be written as blobs."""
        return self._store is not None

    def write(self, key: str, chunk: bytes) -> bytes:
        """Write the chunk of a key as a blob; the reference to put in its place.

        Guarantee: when it returns the blob is durable. A repeat replaces it. Raises: BlobStoreUnavailable.
        """
        name = keys.blob(key)
        self._configured(key).put(name, chunk)
        return codec.encode(Reference(blob=name, bytes=len(chunk)))

    def read(self, key: str, value: bytes) -> bytes:
        """The chunk that the value of a key is, or names.

        Raises: BlobStoreUnavailable, also where no blob store is configured; CorruptEntry if the blob is not there.
        """
        if not value.startswith(b"{"):
            return value
        reference = codec.decode(value, Reference, where=key)
        store = self._configured(key)
        try:
            chunk = store.get(reference.blob)
        except PathRefused as error:
            raise CorruptEntry(f"{key} names no blob: {error.message}") from error
        if chunk is None or len(chunk) != reference.bytes:
            found = "is not there" if chunk is None else f"has {len(chunk)} bytes"
            raise CorruptEntry(
                f"{key} is the blob {reference.blob} of {reference.bytes} bytes, which {found} at {store.place}",
                hint="front end, workers and commands need the same MR_BLOB_URL; or somebody removed it there",
            )
        return chunk

    def drop(self, key: str) -> None:
        """Remove the blob of a chunk that nobody will name. Raises: BlobStoreUnavailable."""
        self._configured(key).remove(keys.blob(key))

    def remove(self, w: str, r: str) -> None:
        """Remove all blobs of a request, if there is a blob store. Raises: BlobStoreUnavailable."""
        if self._store is not None:
            self._store.remove(keys.blobs(w, r))

    def _configured(self, key: str) -> BlobStore:
        if self._store is None:
            raise BlobStoreUnavailable(
                f"{key} is in a blob store, and this process knows none",
                hint="set MR_BLOB_URL to what the workers have: front end, workers and commands need the same",
            )
        return self._store
