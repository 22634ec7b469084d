"""Sizing: how the children of one mapper are cut here, by what is known of its handler and of the fleet."""

from __future__ import annotations

from collections.abc import Iterator

from mr.model.definitions import DefinitionSet
from mr.rules import fan_out
from mr.services.branch import Branch
from mr.services.work import Worker


class Sizing:
    """Sizes for the requests of one definition set."""

    def __init__(self, worker: Worker, definitions: DefinitionSet) -> None:
        self._worker, self._definitions = worker, definitions

    def slice(self, branch: Branch) -> int:
        """Children to a slice; what is complete already is cut as little as possible."""
        if branch.have == branch.count:
            return min(max(branch.count, 1), fan_out.SLICE_MAX)
        return fan_out.slice_size(
            branch.count, self._worker.slots(), seconds_each=self._seconds_each(branch), forced=self._worker.batch_size
        )

    def messages(self, branch: Branch, first: int, to: int) -> Iterator[tuple[int, int]]:
        """The ranges of messages for children `first` up to `to`; the branch has its slice size."""
        assert branch.size is not None
        return fan_out.messages(
            first, to, size=branch.size, seconds_each=self._seconds_each(branch), forced=self._worker.batch_size
        )

    def _seconds_each(self, branch: Branch) -> float | None:
        return self._worker.seconds_each(self._definitions.mapper(branch.step).version)
