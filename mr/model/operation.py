"""What a handler may ask of the collections of its workflow, as it travels from an executor to its supervisor."""

from __future__ import annotations

import msgspec


class _OfQueue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do", tag=str.lower):
    queue: str


class _OfTree(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do", tag=str.lower):
    """`path` are the names from the root to a node."""

    tree: str
    path: tuple[str, ...] = ()


class Append(_OfQueue, frozen=True):
    """Write a value, which comes along, behind all others; the answer is its number. A key is written under once."""

    key: str = ""


class Item(_OfQueue, frozen=True):
    """The value under a number, or nothing."""

    number: int


class Items(_OfQueue, frozen=True):
    """Some `[number, value]` in order, those behind a number."""

    after: int = -1


class Count(_OfQueue, frozen=True):
    """How many there are."""


class Clear(_OfQueue, frozen=True):
    """Take all out."""


class Put(_OfTree, frozen=True):
    """Give a node a value, which comes along."""


class Get(_OfTree, frozen=True):
    """The value of a node, or nothing."""


class Children(_OfTree, frozen=True):
    """Some names of nodes right below, those behind a name."""

    after: str | None = None


class Walk(_OfTree, frozen=True):
    """Some `[names, value]` of a node and all below it, those behind a path from there."""

    after: tuple[str, ...] | None = None


class Remove(_OfTree, frozen=True):
    """Remove a node with all that is below it."""


Operation = Append | Item | Items | Count | Clear | Put | Get | Children | Walk | Remove
WRITES = (Append, Put)
"""Those that come with a value."""
