"""Folding: of many siblings, which are shown one by one and which together.

Of ten thousand children a person wants the few that are unlike the others. So those that are over and well, and
those beyond the first few in any other state, stand together under their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import msgspec

from mr.services.tree import Node, State

SHOWN_MAX = 8
"""Siblings in one state that are shown one by one; done ones only if there are no more than these altogether."""
ORDER: tuple[State, ...] = ("succeeded", "failed", "running", "queued", "waiting", "cancelled")


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """Siblings in one state, with whatever is below them. `is_rest` if others in the state are shown beside it.

    `seconds` is how long all of them ran, as far as that is known; `retried` of them have attempts that failed.
    """

    state: State
    nodes: list[Node]
    number: int
    is_rest: bool
    seconds: float | None
    retried: int


def folded(nodes: list[Node], shown_max: int = SHOWN_MAX) -> Iterator[Node | Fold]:
    """In order if they are few; else by state, what is unlike one by one and the rest as folds."""
    if sum(node.alike for node in nodes) <= shown_max:
        yield from nodes
        return
    for state, same in groupby(sorted(nodes, key=lambda node: ORDER.index(node.state)), lambda node: node.state):
        alike = list(same)
        # What failed is what one looks for, however little may be shown.
        most = max(shown_max, 1) if state == "failed" else shown_max
        alone = [] if state == "succeeded" else [node for node in alike if node.alike == 1]
        yield from alone[:most]
        rest = [node for node in alike if node.alike > 1 or state == "succeeded"] + alone[most:]
        if rest:
            known = [node.seconds for node in rest if node.seconds is not None]
            yield Fold(
                state=state,
                nodes=rest,
                number=sum(node.alike for node in rest),
                is_rest=bool(alone[:most]),
                seconds=sum(known) if known else None,
                retried=sum(1 for node in rest if node.attempts),
            )
