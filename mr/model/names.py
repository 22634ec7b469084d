"""Names that people give, checked once, in one place, by one rule.

Everything that becomes a key, a topic, a path or a part of a URL passes through `check`.
"""

from __future__ import annotations

import re

from mr.errors import InvalidName

LENGTH_MAX = 100
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII)
_REQUEST_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_PATH = re.compile(r"(0|[1-9][0-9]{0,6})(\.(0|[1-9][0-9]{0,6}))*(\.r)?", re.ASCII)


def check(noun: str, name: str) -> str:
    """Return the name if it is a good one for a workflow, job, step, handler or capability.

    Raises: InvalidName saying what was expected.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{noun} name {name[:120]!r} is not allowed",
            hint=f"ASCII letters, digits, '_', '-' and '.' (not first), 1 to {LENGTH_MAX} characters",
        )
    return name


def is_name(name: str) -> bool:
    """Whether `check` would accept it."""
    return _NAME.fullmatch(name) is not None


def is_request_id(text: str) -> bool:
    """Whether text has the form of a request id: 40 lowercase hex digits."""
    return _REQUEST_ID.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether text has the form of an invocation's path within its request: `0.17`, or `0.17.r` for its reduce."""
    return _PATH.fullmatch(text) is not None
