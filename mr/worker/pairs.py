"""The pairs that handlers yield: checked, encoded and, when there are many, passed on before the handler ends.

Every pair is fixed at the moment of its yield, so that a handler may go on changing a list that it has yielded. Small
numbers and short ASCII texts cannot change and cannot be refused, so they stay Python objects; everything else
becomes its JSON (`msgspec.Raw`) at once. That keeps the usual pair at a tenth of the price.

The first thousand pairs are kept in a list. When there are more, all go to a sink that need not keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from mr.codec import dumps, encode
from mr.errors import ValueRefused
from mr.worker.bodies import Body
from mr.worker.frames import PIECE_BYTES, Limits
from mr.worker.scope import MapTo, Refused, Return

PAIRS_MAX = 1000
SMALL_BYTES = 256 * 1024
SHORT = 200
LOW, HIGH = -(2**63), 2**63

Pair = tuple[Any, Any]

decode: Callable[[Any], Any] = msgspec.json.Decoder().decode


class Spot(msgspec.Struct, frozen=True):
    """Who yields, for messages: the body, what it is (`mapper`, …), and its step."""

    body: Body
    noun: str
    step: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.noun} {self.body.name}"


class Sink(Protocol):
    """Takes pairs that are too many for a list."""

    def add(self, key: bytes, value: bytes) -> None:
        """One pair, both as JSON."""


class Pieces:
    """JSON documents on their way out: emitted in pieces of about PIECE_BYTES, the last of which is kept."""

    def __init__(self, emit: Callable[[list[bytes]], None]) -> None:
        self._emit = emit
        self.documents: list[bytes] = []
        self.held = 0
        self.emitted = False

    def add(self, document: bytes) -> None:
        """One more; emits all that are held when they are enough for a piece."""
        self.documents.append(document)
        self.held += len(document) + 1
        if self.held >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Emit what is held."""
        if self.documents:
            documents, self.documents, self.held = self.documents, [], 0
            self.emitted = True
            self._emit(documents)


class PairPieces:
    """A sink that sends pairs out as they come; `pieces` has what was not sent yet."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces

    def add(self, key: bytes, value: bytes) -> None:
        """One pair."""
        self.pieces.add(b"[" + key + b"," + value + b"]")


def generator_of(made: Any, spot: Spot) -> Iterator[Any]:
    """What a reducer or combiner gave, as an iterator. Raises: Refused if it is nothing to iterate over."""
    if type(made) is GeneratorType:
        return made
    if made is None or isinstance(made, str | bytes | dict):
        raise Refused("protocol", f"{spot} gave {_kind(made)}; expected a generator of (key, value) pairs")
    try:
        return iter(made)
    except TypeError as error:
        raise Refused("protocol", f"{spot} gave {_kind(made)}; expected a generator of (key, value) pairs") from error


def collect(source: Iterator[Any], spot: Spot, limits: Limits, overflow: Callable[[], Sink]) -> list[Pair] | Sink:
    """All pairs of a handler: a list of up to PAIRS_MAX, else the sink that `overflow` makes, with all in it.

    Keys and values in the list are small ints and texts, None, bool and float as they are, and Raw for the rest.
    Raises: Refused; whatever the handler raises.
    """
    pairs: list[Pair] = []
    append = pairs.append
    room = SMALL_BYTES
    for pair in source:
        if type(pair) is not tuple or len(pair) != 2:
            pair = as_tuple(pair, spot)
        key, value = pair
        kind = type(key)
        key_is_plain = (kind is str and len(key) < SHORT and key.isascii()) or (kind is int and LOW <= key < HIGH)
        kind = type(value)
        if key_is_plain and (
            (kind is int and LOW <= value < HIGH) or (kind is str and len(value) < SHORT and value.isascii())
        ):
            append(pair)
        else:
            key, value = _fixed(key, spot, limits, "key"), _fixed(value, spot, limits, "value")
            append((key, value))
            room -= _weight(key) + _weight(value)
        if len(pairs) >= PAIRS_MAX or room < 0:
            return _stream(pairs, source, spot, limits, overflow())
    return pairs


def _stream(pairs: list[Pair], source: Iterator[Any], spot: Spot, limits: Limits, sink: Sink) -> Sink:
    size = 0
    add = sink.add
    for key, value in pairs:
        key, value = encode(key), encode(value)
        size += len(key) + len(value) + 4
        add(key, value)
    pairs.clear()
    check_dataset(size, spot, limits)
    for pair in source:
        if type(pair) is not tuple or len(pair) != 2:
            pair = as_tuple(pair, spot)
        key = encoded(pair[0], spot, limits, "key")
        value = encoded(pair[1], spot, limits, "value")
        size += len(key) + len(value) + 4
        if size > limits.dataset:
            check_dataset(size, spot, limits)
        add(key, value)
    return sink


def children(source: Iterator[Any], spot: Spot, limits: Limits, pieces: Pieces) -> int:
    """Each pair of a mapper that mapped, as the arguments `[[key, value]]` of one child; returns how many.

    Raises: Refused; whatever the handler raises.
    """
    count = size = 0
    add = pieces.add
    for pair in source:
        if type(pair) is not tuple or len(pair) != 2:
            pair = as_tuple(pair, spot)
        count += 1
        if count > limits.children:
            raise Refused("output_limit", f"{spot} maps to more than {limits.children} children")
        key, value = pair
        kind = type(key)
        key_is_plain = (kind is int and LOW <= key < HIGH) or (kind is str and len(key) < SHORT and key.isascii())
        kind = type(value)
        if key_is_plain and (
            (kind is int and LOW <= value < HIGH) or (kind is str and len(value) < SHORT and value.isascii())
        ):
            document = encode(((key, value),))
        else:
            key = encoded(key, spot, limits, "key")
            document = b"[[" + key + b"," + encoded(value, spot, limits, "value") + b"]]"
        size += len(document)
        if size > limits.dataset:
            check_dataset(size, spot, limits)
        add(document)
    return count


def check_dataset(size: int, spot: Spot, limits: Limits) -> None:
    """Raises: Refused when an invocation's pairs are over the limit."""
    if size > limits.dataset:
        raise Refused(
            "output_limit", f"{spot} yields more than {limits.dataset} bytes of pairs (see MR_DATASET_MAX_MB)"
        )


