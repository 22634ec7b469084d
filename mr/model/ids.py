"""Ids and paths.

request id      40 hex digits, random
path            place of an invocation in its request: `-` is the virtual mapper that was accepted, its only
                child `0` is the root invocation, `0.17` the root's eighteenth child
invocation id   <request id>.<path>
execution       <worker>.<counter>: one run of one message by one worker
"""

from __future__ import annotations

import secrets

ROOT = "-"


def new_request_id() -> str:
    """A fresh request id."""
    return secrets.token_hex(20)


def new_worker_id() -> str:
    """A fresh id of one life of a worker or front end; never used again after it ends."""
    return secrets.token_hex(6)


def child(path: str, number: int) -> str:
    """The path of the numbered child."""
    return str(number) if path == ROOT else f"{path}.{number}"


def parent(path: str) -> tuple[str, int]:
    """The path of the parent, and the number of this child of it."""
    above, _, number = path.rpartition(".")
    return above or ROOT, int(number)


def depth(path: str) -> int:
    """How many manifests stand above and at this path: 0 for `-`, 1 for `0`, 2 for `0.17`."""
    return 0 if path == ROOT else path.count(".") + 1


def ancestors(path: str) -> list[str]:
    """From `-` down to the path itself."""
    if path == ROOT:
        return [ROOT]
    numbers = path.split(".")
    return [ROOT, *(".".join(numbers[:length]) for length in range(1, len(numbers) + 1))]
