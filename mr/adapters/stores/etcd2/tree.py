"""How keys and values stand in etcd v2, which keeps text in a tree of directories.

    entities/request/w/0a1b…  ->  /entities/request/w/0a1b…     the same, with a slash before it
    replies/x/_y~             ->  /replies/x/~5Fy~7E

The hard part is what v2 does without a word: a name that begins with `_` is left out of listings, `.`, `..` and
empty names are folded away, and a value that is no UTF-8 comes back changed. So such names are written with `~` and
hex digits, an empty one as `~` alone; and such values, and empty ones, as `base64:…`. JSON is never one of those.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from mr.errors import CorruptEntry, ValueRefused
from mr.ports.store import Entry

_MARK = "base64:"
_HEX = re.compile(r"~([0-9A-F]{2})")


def path(key: str) -> str:
    """The path of a key, as it stands in a URL.

    Raises: ValueRefused if the key is empty or no text.
    """
    if not key:
        raise ValueRefused("a key of the store is empty")
    return _joined(key.split("/"))


def directory(prefix: str) -> str:
    """The path of the directory below which all keys lie that start with the prefix, and perhaps others."""
    return _joined(prefix.split("/")[:-1])


def key_of(found: str) -> str:
    """The key that stands at a path, as etcd gives it."""
    return "/".join(
        "" if name == "~" else _HEX.sub(lambda match: chr(int(match[1], 16)), name) for name in found[1:].split("/")
    )


def text_of(value: bytes) -> str:
    """What is stored for a value; never empty."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not text.startswith(_MARK):
        return text
    return _MARK + base64.b64encode(value).decode()


def entry_of(node: Any) -> Entry:
    """The entry that a node of python-etcd stands for.

    Raises: CorruptEntry if somebody wrote what is no base64 behind the mark.
    """
    text = node.value or ""
    if text.startswith(_MARK):
        try:
            value = base64.b64decode(text[len(_MARK) :], validate=True)
        except binascii.Error as error:
            raise CorruptEntry(f"{node.key} of etcd begins with {_MARK} and goes on with what is no base64") from error
    else:
        value = text.encode()
    return Entry(key_of(node.key), value, node.modifiedIndex, node.createdIndex)


def _joined(names: Sequence[str]) -> str:
    try:
        return quote("/" + "/".join(map(_written, names)), safe="/~")
    except UnicodeEncodeError as error:
        raise ValueRefused(f"the key {'/'.join(names)!r} holds a lone surrogate") from error


def _written(name: str) -> str:
    if not name:
        return "~"
    name = name.replace("~", "~7E")
    if name.startswith("_") or name in (".", ".."):
        return f"~{ord(name[0]):02X}{name[1:]}"
    return name
