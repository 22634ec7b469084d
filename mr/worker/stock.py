"""The stock: how much of what a worker offers is free. Amounts are taken while an invocation runs, names are not."""

from __future__ import annotations

from collections.abc import Mapping, Set

from mr.model.capability import Amounts, requirement

NOTHING: Mapping[str, float] = {}
KEPT_MAX = 10_000


class Stock:
    """`offered` as a worker announces it. Used in one loop."""

    def __init__(self, offered: Amounts) -> None:
        self._offered = offered
        self._free = dict(offered)
        self._is_limited = any(amount is not None for amount in offered.values())
        self._costs: dict[str, Mapping[str, float] | None] = {}
        # What was said last of exhausted topics, and of which topics; None after something moved.
        self._said: tuple[Mapping[str, str], Set[str]] | None = None

    def offers(self, required: str) -> bool:
        """Whether it could ever be run here."""
        return self._cost(required) is not None

    def costs_nothing(self, required: str) -> bool:
        """Whether running it takes no amount of anything, so that it may run beside whatever does."""
        return self._cost(required) == NOTHING

    def _cost(self, required: str) -> Mapping[str, float] | None:
        if required not in self._costs:
            if len(self._costs) >= KEPT_MAX:
                self._costs.clear()
            self._costs[required] = requirement(required).take(self._offered)
        return self._costs[required]

    def take(self, required: str) -> Mapping[str, float] | None:
        """Take what running it needs, to be given back; None if too little is free now."""
        if not self._is_limited:
            return NOTHING
        taken = requirement(required).take(self._free)
        self._move(taken or NOTHING, -1)
        return taken

    def give_back(self, taken: Mapping[str, float]) -> None:
        """It does not run any more."""
        self._move(taken, 1)

    def _move(self, taken: Mapping[str, float], sign: int) -> None:
        for name, share in taken.items():
            # Amounts have three decimals; what floats lose beyond them would add up until nothing fits any more.
            self._free[name] = round((self._free[name] or 0.0) + sign * share, 3)
            self._said = None

    def exhausted(self, topics: Mapping[str, str]) -> Set[str]:
        """Those of the topics, given with what they require, of which nothing could run now."""
        if not self._is_limited:
            return frozenset()
        if self._said is None or self._said[0] is not topics:
            gone = frozenset(topic for topic, text in topics.items() if requirement(text).take(self._free) is None)
            self._said = (topics, gone)
        return self._said[1]
