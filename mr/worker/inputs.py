"""What is to be reduced, as it comes in from the supervisor: kept in memory while small, then grouped on disk.

Rows of a leaf are grouped already and stay in their order. Datasets and pairs of children are grouped here, by
canonical key, values in the order of the children.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from mr.codec import Items, canonical
from mr.errors import CorruptEntry
from mr.rules.grouping import Groups, Spool, Table
from mr.worker.combined import LIST_BYTES, add_to, cut, ordered
from mr.worker.frames import InputKind
from mr.worker.pairs import decode

_datasets: Callable[[bytes], list[list[tuple[Any, Any]]]]
_datasets = msgspec.json.Decoder(list[list[tuple[Any, Any]]]).decode
_pairs: Callable[[bytes], list[tuple[Any, Any]]] = msgspec.json.Decoder(list[tuple[Any, Any]]).decode
_rows: Callable[[bytes], list[list[Any]]] = msgspec.json.Decoder(list[list[Any]]).decode
_raw_datasets: Callable[[bytes], list[list[tuple[Raw, Raw]]]]
_raw_datasets = msgspec.json.Decoder(list[list[tuple[Raw, Raw]]]).decode
_raw_pairs: Callable[[bytes], list[tuple[Raw, Raw]]] = msgspec.json.Decoder(list[tuple[Raw, Raw]]).decode
_raw_rows: Callable[[bytes], list[list[Raw]]] = msgspec.json.Decoder(list[list[Raw]]).decode


class Inputs:
    """Collects input frames; `results` is what the reducer gets.

    Takes the makers of its disk-backed parts, which the caller also closes.
    """

    def __init__(self, make_groups: Callable[[], Groups], make_spool: Callable[[], Spool]) -> None:
        self._make_groups = make_groups
        self._make_spool = make_spool
        self._waiting: list[tuple[InputKind, Items]] = []
        self._size = 0
        self._groups: Groups | None = None
        self._spool: Spool | None = None

    def add(self, kind: InputKind, items: Items) -> None:
        """One frame. Raises: CorruptEntry when it does not hold what its kind says."""
        if self._groups is None and self._spool is None:
            self._waiting.append((kind, items))
            self._size += items.size_bytes
            if self._size <= LIST_BYTES:
                return
            waiting, self._waiting = self._waiting, []
            if kind == "rows":
                self._spool = self._make_spool()
            else:
                self._groups = self._make_groups()
        else:
            waiting = [(kind, items)]
        try:
            for one_kind, some in waiting:
                self._store(one_kind, some.array())
        except msgspec.MsgspecError as error:
            raise CorruptEntry(f"the input of a reduce is no list of {kind}: {error}") from error

    def _store(self, kind: InputKind, data: bytes) -> None:
        if self._spool is not None:
            for row in _raw_rows(data):
                key, pieces = bytes(row[0]), cut(bytes(row[1])[1:-1])
                (self._spool.add if len(row) == 2 else self._spool.extend)(key, pieces)
        elif self._groups is not None:
            add = self._groups.add
            for dataset in [_raw_pairs(data)] if kind == "pairs" else _raw_datasets(data):
                for raw, value in dataset:
                    key = bytes(raw)
                    # Only a text without escapes and a plain int are known to be canonical as they stand.
                    if not (key.isdigit() or (key[:1] == b'"' and b"\\" not in key)):
                        key = canonical(decode(key))
                    add(key, bytes(value))

    def results(self) -> Sequence[Any]:
        """Rows as `(key, [value, …])`: a list, or a Table when they are big.

        Raises: CorruptEntry when the input does not hold what its kind says.
        """
        if self._spool is not None:
            return Table(self._spool)
        if self._groups is not None:
            return Table(self._groups)
        groups: dict[Any, list[Any]] = {}
        rows: list[tuple[Any, list[Any]]] = []
        try:
            for kind, items in self._waiting:
                if kind == "rows":
                    for row in _rows(items.array()):
                        if len(row) == 2:
                            rows.append((row[0], row[1]))
                        else:
                            rows[-1][1].extend(row[1])
                    continue
                for dataset in [_pairs(items.array())] if kind == "pairs" else _datasets(items.array()):
                    for key, value in dataset:
                        add_to(groups, key, value)
        except msgspec.MsgspecError as error:
            raise CorruptEntry(f"the input of a reduce is wrong: {error}") from error
        self._waiting = []
        return rows or ordered(groups)
