"""Data beside the records: chunks written by executions, and the readers of results and arguments.

Where a chunk is, in the store or in a blob, is seen when it is read (`blobs.py`), and nobody else has to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import msgspec

from mr import codec
from mr.codec import EMPTY, Items
from mr.collections.queue import Queue
from mr.collections.tree import Tree
from mr.errors import CorruptEntry, NotFound
from mr.model import ids
from mr.model.dataset import Chunks, Payload
from mr.model.invocation import PARTS, Done, Manifest, Part
from mr.model.message import Level
from mr.ports.store import Store
from mr.rules import fan_out, keys
from mr.services.blobs import Blobs

CHUNKS_KEPT = 16
"""Chunks that a process keeps in memory, of about 256 KiB each."""

Kind = Literal["datasets", "pairs", "rows"]
"""What one element is: a child's whole dataset, one pair of a child's dataset, or one combined row."""


class Datasets:
    """Reads the data of requests. A repeat reads the same: data is written once."""

    def __init__(self, store: Store, blobs: Blobs | None = None) -> None:
        self._store, self._blobs = store, blobs or Blobs()
        # A chunk holds the arguments of many runs, and never changes.
        self._chunk = lru_cache(CHUNKS_KEPT)(self._read_chunk)

    def manifest(self, w: str, r: str, p: str) -> Manifest | None:
        """What the mapper `p` decided, if anybody has recorded it."""
        entry = self._store.get(keys.manifest(w, r, p))
        return codec.decode(entry.value, Manifest, where=entry.key) if entry else None

    def arguments(self, w: str, r: str, p: str, first: int, to: int) -> Items:
        """The arguments of children `first` up to `to`, from the manifest that won.

        Raises: NotFound if the request is cleaned away.
        """
        manifest = self.manifest(w, r, p)
        if manifest is None:
            raise NotFound(f"manifest {p} of request {r} is gone")
        return Items.join(self.elements(w, r, manifest.args, first, to))

    def cut(self, w: str, r: str, chunks: Chunks, first: int, to: int) -> Items:
        """The elements `first` up to `to` of data that was staged; its record need not stand yet."""
        return Items.join(self.elements(w, r, Payload(chunks=chunks), first, to))

    def staged(self, w: str, r: str, chunks: Chunks) -> Iterator[Items]:
        """All elements of data that was staged, piece by piece."""
        return self.elements(w, r, Payload(chunks=chunks))

    def whole_slice(self, w: str, r: str, p: str, number: int) -> Iterator[Items] | None:
        """The results of a slice, one dataset an element; None where they stand in parts, or are not all there."""
        entry = self._store.get(keys.done(w, r, p, number))
        if entry is None or entry.value == PARTS:
            return None
        return self.elements(w, r, codec.decode(entry.value, Done, where=entry.key).results)

    def rows(self, w: str, r: str, p: str) -> Iterator[Items]:
        """The combined data that mapper `p` returned."""
        manifest = self.manifest(w, r, p)
        if manifest is None:
            raise NotFound(f"manifest {p} of request {r} is gone")
        yield from self.elements(w, r, manifest.data)

    def inputs(self, w: str, r: str, p: str, level: Level) -> Iterator[tuple[Kind, Items]]:
        """What the reduce of `p` gets, in the order of the children, piece by piece."""
        if not level.step:
            for rows in self.rows(w, r, p):
                yield "rows", rows
            return
        for number in range(fan_out.slices(level.count, level.slice)):
            yield from self.slice_results(w, r, p, number, level)

    def slice_results(self, w: str, r: str, p: str, number: int, level: Level) -> Iterator[tuple[Kind, Items]]:
        """The results of one finished slice."""
        entry = self._store.get(keys.done(w, r, p, number))
        if entry is None:
            raise NotFound(f"slice {number} of {p} of request {r} is gone")
        if entry.value != PARTS:
            done = codec.decode(entry.value, Done, where=entry.key)
            for items in self.elements(w, r, done.results):
                yield "datasets", items
            return
        for child in range(*fan_out.bounds(number, level.slice, level.count)):
            yield from self.part_result(w, r, p, number, child)

    def result(self, w: str, r: str, p: str, child: int, level: Level) -> Iterator[tuple[Kind, Items]]:
        """The result of one child of `p`.

        Raises: NotFound if it is not recorded, or not any more.
        """
        number = child // level.slice
        entry = self._store.get(keys.done(w, r, p, number))
        if entry is None or entry.value == PARTS:
            yield from self.part_result(w, r, p, number, child)
            return
        done = codec.decode(entry.value, Done, where=entry.key)
        place = child % level.slice
        for items in self.elements(w, r, done.results, place, place + 1):
            yield "datasets", items

    def part_result(self, w: str, r: str, p: str, number: int, child: int) -> Iterator[tuple[Kind, Items]]:
        """The result of one child that stands alone."""
        entry = self._store.get(keys.part(w, r, p, number, child))
        if entry is None:
            raise NotFound(f"part {p}.{child} of request {r} is gone")
        part = codec.decode(entry.value, Part, where=entry.key)
        if part.result.chunks is None:
            yield "datasets", Items.of([bytes(part.result.inline)])
        else:
            for items in self.elements(w, r, part.result):
                yield "pairs", items

    def pairs(self, w: str, r: str) -> Iterator[Items]:
        """The result of a finished request, one pair an element."""
        for kind, items in self.slice_results(w, r, "-", 0, Level(1, 1, "")):
            if kind == "pairs":
                yield items
            else:
                for document in items:
                    yield Items.parse(document)

    def session(self, w: str, r: str, p: str, level: Level) -> dict[str, bytes]:
        """The session values that the winning execution of mapper `p` kept, as JSON, by key.

        Raises: NotFound if some are gone: the request is cleaned away.
        """
        if not level.session:
            return {}
        kept = Tree(self._store, keys.sessions(w, r, p, level.execution))
        values = {name: value for (name,), value in kept.walk()}
        if len(values) < level.session:
            raise NotFound(f"the session of {p} of request {r} is gone")
        return values

    def elements(self, w: str, r: str, payload: Payload, first: int = 0, to: int | None = None) -> Iterator[Items]:
        """The elements `first` up to `to` of the data that a record has or names, piece by piece.

        Raises: NotFound, also between two pieces, if it is cleaned away.
        """
        if payload.chunks is None:
            items = Items.parse(payload.inline) if bytes(payload.inline) else EMPTY
            yield items.cut(first, len(items) if to is None else to)
            return
        to = payload.chunks.total if to is None else to
        start = 0
        for number, count in enumerate(payload.chunks.counts):
            if start < to and start + count > first:
                chunk = self.chunk(w, r, payload.chunks, number)
                yield chunk.cut(max(first - start, 0), min(to - start, count))
            start += count

    def chunk(self, w: str, r: str, chunks: Chunks, number: int) -> Items:
        """One chunk.

        Raises: NotFound if it is cleaned away; CorruptEntry if it has another length than its record says, or is a blob
        that is not there; StoreUnavailable, BlobStoreUnavailable.
        """
        queue = keys.chunks(w, r, chunks.execution, chunks.kind)
        try:
            items = self._chunk(queue, number)
        except CorruptEntry as error:
            # A clean-up takes the facts, then the blobs, then what names them.
            if self._store.get(keys.manifest(w, r, ids.ROOT)) is None:
                raise NotFound(f"chunk {number} of {queue} is gone: request {r} is cleaned away") from error
            raise
        if len(items) != chunks.counts[number]:
            raise CorruptEntry(
                f"chunk {number} of {queue} has {len(items)} elements, its record says {chunks.counts[number]}"
            )
        return items

    def _read_chunk(self, queue: str, number: int) -> Items:
        chunks = Queue(self._store, queue)
        value = chunks.get(number)
        if value is None:
            raise NotFound(f"chunk {number} of {queue} is gone")
        return Items.parse(msgspec.Raw(self._blobs.read(chunks.key(number), value)))
