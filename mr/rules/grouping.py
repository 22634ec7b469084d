"""Grouping pairs by key in bounded memory: sorted runs, spilled to disk beyond a limit, merged when read.

Two keys are equal exactly when their canonical JSON is, so grouping never looks at a Python value: keys and values
go in as JSON, and groups come out in the order of the canonical key, the values of each in the order of adding.

    add(key, value) ──▶ table {key: "value,value,…"} ── over the limit ──▶ run file, sorted by key
                              │                                                │
                              └───────────── heapq.merge ◀─────────────────────┘──▶ (key, pieces)

    record of a file    u32 length of key · u32 length of values · key · values joined by commas

The hard part is one group bigger than memory. Its values are kept in pieces of about a megabyte; reading leaves big
pieces on disk as spans, and `Values` decodes one at a time. Handlers get plain lists for everything below
HUGE_BYTES; only a bigger group is shown as `Values`, and only spilled data as a `Table`.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import accumulate
from operator import itemgetter
from struct import Struct
from typing import Any, Protocol, overload

import msgspec

PIECE_BYTES = 1024 * 1024
"""Values of one key are cut into pieces of this size, or one value more."""

INLINE_BYTES = 64 * 1024
"""Bigger pieces stay on disk until they are looked at."""

HUGE_BYTES = 4 * 1024 * 1024
"""Groups whose values take more than this as JSON are not turned into a list."""

ENTRY_BYTES = 250
"""What a new key costs beside its own bytes: a slot of the dict, a bytes and a bytearray object."""

_BUFFER_BYTES = 256 * 1024
_HEAD = Struct("<II")
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_split: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Span:
    """Bytes that stay in a file until `read`."""

    __slots__ = ("_descriptor", "_length", "_offset")

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self) -> bytes:
        """The bytes. Raises: OSError when the file was closed meanwhile."""
        return os.pread(self._descriptor, self._length, self._offset)


Piece = bytes | Span
"""Some values of one key, as JSON joined by commas."""

Group = tuple[bytes, list[Piece]]
"""A key and all of its values, cut into pieces."""


def read(piece: Piece) -> bytes:
    """The piece as bytes."""
    return piece.read() if isinstance(piece, Span) else piece


class _File:
    """Records one after the other; written once from front to end, then read by any number of readers."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "w+b", buffering=_BUFFER_BYTES)
        self.position = 0

    def write(self, key: bytes, values: bytes | bytearray) -> None:
        self._file.write(_HEAD.pack(len(key), len(values)))
        self._file.write(key)
        self._file.write(values)
        self.position += _HEAD.size + len(key) + len(values)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, Piece]]:
        self._file.flush()
        end = self.position if stop is None else stop
        descriptor = self._file.fileno()
        with open(self._path, "rb", buffering=min(_BUFFER_BYTES, max(4096, end - start))) as file:
            file.seek(start)
            position = start
            while position < end:
                key_length, length = _HEAD.unpack(file.read(_HEAD.size))
                key = file.read(key_length)
                position += _HEAD.size + key_length
                if length > INLINE_BYTES:
                    yield key, Span(descriptor, position, length)
                    file.seek(length, os.SEEK_CUR)
                else:
                    yield key, file.read(length)
                position += length

    def close(self) -> None:
        self._file.close()
        os.unlink(self._path)


class Source(Protocol):
    """Groups in their final order, to be read as often as wanted."""

    def __iter__(self) -> Iterator[Group]:
        """From the first to the last."""

    def spool(self) -> Spool:
        """The same groups with their number and places known."""


class Spool:
    """Groups kept on disk in the order of adding; the place of each is known, so that any can be looked up."""

    def __init__(self, path: str) -> None:
        self._file = _File(path)
        self._offsets = array("Q")

    def add(self, key: bytes, pieces: Sequence[Piece]) -> None:
        """Append a group; both as JSON, `pieces` may be empty."""
        self._offsets.append(self._file.position)
        if not pieces:
            self._file.write(key, b"")
        self.extend(key, pieces)

    def extend(self, key: bytes, pieces: Sequence[Piece]) -> None:
        """Append more values to the group added last."""
        for piece in pieces:
            self._file.write(key, read(piece))

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Group]:
        offsets = self._offsets
        number = 0
        position = 0
        group: Group | None = None
        for key, piece in self._file.records():
            if number < len(offsets) and position == offsets[number]:
                number += 1
                if group is not None:
                    yield group
                group = (key, [])
            if group is not None and len(piece):
                group[1].append(piece)
            position += _HEAD.size + len(key) + len(piece)
        if group is not None:
            yield group

    def group(self, index: int) -> Group:
        """One group by its number, 0 to len - 1."""
        stop = self._offsets[index + 1] if index + 1 < len(self._offsets) else None
        records = list(self._file.records(self._offsets[index], stop))
        return records[0][0], [piece for _, piece in records if len(piece)]

    def spool(self) -> Spool:
        """Itself."""
        return self

    def close(self) -> None:
        """Remove the file; spans of it cannot be read any more."""
        self._file.close()


