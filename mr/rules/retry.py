"""Attempts: how often a kind of failure may happen before it fails the request.

Budgets, so that one kind of trouble does not use up another's: `exception` (the handler's own doing), `crash` (its
process ended by itself), `lost_worker` (somebody or something else ended it), and `write` (the result writer's).
"""

from __future__ import annotations

import msgspec

ATTEMPTS_EXCEPTION = 1
ATTEMPTS_CRASH = 2
ATTEMPTS_LOST = 5
ATTEMPTS_WRITE = 4
WRITE_PAUSE_S = 1.0
"""Before the second attempt to write a result; it doubles."""

_POINTLESS = frozenset(
    {"protocol", "not_serialisable", "rejected", "output_limit", "unschedulable", "cancelled", "lost_data"}
)
_CRASHES = frozenset({"exit", "signal", "memory"})


class Budget(msgspec.Struct, frozen=True):
    """`name` is part of the attempts' keys; `attempts` how many failures end the request."""

    name: str
    attempts: int


def budget(error_class: str, attempts: int | None) -> Budget:
    """The budget for a class of errors; `attempts` is what the handler's header asks for, if it does."""
    if error_class in _POINTLESS:
        return Budget("exception", 1)
    if error_class == "lost_worker":
        return Budget("lost_worker", ATTEMPTS_LOST)
    if error_class == "result_writer":
        return Budget("write", ATTEMPTS_WRITE)
    if error_class in _CRASHES:
        return Budget("crash", attempts or ATTEMPTS_CRASH)
    return Budget("exception", attempts or ATTEMPTS_EXCEPTION)


def write_pause_s(attempts: int) -> float:
    """How long to wait after so many failed attempts to write a result; a full disk or a server may recover."""
    return WRITE_PAUSE_S * 2.0 ** (attempts - 1)
