"""What the facts of a request say: what is done, and what is due.

One walk from a mapper down answers everything: the sweeper's "what is overdue", the "look first" of a message
that comes again, and the state of every invocation in the tree. Readers go by `done` alone: a part, a manifest
or a reduce below a finished slice is history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from mr.model import ids
from mr.rules import fan_out


class Shape(msgspec.Struct, frozen=True):
    """What matters of a manifest: `step` is None where the mapper returned data."""

    count: int
    slice: int
    step: str | None
    session: int = 0
    execution: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Which facts of a request exist: manifests by path, done slices and parts by path, reduces that are due."""

    manifests: Mapping[str, Shape] = {}
    done: Mapping[str, frozenset[int]] = {}
    parts: Mapping[str, Mapping[int, frozenset[int]]] = {}
    reduces: frozenset[str] = frozenset()


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """Something that nobody has recorded as done.

    `map`: children `first` up to `to` of `p` have to run (all in one slice). `slice`: all parts of slice `first`
    of `p` are there, its `done` is not. `reduce`: `p` has to be reduced. `end`: the root is done, the request
    is still active. `write`: its result has to be handed out.
    """

    kind: Literal["map", "slice", "reduce", "end", "write"]
    p: str
    first: int = 0
    to: int = 0


def read(keys: Sequence[str], manifests: Mapping[str, Shape]) -> Facts:
    """Facts from the keys below `entities/invocation/<w>/<r>/`, given without that prefix."""
    done: dict[str, set[int]] = {}
    parts: dict[str, dict[int, set[int]]] = {}
    reduces: set[str] = set()
    for key in keys:
        kind, _, rest = key.partition("/")
        if kind == "done":
            p, _, number = rest.partition("/")
            done.setdefault(p, set()).add(int(number))
        elif kind == "part":
            p, number, child = rest.split("/")
            parts.setdefault(p, {}).setdefault(int(number), set()).add(int(child))
        elif kind == "reduce":
            reduces.add(rest)
    return Facts(
        manifests=manifests,
        done={p: frozenset(numbers) for p, numbers in done.items()},
        parts={p: {n: frozenset(children) for n, children in of.items()} for p, of in parts.items()},
        reduces=frozenset(reduces),
    )


def is_complete(facts: Facts, p: str) -> bool:
    """Whether all slices of mapper `p` are done."""
    shape = facts.manifests[p]
    return len(facts.done.get(p, ())) >= fan_out.slices(shape.count, shape.slice)


def due(facts: Facts, p: str = ids.ROOT, first: int = 0, to: int | None = None) -> Iterator[Due]:
    """What is due below children `first` up to `to` of mapper `p` (all of them without), and at `p` itself.

    Nothing is due below a manifest that does not exist; whoever asks starts at one that does.
    """
    shape = facts.manifests.get(p)
    if shape is None:
        return
    if shape.step is None or is_complete(facts, p):
        yield Due(kind="end" if p == ids.ROOT else "reduce", p=p)
        return
    done = facts.done.get(p, frozenset())
    to = shape.count if to is None else min(to, shape.count)
    for number in range(first // shape.slice, fan_out.slices(to, shape.slice)):
        if number not in done:
            yield from _due_slice(facts, p, shape, number, first, to)


def _due_slice(facts: Facts, p: str, shape: Shape, number: int, first: int, to: int) -> Iterator[Due]:
    start, stop = fan_out.bounds(number, shape.slice, shape.count)
    parts = facts.parts.get(p, {}).get(number, frozenset())
    if len(parts) == stop - start:
        yield Due(kind="slice", p=p, first=number, to=number + 1)
        return
    missing = max(start, first)
    for child in range(missing, min(stop, to)):
        below = ids.child(p, child)
        mapped = below in facts.manifests
        if mapped or child in parts:
            if missing < child:
                yield Due(kind="map", p=p, first=missing, to=child)
            missing = child + 1
        if mapped and child not in parts:
            yield from due(facts, below)
    if missing < min(stop, to):
        yield Due(kind="map", p=p, first=missing, to=min(stop, to))


def is_recorded(facts: Facts, p: str, child: int) -> bool:
    """Whether the result of a child of mapper `p` stands, in its slice or alone."""
    number = child // facts.manifests[p].slice
    return number in facts.done.get(p, ()) or child in facts.parts.get(p, {}).get(number, ())


def due_above(facts: Facts, p: str, child: int) -> Iterator[Due]:
    """What is due at mapper `p` now that the result of a child stands: the end of its slice, or the reduce."""
    shape = facts.manifests[p]
    number = child // shape.slice
    start, stop = fan_out.bounds(number, shape.slice, shape.count)
    if number not in facts.done.get(p, ()):
        if len(facts.parts.get(p, {}).get(number, ())) == stop - start:
            yield Due(kind="slice", p=p, first=number, to=number + 1)
    elif is_complete(facts, p):
        yield Due(kind="end" if p == ids.ROOT else "reduce", p=p)