class Groups:
    """Collects pairs in any order and gives groups in the order of their keys.

    Guarantee: at most about `memory_limit_bytes` are held, whatever is added; the rest lies in files under
    `directory`, which must exist and belong to this object until `close`. Raises: OSError when the disk is full.
    """

    def __init__(self, memory_limit_bytes: int, directory: str) -> None:
        self._limit = memory_limit_bytes
        self._directory = directory
        self._table: dict[bytes, bytearray] = {}
        self._full: dict[bytes, list[bytes]] = {}
        self._runs: list[_File] = []
        self._spool: Spool | None = None
        self._held = 0
        self.size_bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Add one pair; `key` is canonical JSON, `value` any JSON. Not after the first reading."""
        values = self._table.get(key)
        if values is None:
            self._table[key] = bytearray(value)
            self._held += ENTRY_BYTES + len(key) + len(value)
        else:
            values += b","
            values += value
            self._held += 1 + len(value)
            if len(values) > PIECE_BYTES:
                self._full.setdefault(key, []).append(bytes(values))
                # Nothing stands in the table for this key until its next value starts a new piece.
                del self._table[key]
        self.size_bytes += len(key) + len(value)
        if self._held > self._limit:
            self._spill()

    def _spill(self) -> None:
        run = _File(self._path(f"run-{len(self._runs)}"))
        self._runs.append(run)
        for key, piece in self._records():
            run.write(key, read(piece))
        self._table.clear()
        self._full.clear()
        self._held = 0

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, f"{id(self):x}-{name}")

    def _records(self) -> Iterator[tuple[bytes, Piece]]:
        table, full = self._table, self._full
        for key in sorted(table.keys() | full.keys() if full else table):
            for piece in full.get(key, ()):
                yield key, piece
            if key in table:
                yield key, bytes(table[key])

    @property
    def spilled(self) -> bool:
        """Whether anything lies on disk."""
        return bool(self._runs)

    def __bool__(self) -> bool:
        return bool(self._table or self._full or self._runs)

    def __iter__(self) -> Iterator[Group]:
        # merge is stable: where keys are equal the earlier run comes first, so values keep their order.
        streams = [*(run.records() for run in self._runs), self._records()]
        records = merge(*streams, key=itemgetter(0)) if self._runs else streams[0]
        current, pieces = b"", list[Piece]()
        for key, piece in records:
            if key == current:
                pieces.append(piece)
                continue
            if pieces:
                yield current, pieces
            current, pieces = key, [piece]
        if pieces:
            yield current, pieces

    def spool(self) -> Spool:
        """All groups merged into one file; made at the first call, kept until `close`."""
        if self._spool is None:
            self._spool = Spool(self._path("merged"))
            for key, pieces in self:
                self._spool.add(key, pieces)
        return self._spool

    def close(self) -> None:
        """Remove all files."""
        for run in self._runs:
            run.close()
        self._runs.clear()
        if self._spool is not None:
            self._spool.close()
            self._spool = None


class Values(Sequence[Any]):
    """The values of a group too big for a list: iterates piece by piece, decodes one piece for an index."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for piece in self._pieces:
            yield from _decode(b"[" + read(piece) + b"]")

    def cut(self) -> Iterator[bytes]:
        """All of them in pieces of about PIECE_BYTES, as JSON joined by commas."""
        return map(read, self._pieces)

    def __len__(self) -> int:
        if not self._ends:
            self._ends = list(accumulate(len(_split(b"[" + read(piece) + b"]")) for piece in self._pieces))
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        place = bisect_right(self._ends, number)
        start = self._ends[place - 1] if place else 0
        return _decode(b"[" + read(self._pieces[place]) + b"]")[number - start]


def values_of(pieces: list[Piece]) -> Sequence[Any]:
    """The decoded values of a group: a list, or `Values` where that would be huge."""
    if sum(map(len, pieces)) > HUGE_BYTES:
        return Values(pieces)
    values: list[Any] = _decode(b"[" + b",".join(map(read, pieces)) + b"]")
    return values


def as_row(group: Group) -> tuple[Any, Sequence[Any]]:
    """A group as `(key, values)`."""
    return _decode(group[0]), values_of(group[1])


def as_pair(group: Group) -> tuple[Any, Any]:
    """A group that holds one value as `(key, value)`."""
    return _decode(group[0]), _decode(read(group[1][0]))


class Table(Sequence[tuple[Any, Any]]):
    """Data on disk that looks like a list of tuples: iterating streams, an index decodes what it names.

    The length and indexes need one more pass over the data when it was not merged yet.
    """

    def __init__(self, source: Source, show: Callable[[Group], tuple[Any, Any]] = as_row) -> None:
        self._source = source
        self._show = show

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(self._show, self._source)

    def __bool__(self) -> bool:
        return next(iter(self._source), None) is not None

    def __len__(self) -> int:
        return len(self._source.spool())

    @overload
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        spool = self._source.spool()
        if isinstance(index, slice):
            return [self._show(spool.group(number)) for number in range(*index.indices(len(spool)))]
        return self._show(spool.group(range(len(spool))[index]))
