"""Workflow, direction and capability to the name of a topic."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from mr.errors import InvalidName
from mr.model.capability import Amounts, requirement

TOPIC_MAX = 64
_DIRECTIONS = frozenset({"map", "reduce"})
_TOPIC = re.compile(r"[.a-zA-Z0-9_-]{1,64}", re.ASCII)

Direction = Literal["map", "reduce"]


@lru_cache(4096)
def topic(workflow: str, direction: Direction, capability: str) -> str:
    """`mr.<workflow>.map.<capability>`, or `….x<8 hex digits>` for one that is more than a name.

    Raises: InvalidName if workflow and capability together do not fit a topic.
    """
    name = f"mr.{workflow}.{direction}.{requirement(capability).word}"
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
    for noun, name in (("workflow", workflow), ("capability", requirement(capability).word)):
        parts = name.split(".")
        if len(parts) > 1 and not _DIRECTIONS.isdisjoint(parts):
            # `a` with `b.map.c`, and `a.map.b` with `c`, would share a topic.
            raise InvalidName(
                f"{noun} name {name!r} is not allowed",
                hint="'map' and 'reduce' cannot stand between dots, for topics are divided by them",
            )


def topics(workflow: str, capabilities: Iterable[str]) -> list[str]:
    """The topics of what is required."""
    directions: tuple[Direction, Direction] = ("map", "reduce")
    return [topic(workflow, direction, capability) for capability in capabilities for direction in directions]


def served(workflow: str, offered: Amounts, required: Iterable[str]) -> dict[str, str]:
    """What a worker consumes for a workflow, and what each topic requires: the names it offers, and what it satisfies.

    `required` is what handlers of the workflow ask for beyond single names.
    """
    fitting = [*offered, *(text for text in required if requirement(text).fits(offered))]
    return {topic: text for text in fitting for topic in topics(workflow, [text])}
