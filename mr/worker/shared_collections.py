"""`COLLECTIONS`: the queues and trees of its workflow, as a handler has them.

Each method is one question to the supervisor, or one for each page; values are JSON, and looked at before they leave.
`services.collections` does the rest, and says what is guaranteed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from mr.codec import Items, dumps
from mr.errors import ValueRefused
from mr.model import names, operation
from mr.model.operation import Operation
from mr.rules import limits
from mr.worker.asking import Asking
from mr.worker.scope import Refused

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
Ask = Callable[..., tuple[Items, bool]]


class SharedCollections:
    """The collections of one workflow, by name; one that is not there yet is empty."""

    def __init__(self, asking: Asking, workflow: str) -> None:
        self._asking, self._workflow = asking, workflow

    def queue(self, name: str) -> HandlersQueue:
        """A queue. Raises: InvalidName."""
        return HandlersQueue(self._ask, names.check("queue", _text(name)))

    def tree(self, name: str) -> HandlersTree:
        """A tree. Raises: InvalidName."""
        return HandlersTree(self._ask, names.check("tree", _text(name)))

    def _ask(self, asked: Operation, value: bytes = b"") -> tuple[Items, bool]:
        return self._asking.ask(self._workflow, asked, value)


class HandlersQueue:
    """Values in an order, each under its number. All methods raise StoreUnavailable, StoreFull."""

    def __init__(self, ask: Ask, name: str) -> None:
        self._ask, self.name = ask, name

    def append(self, value: Any, key: str = "") -> int:
        """Write a value behind all others; its number.

        With a key, a repeat changes nothing and gives the number of what was appended under it first.
        """
        asked = operation.Append(queue=self.name, key=_text(key))
        return int(_one(self._ask(asked, _data(value, f"queue {self.name}"))))

    def get(self, number: int, default: Any = None) -> Any:
        """The value under a number, or the default."""
        return _one(self._ask(operation.Item(queue=self.name, number=_number(number))), default)

    def items(self, *, after: int = -1) -> Iterator[tuple[int, Any]]:
        """Numbers and values in order, those behind the number `after`; read as they are wanted, in pages."""
        after = _number(after)
        more = True
        while more:
            found, more = self._ask(operation.Items(queue=self.name, after=after))
            for document in found:
                after, value = _decode(document)
                yield after, value

    def clear(self) -> None:
        """Take all values out; the next number is 0 again."""
        self._ask(operation.Clear(queue=self.name))

    def __len__(self) -> int:
        return int(_one(self._ask(operation.Count(queue=self.name))))

    def __bool__(self) -> bool:
        return True


class HandlersTree:
    """Nodes with names of any text, each with a value, with children, or both. Methods raise as those of a queue."""

    def __init__(self, ask: Ask, name: str, path: tuple[str, ...] = ()) -> None:
        self._ask, self.name, self._path = ask, name, path

    def at(self, *path: str) -> HandlersTree:
        """The part of the tree from a node on."""
        return HandlersTree(self._ask, self.name, self._down(path))

    def get(self, *path: str, default: Any = None) -> Any:
        """The value of a node, or the default."""
        return _one(self._ask(operation.Get(tree=self.name, path=self._down(path))), default)

    def put(self, value: Any, *path: str) -> None:
        """Give a node its value, whatever it had."""
        asked = operation.Put(tree=self.name, path=self._down(path))
        self._ask(asked, _data(value, f"tree {self.name}"))

    def children(self) -> Iterator[str]:
        """Names of the nodes right below; read as they are wanted."""
        after: str | None = None
        more = True
        while more:
            found, more = self._ask(operation.Children(tree=self.name, path=self._path, after=after))
            for document in found:
                after = _decode(document)
                yield after

    def walk(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """All nodes with a value, from this one on: their names from here, and the value."""
        after: tuple[str, ...] | None = None
        more = True
        while more:
            found, more = self._ask(operation.Walk(tree=self.name, path=self._path, after=after))
            for document in found:
                path, value = _decode(document)
                after = tuple(path)
                yield after, value

    def remove(self, *path: str) -> None:
        """Remove a node, with all that is below it."""
        self._ask(operation.Remove(tree=self.name, path=self._down(path)))

    def _down(self, path: tuple[str, ...]) -> tuple[str, ...]:
        return (*self._path, *map(_text, path))


def _text(name: str) -> str:
    if type(name) is not str:
        raise TypeError(f"a name or key in a collection is a str, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Refused("not_serialisable", "a name or key in a collection holds a lone surrogate") from error
    return name


def _number(number: int) -> int:
    if type(number) is not int:
        raise TypeError(f"the number of an item is an int, not {type(number).__name__}")
    return number


def _data(value: Any, place: str) -> bytes:
    try:
        data = dumps(value)
    except ValueRefused as error:
        raise Refused("not_serialisable", f"a value for {place} cannot be kept: {error}") from error
    if len(data) > limits.VALUE_MAX:
        raise Refused(
            "output_limit", f"a value for {place} has {len(data)} bytes as JSON; one record takes {limits.VALUE_MAX}"
        )
    return data


def _one(answer: tuple[Items, bool], default: Any = None) -> Any:
    items, _ = answer
    return _decode(items.blob) if len(items) else default
