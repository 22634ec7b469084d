"""Blob store: where the data of requests lies that is too much for the store.

A blob is some bytes under a name such as `workflow/request/execution/kind/00000003`: names of letters, digits, `_`,
`-` and `.` with slashes between, none of which begins with a dot. It is written once, whole; who writes it again, after
an answer that never came, writes the same.

The hard part is left to the store: a blob counts for nothing until a record there names it, and it is written before
that. So a blob store needs neither transactions nor an order, only that what it has taken stays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import msgspec


class Blob(msgspec.Struct, frozen=True):
    """What is known of a blob. `written_at` in seconds since 1970, None where the backend keeps no time."""

    name: str
    size_bytes: int
    written_at: float | None = None


class BlobStore(ABC):
    """Blobs by name. Safe to call from several threads. `place` says where they lie, without secrets.

    Raises, all methods: PathRefused for a name that is none; BlobStoreUnavailable when the backend does not answer, or
    does not have the directory or bucket that has to be there.
    """

    place: str

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write a blob.

        Guarantee: durable when it returns, and never seen in part; one that is there is replaced. After an error it is
        there, whole, or not; what a cut-off write leaves goes with the prefix.
        """

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """A blob; None if there is none of the name."""

    @abstractmethod
    def remove(self, prefix: str) -> None:
        """Remove the blob of that name, or all blobs below it, where it stands for whole names: `w/r` is not `w/r2`.

        A repeat goes on, or finds nothing; two at once are harmless.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Blob]:
        """All blobs below a prefix of whole names, or all there are, in no order. What is no blob is not shown."""
