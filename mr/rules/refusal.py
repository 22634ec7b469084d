"""What a mapper may not map to, with the words in which its request fails."""

from __future__ import annotations

from collections.abc import Collection

from mr.model.invocation import ErrorReport
from mr.rules import fan_out, limits

NAME_SHOWN = 200
"""Characters of a name that a handler made up, in a message that goes into records."""


def refusal(workflow: str, steps: Collection[str], step: str, count: int, depth: int) -> ErrorReport | None:
    """The error if an invocation at `depth` may not map to `count` children of a step."""
    name = step[:NAME_SHOWN]
    if step not in steps:
        known = ", ".join(sorted(steps))
        text = f"mapped to step {name!r}, which workflow {workflow!r} does not have; it has: {known}"
        return ErrorReport(class_="rejected", type="UnknownStep", message=text)
    if depth >= limits.DEPTH_MAX:
        text = f"mapped to step {name!r} at depth {depth}; at most {limits.DEPTH_MAX} are allowed"
        return ErrorReport(class_="rejected", type="TooDeep", message=text)
    if count > fan_out.CHILDREN_MAX:
        text = f"mapped to {count} children; at most {fan_out.CHILDREN_MAX} are allowed"
        return ErrorReport(class_="output_limit", type="TooManyChildren", message=text)
    return None
