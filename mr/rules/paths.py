"""Paths on the shared file system: relative to the directory of their workflow, and never above it."""

from __future__ import annotations

from mr.errors import PathRefused

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
