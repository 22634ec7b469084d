"""Insisting: a call that the store does not answer is made again, after pauses that double."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TypeVar

from mr.errors import StoreFull, StoreUnavailable

PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 1.0
T = TypeVar("T")


def insist(
    call: Callable[[], T],
    pause: Callable[[float], None],
    *,
    until: float = inf,
    tell: Callable[[Exception, float], None] = lambda error, pause_s: None,
) -> T:
    """What the call gives in the end. `until` is a moment of `time.monotonic` after which no pause begins.

    `tell` hears of each failure and the pause after it, in seconds. Raises: what `pause` raises to give up; after
    `until` StoreUnavailable or StoreFull; whatever else the call raises.
    """
    pause_s = PAUSE_FIRST_S
    while True:
        try:
            return call()
        except (StoreUnavailable, StoreFull) as error:
            if monotonic() >= until:
                raise
            tell(error, pause_s)
        pause(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
