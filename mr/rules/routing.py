"""Workflow, direction and capability to the name of a topic."""

from __future__ import annotations

import re
from typing import Literal

from mr.errors import InvalidName

TOPIC_MAX = 64
_TOPIC = re.compile(r"[.a-zA-Z0-9_-]{1,64}", re.ASCII)

Direction = Literal["map", "reduce"]


def topic(workflow: str, direction: Direction, capability: str) -> str:
    """`mr.<workflow>.map.<capability>`; capabilities are compared in lower case.

    Raises: InvalidName if workflow and capability together do not fit a topic.
    """
    name = f"mr.{workflow}.{direction}.{capability.lower()}"
    if not _TOPIC.fullmatch(name):
        raise InvalidName(
            f"workflow {workflow!r} and capability {capability!r} make a topic of {len(name)} characters",
            hint=f"a topic has at most {TOPIC_MAX}; shorten one of them",
        )
    return name


def write_topic(workflow: str) -> str:
    """Where the writes of a workflow's results go. It fits wherever the other topics do, and is like none of them."""
    return f"mr-write.{workflow}"


def check(workflow: str, capability: str) -> None:
    """Refuse, when it is defined, what could not be published later.

    Raises: InvalidName.
    """
    topic(workflow, "map", capability)
    topic(workflow, "reduce", capability)


def topics(workflow: str, capabilities: list[str]) -> list[str]:
    """All topics that a worker with these capabilities consumes for a workflow."""
    directions: tuple[Direction, Direction] = ("map", "reduce")
    return [topic(workflow, direction, capability) for capability in capabilities for direction in directions]
