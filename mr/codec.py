"""Values to bytes and back: the only serialiser of mr.

Everything stored or sent is JSON. Three doors, by whom we trust:

- `encode` / `decode`: our own structs. Fast, no checks beyond the types.
- `loads`: a document from a stranger. Strict: duplicate keys, NaN and infinities, lone surrogates,
  numbers of over 4,300 digits and nesting beyond 100 are refused, each with its reason.
- `dumps`: a value from a handler. Refused where JSON would lose or change something (bytes, sets, NaN, keys
  that are no strings), with the path to the spot.

`Items` is the form in which datasets travel: the executor encodes each dataset once, and everybody after it
passes bytes along, cutting and joining by lengths, without parsing a single value.
"""

from __future__ import annotations

import json
import math
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from mr.errors import CorruptEntry, InvalidDocument, ValueRefused

DEPTH_MAX = 100
DIGITS_MAX = 4300

T = TypeVar("T")

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_encode_canonical: Callable[[Any], bytes] = msgspec.json.Encoder(order="deterministic").encode


_decoders: dict[Any, Callable[[bytes | msgspec.Raw], Any]] = {}
_making = threading.Lock()


def decoder(kind: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """What decodes a kind, made once. It raises msgspec's errors.

    Always this, never `msgspec.json.decode(data, type=kind)`: on the first use of a struct msgspec writes down the
    types of its fields, and a second thread that decodes it meanwhile reads them half written and takes the process
    with it (0.22, SIGSEGV).
    """
    made = _decoders.get(kind)
    if made is None:
        with _making:
            made = _decoders.setdefault(kind, msgspec.json.Decoder(kind).decode)
    return made


def decode(data: bytes | msgspec.Raw, kind: type[T], *, where: str = "a document") -> T:
    """Bytes of ours as a struct.

    Raises: CorruptEntry naming `where` if they do not have the form of `kind`.
    """
    try:
        return decoder(kind)(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"{where} is not a valid {getattr(kind, '__name__', kind)}: {error}") from error


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value: two keys are equal exactly when these bytes are."""
    return _encode_canonical(value)


def dumps(value: Any, *, size_max: int | None = None) -> bytes:
    """A handler's value as JSON.

    Raises: ValueRefused with the path (`$[1].name`) and the reason.
    """
    _check(value, "$", 0)
    try:
        data = encode(value)
    except UnicodeEncodeError as error:
        raise ValueRefused(f"a text holds a lone surrogate: {error}") from error
    except ValueError as error:
        raise ValueRefused(f"a number has more than {DIGITS_MAX} digits") from error
    if size_max is not None and len(data) > size_max:
        raise ValueRefused(f"a value of {len(data)} bytes is over the limit of {size_max} bytes")
    return data


def _check(value: Any, path: str, depth: int) -> None:
    # Exact types only: a subclass could carry behaviour into the encoder and come back as something else.
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    if kind is float:
        if not math.isfinite(value):
            raise ValueRefused(f"{path} is {value!r}, which JSON cannot hold")
        return
    if depth >= DEPTH_MAX:
        raise ValueRefused(f"{path[:80]} is nested deeper than {DEPTH_MAX}, or holds itself")
    if kind is list or kind is tuple:
        for index, item in enumerate(value):
            inner = type(item)
            if inner is not str and inner is not int:
                _check(item, f"{path}[{index}]", depth + 1)
        return
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ValueRefused(f"{path} has the key {_show(key)}; keys of objects must be str")
            _check(item, f"{path}.{key}", depth + 1)
        return
    raise ValueRefused(f"{path} is a {kind.__name__}; expected str, int, float, bool, None, list, tuple or dict")


def _show(value: Any) -> str:
    # repr of a stranger's object is a stranger's code; only plain types are shown.
    return repr(value) if type(value) in (int, float, bool, bytes, type(None)) else f"of type {type(value).__name__}"


def loads(data: bytes) -> Any:
    """A stranger's JSON document.

    Raises: InvalidDocument with the reason.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8: byte {error.start}") from error
    if _depth_over(text, DEPTH_MAX):
        raise InvalidDocument(f"nested deeper than {DEPTH_MAX}")
    try:
        value = _strictly(text)
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise InvalidDocument(f"nested deeper than {DEPTH_MAX}") from error
    if "\\u" in text:
        _refuse_surrogates(value)
    return value


def _depth_over(text: str, limit: int) -> bool:
    """Whether the document nests deeper than `limit`, decided without recursion."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth, inside, escaped = 0, False, False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            if depth > limit:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidDocument(f"the key {key!r} appears twice in one object")
            seen.add(key)
    return value


def _refuse_constant(name: str) -> Any:
    raise InvalidDocument(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise InvalidDocument(f"a number has {len(text)} digits; at most {DIGITS_MAX} are accepted")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidDocument(f"the number {text[:40]} is out of range")
    return value


def _refuse_surrogates(value: Any) -> None:
    try:
        encode(value)
    except UnicodeEncodeError as error:
        raise InvalidDocument("a text holds a lone surrogate") from error


_strictly: Callable[[str], Any] = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float
).decode
"""Made once: making it costs as much as reading a small document."""


class Items:
    """A run of JSON documents kept as one blob, `document,document,…`, and the length of each.

    Immutable. Cutting and joining cost as much as copying the bytes.
    """

    __slots__ = ("_base", "_ends", "_own", "_start", "lengths")

    def __init__(self, blob: bytes, lengths: array[int]) -> None:
        self.lengths = lengths
        # What is cut from others is a window on their bytes; it gets its own when somebody asks for them.
        self._base = blob
        self._start = 0
        self._ends: list[int] | None = None
        self._own: bytes | None = blob

    @property
    def blob(self) -> bytes:
        """The documents, joined by commas."""
        if self._own is None:
            first, last = self._bounds()
            self._own = self._base[first:last]
        return self._own

    def _bounds(self) -> tuple[int, int]:
        """Where the blob begins and ends in the base."""
        if self._ends is None:
            return 0, len(self._base)
        # Before a document come those before it, and as many commas.
        start, last = self._start, self._start + len(self.lengths) - 1
        return self._ends[start - 1] + start if start else 0, self._ends[last] + last

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> Items:
        """Join documents that are JSON already."""
        return cls(b",".join(documents), array("I", [len(document) for document in documents]))

    @classmethod
    def parse(cls, data: bytes | msgspec.Raw) -> Items:
        """The items of a JSON array, e.g. of a message that came by the queue."""
        return cls.of([bytes(raw) for raw in decode(data, list[msgspec.Raw], where="a list of items")])

    @classmethod
    def join(cls, parts: Iterable[Items]) -> Items:
        """Several runs as one, in order."""
        full = [part for part in parts if part.lengths]
        if len(full) == 1:
            return full[0]
        lengths: array[int] = array("I")
        for part in full:
            lengths.extend(part.lengths)
        return cls(b",".join([part.blob for part in full]), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[bytes]:
        blob, start = self.blob, 0
        for length in self.lengths:
            yield blob[start : start + length]
            start += length + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Items) and self.blob == other.blob and self.lengths == other.lengths

    def __repr__(self) -> str:
        return f"Items({len(self)} documents, {len(self.blob)} bytes)"

    @property
    def size_bytes(self) -> int:
        """Bytes of the blob."""
        first, last = self._bounds()
        return last - first

    def cut(self, start: int, stop: int) -> Items:
        """The items from `start` up to `stop`, by number."""
        if start == 0 and stop >= len(self.lengths):
            return self
        lengths = self.lengths[start:stop]
        if not lengths:
            return EMPTY
        if self._ends is None:
            self._ends = list(accumulate(self.lengths))
        window = Items(self._base, lengths)
        window._ends, window._start, window._own = self._ends, self._start + start, None
        return window

    def item(self, index: int) -> bytes:
        """One document."""
        return self.cut(index, index + 1).blob

    def array(self) -> bytes:
        """All as one JSON array."""
        return b"[" + self.blob + b"]"

    def raw(self) -> msgspec.Raw:
        """All as one JSON array, to stand in a struct unparsed."""
        return msgspec.Raw(self.array())


EMPTY = Items(b"", array("I"))
