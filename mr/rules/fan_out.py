"""How a mapper's children are cut: into slices, into messages, and what a busy worker gives back.

A slice is the unit of one record, so its size trades records against spreading: small enough that every slot
of the fleet gets eight, big enough that a million children make a thousand records.
"""

from __future__ import annotations

from collections.abc import Iterator

SLICES_MAX = 1024
SLICE_MAX = 1024
SLICE_USUAL_MAX = 256
CHILDREN_MAX = SLICES_MAX * SLICE_MAX
SLICES_PER_SLOT = 8
SPREAD_AFTER_S = 0.02
"""A visit shorter than this needs no queue; a longer one publishes what it has not started."""
PATIENCE_S = 0.1
"""A run of children that is expected to last longer than this is given back in part."""


def slice_size(count: int, slots: int, *, seconds_each: float | None = None, forced: int | None = None) -> int:
    """Children to a slice, between 1 and SLICE_MAX.

    `slots`: executors of the fleet. `seconds_each`: what a child of this handler took last time, if known.
    """
    least = -(-count // SLICES_MAX) or 1
    if forced:
        return min(max(forced, least), SLICE_MAX)
    wanted = min(count // (SLICES_PER_SLOT * max(slots, 1)), SLICE_USUAL_MAX)
    if seconds_each:
        wanted = min(wanted, int(SPREAD_AFTER_S / seconds_each))
    return min(max(wanted, least, 1), SLICE_MAX)


def slices(count: int, size: int) -> int:
    """How many slices there are."""
    return -(-count // size)


def bounds(number: int, size: int, count: int) -> tuple[int, int]:
    """First child of a slice, and one past its last."""
    return number * size, min((number + 1) * size, count)


def gives_back(*, left: int, finished: int, running_s: float, current_s: float) -> bool:
    """Whether children that wait behind the running one should go to others.

    `left`: not started yet. `running_s`: since the run began, in which `finished` children ended; `current_s`:
    since the running child began.
    """
    if left == 0:
        return False
    each = max(running_s / finished if finished else 0.0, current_s)
    return each * left > PATIENCE_S


def messages(
    first: int, to: int, *, size: int, seconds_each: float | None, forced: int | None = None
) -> Iterator[tuple[int, int]]:
    """Cut children `first` up to `to` into the ranges of messages.

    A message has whole slices, several where they are quick; or, where children are slow, a part of one slice.
    """
    if forced:
        per_message = forced
    elif seconds_each is None:
        per_message = size
    else:
        per_message = max(1, min(int(PATIENCE_S / seconds_each) if seconds_each else SLICE_MAX, SLICE_MAX))
    while first < to:
        in_slice_to = (first // size + 1) * size
        if per_message >= size and first % size == 0:
            stop = min(to, first + per_message // size * size)
        else:
            stop = min(to, in_slice_to, first + per_message)
        yield first, stop
        first = stop
