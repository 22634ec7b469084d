"""Paths on file systems: of handlers, below the directory of their workflow; of blobs, spelled in one way only."""

from __future__ import annotations

import re

from mr.errors import PathRefused

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
RULE = "Path must be relative and not higher than the current directory."


def steps(path: str) -> tuple[str, ...]:
    """The names that lead from the root to a path; none for the root itself, as `""` and `"."` spell it.

    `..` takes the name before it back, by the text alone. Raises: PathRefused; TypeError.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    found: list[str] = []
    for name in path.split("/"):
        if name == ".." and found:
            found.pop()
        elif name == "..":
            raise PathRefused(f"{RULE} Got: {path!r}")
        elif name not in ("", "."):
            found.append(name)
    if path.startswith("/") or "\0" in path:
        raise PathRefused(f"{RULE} Got: {path!r}")
    return tuple(found)


def plain(name: str) -> tuple[str, ...]:
    """The names of a path that is spelled in one way only: ASCII letters, digits, `_`, `-` and `.`, which is not first.

    Raises: PathRefused.
    """
    found = tuple(name.split("/"))
    if not all(map(_PLAIN.fullmatch, found)):
        raise PathRefused(f"expected names of ASCII letters, digits, _, - and ., which is not first, got: {name!r}")
    return found