def as_tuple(pair: Any, spot: Spot) -> Pair:
    """A yielded object as a tuple of two. Raises: Refused saying what was expected."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return (pair[0], pair[1])
    if isinstance(pair, MapTo | Return):
        name = "MrConfigureToMap" if isinstance(pair, MapTo) else "MrConfigureToReturn"
        raise Refused("protocol", f"{spot} yields {name}(…), which only the first yield of a mapper's body may be")
    raise Refused("protocol", f"{spot} yields {_kind(pair)}; expected a (key, value) pair")


def encoded(value: Any, spot: Spot, limits: Limits, noun: str, *, whole: bool = False) -> bytes:
    """A key or value as JSON; `whole` is for a list whose elements are values, which has no limit of its own.

    Raises: Refused naming step, handler and place.
    """
    if type(value) is str and len(value) > limits.value:
        raise Refused("output_limit", f"{spot} yields a {noun} of {len(value)} characters; limit {limits.value} bytes")
    try:
        data = dumps(value)
    except ValueRefused as error:
        raise Refused("not_serialisable", f"{spot} yields a {noun} that JSON cannot hold: {error}") from error
    if len(data) > limits.value and not whole:
        raise Refused("output_limit", f"{spot} yields a {noun} of {len(data)} bytes; the limit is {limits.value}")
    return data


def _fixed(value: Any, spot: Spot, limits: Limits, noun: str) -> Any:
    kind = type(value)
    if (
        (kind is int and LOW <= value < HIGH)
        or (kind is str and len(value) < SHORT and value.isascii())
        or kind is bool
        or value is None
        or (kind is float and value - value == 0.0)
    ):
        return value
    return Raw(encoded(value, spot, limits, noun))


def _weight(value: Any) -> int:
    return len(bytes(value)) if type(value) is Raw else 0


def _kind(value: Any) -> str:
    kind = type(value)
    if kind in (tuple, list):
        return f"a {kind.__name__} of {len(value)}"
    return "None" if value is None else f"a value of type {kind.__name__}"
