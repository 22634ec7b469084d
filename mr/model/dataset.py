"""Where data is: small in its record, bigger in chunks beside it.

A **dataset** is a JSON list of pairs `[[key, value], …]`: the arguments of an invocation, or its result. The
children of a mapper, and the results of a slice, are a list of datasets. Both come in two sizes:

    inline    the JSON array itself stands in the record
    chunks    the array was cut; piece n is one JSON array under `queues/dataset/<w>/<r>/<execution>/<kind>/<n>`
"""

from __future__ import annotations

import msgspec


class Chunks(msgspec.Struct, frozen=True, kw_only=True):
    """Data kept beside its record. `counts` has the number of elements in each chunk, in order."""

    execution: str
    kind: str
    counts: list[int]
    size_bytes: int = 0

    @property
    def total(self) -> int:
        """Elements in all chunks together."""
        return sum(self.counts)


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """A JSON array, inline or in chunks; exactly one of the two is set."""

    inline: msgspec.Raw = msgspec.Raw(b"")
    chunks: Chunks | None = None
