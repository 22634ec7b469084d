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
        for name, share in (taken or {}).items():
            self._free[name] = (self._free[name] or 0.0) - share
        return taken

    def give_back(self, taken: Mapping[str, float]) -> None:
        """It does not run any more."""
        for name, share in taken.items():
            self._free[name] = (self._free[name] or 0.0) + share

    def exhausted(self, topics: Mapping[str, str]) -> Set[str]:
        """Those of the topics, given with what they require, of which nothing could run now."""
        if not self._is_limited:
            return frozenset()
        return {topic for topic, required in topics.items() if requirement(required).take(self._free) is None}
