"""A world for the contract suites: no faults, no scheduler, and time is real."""

from __future__ import annotations

import time

from .world import Process, World


class RealTime(World):
    """Threads take the place of greenlets; a switch point only lets its time pass."""

    def __init__(self) -> None:
        super().__init__(seed=0)

    @property
    def process(self) -> Process:
        """All threads are one."""
        return Process("threads")

    @property
    def time(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    @time.setter
    def time(self, value: float) -> None:
        """Nobody sets it."""

    def step(self, label: str, seconds: float = 0.0) -> None:
        """Sleep."""
        if seconds:
            time.sleep(seconds)
