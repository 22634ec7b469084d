"""A condition: one thing that somebody who runs mr should know about a server, a file or a machine."""

from __future__ import annotations

from enum import Enum

import msgspec


class Health(Enum):
    """How good a condition is. Only FAIL means that something does not work, or soon will not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Condition(msgspec.Struct, frozen=True):
    """What was looked at, how it is, what was found, and what to do about it, one line each.

    `advice` is empty exactly where all is well.
    """

    subject: str
    health: Health
    found: str
    advice: str = ""


def fine(subject: str, found: str) -> Condition:
    """All is well."""
    return Condition(subject, Health.OK, found)


def doubtful(subject: str, found: str, advice: str) -> Condition:
    """It works, and somebody should look at it."""
    return Condition(subject, Health.WARN, found, advice)


def broken(subject: str, found: str, advice: str) -> Condition:
    """It does not work, or soon will not."""
    return Condition(subject, Health.FAIL, found, advice)
