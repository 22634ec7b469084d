"""What stands between a mapper and its reducer: rows `(key, [value, …])`, grouped by the default or a custom combiner.

Combined data is read twice when the fused reducer fails: once by it, once to be sent away. A reducer may change the
lists that it gets, so what is kept is never what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from mr.codec import canonical, encode
from mr.rules.grouping import INLINE_BYTES, Groups, Spool, Table, as_pair, as_row, read
from mr.worker.frames import PIECE_BYTES, Limits
from mr.worker.pairs import SMALL_BYTES, Pair, Spot, as_tuple, check_dataset, decode, encoded
from mr.worker.scope import Refused

LIST_BYTES = 8 * 1024 * 1024
"""Data of up to this much JSON is shown to handlers as plain lists."""

_rows: Callable[[bytes], list[tuple[Any, list[Any]]]] = msgspec.json.Decoder(list[tuple[Any, list[Any]]]).decode


class Combined(Protocol):
    """Combined data of one invocation."""

    def results(self) -> Sequence[Any]:
        """For a reducer, which may change it: a list, or a `Table` when it is big."""

    def rows(self) -> Iterator[bytes]:
        """Each row as JSON, `[key, [value, …]]`, or `[key, [value, …], 1]` where it continues the one before."""


class Few:
    """Pairs of a small mapper, combined by default: grouped by key, values in the order of yielding."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[Pair]) -> None:
        self._pairs = pairs

    def results(self) -> Sequence[Any]:
        return grouped(self._pairs)

    def rows(self) -> Iterator[bytes]:
        return map(encode, _grouped_raw(self._pairs))


class Rows:
    """A small number of rows from a custom combiner, as JSON."""

    __slots__ = ("_documents",)

    def __init__(self, documents: list[bytes]) -> None:
        self._documents = documents

    def results(self) -> Sequence[Any]:
        return _rows(b"[" + b",".join(self._documents) + b"]")

    def rows(self) -> Iterator[bytes]:
        return iter(self._documents)


class Many:
    """Rows of many pairs, in memory or on disk; `size_bytes` is their size as JSON."""

    __slots__ = ("_size_bytes", "_source")

    def __init__(self, source: Groups | Spool, size_bytes: int) -> None:
        self._source = source
        self._size_bytes = size_bytes

    def results(self) -> Sequence[Any]:
        return [as_row(group) for group in self._source] if self._size_bytes <= LIST_BYTES else Table(self._source)

    def rows(self) -> Iterator[bytes]:
        for key, pieces in self._source:
            if sum(map(len, pieces)) <= 4 * PIECE_BYTES:
                yield b"[" + key + b",[" + b",".join(map(read, pieces)) + b"]]"
                continue
            more = b"]]"
            for piece in pieces:
                yield b"[" + key + b",[" + read(piece) + more
                more = b"],1]"


class GroupSink:
    """Takes a mapper's many pairs and groups them."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    def add(self, key: bytes, value: bytes) -> None:
        self.groups.add(canonical(decode(key)) if key[:1] in b"[{" else key, value)


class PairSpool:
    """Takes a mapper's many pairs for a custom combiner, which gets them in order, one at a time or by index."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.size_bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        self._spool.add(key, (value,))
        self.size_bytes += len(key) + len(value)

    def results(self) -> Sequence[Any]:
        """The pairs as a combiner's `results`."""
        table = Table(self._spool, as_pair)
        return [*table] if self.size_bytes <= LIST_BYTES else table


class RowSpool:
    """Takes a custom combiner's many rows; `value` is a JSON list."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.size_bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        self.spool.add(key, cut(value[1:-1]))
        self.size_bytes += len(key) + len(value)


def custom_rows(
    source: Iterator[Any], spot: Spot, limits: Limits, overflow: Callable[[], RowSpool]
) -> tuple[Combined, int]:
    """What a custom combiner yields, and how many rows: keys with lists of values, in its own order.

    Raises: Refused when a value is no list or cannot be kept; whatever the combiner raises.
    """
    documents: list[bytes] = []
    spool: RowSpool | None = None
    count = size = 0
    for pair in source:
        key, values = pair if type(pair) is tuple and len(pair) == 2 else as_tuple(pair, spot)
        if not isinstance(values, list | tuple):
            raise Refused(
                "protocol",
                f"{spot} yields a {type(values).__name__} beside its key; expected (key, list of values)",
            )
        name = encoded(key, spot, limits, "key")
        if len(values) <= 1000:
            data = encoded(values, spot, limits, "value", whole=True)
        if len(values) > 1000 or len(data) > limits.value:
            data = b"[" + b",".join([encoded(value, spot, limits, "value") for value in values]) + b"]"
        count += 1
        size += len(name) + len(data) + 4
        check_dataset(size, spot, limits)
        if spool is None:
            documents.append(b"[" + name + b"," + data + b"]")
            if size > SMALL_BYTES:
                spool = overflow()
                for document in documents:
                    first, rest = _split_row(document)
                    spool.add(bytes(first), bytes(rest))
        else:
            spool.add(name, data)
    return (Rows(documents), count) if spool is None else (Many(spool.spool, spool.size_bytes), count)


_split_row: Callable[[bytes], tuple[Raw, Raw]] = msgspec.json.Decoder(tuple[Raw, Raw]).decode
_split: Callable[[bytes], list[Raw]] = msgspec.json.Decoder(list[Raw]).decode


def cut(values: bytes) -> list[bytes]:
    """The inside of a JSON list in pieces of some INLINE_BYTES, each with whole values."""
    if len(values) <= 4 * INLINE_BYTES:
        return [values] if values.strip() else []
    pieces, held, size = [], list[bytes](), 0
    for raw in _split(b"[" + values + b"]"):
        value = bytes(raw)
        held.append(value)
        size += len(value) + 1
        if size > INLINE_BYTES:
            pieces.append(b",".join(held))
            held, size = [], 0
    if held:
        pieces.append(b",".join(held))
    return pieces


def grouped(pairs: list[Pair]) -> list[tuple[Any, list[Any]]]:
    """Pairs as rows for a handler, in the order of the canonical keys."""
    if len(pairs) == 1:
        key, value = pairs[0]
        if type(key) is not Raw and type(value) is not Raw:
            return [(key, [value])]
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        if type(value) is Raw:
            value = decode(value)
        add_to(groups, key, value)
    return ordered(groups)


def add_to(groups: dict[Any, list[Any]], key: Any, value: Any) -> None:
    """Put one pair under its key. Texts and ints stand for themselves, anything else as its canonical JSON."""
    kind = type(key)
    if kind is not str and kind is not int:
        key = canonical(decode(key) if kind is Raw else key)
    values = groups.get(key)
    if values is None:
        groups[key] = [value]
    else:
        values.append(value)


def ordered(groups: dict[Any, list[Any]]) -> list[tuple[Any, list[Any]]]:
    """What `add_to` made, as rows in the order of the canonical keys."""
    keys = sorted(groups, key=_canonical) if len(groups) > 1 else groups
    return [(decode(key) if type(key) is bytes else key, groups[key]) for key in keys]


def _grouped_raw(pairs: list[Pair]) -> list[tuple[Any, list[Any]]]:
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        add_to(groups, key, value)
    keys = sorted(groups, key=_canonical)
    return [(Raw(key) if type(key) is bytes else key, groups[key]) for key in keys]


def _canonical(key: Any) -> bytes:
    return key if type(key) is bytes else encode(key)
