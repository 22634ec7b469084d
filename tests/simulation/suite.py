"""Many seeds, on all cores, and the table of what they met.

A run counts only if it looked hard enough: half of the seeds have depth 2 or more, every kind of fault struck, and
processes were killed at every effect.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec

from .mutants import hunt
from .run import Report, run_seed
from .world import Faults

EFFECTS = (
    "commit.before", "commit.after", "read.before", "read.after", "publish.before", "publish.after",
    "finish.before", "finish.after", "execute", "backlog", "write.before", "write.after", "blob.before", "blob.after",
)  # fmt: skip
FAULTS = (*Faults.KINDS, "reorder", "writer", "blob")


class Summary(msgspec.Struct):
    """What all seeds did together."""

    seeds: int = 0
    deep: int = 0
    hits: Counter[str] = Counter()
    crashed_at: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    executions: int = 0
    descents: int = 0
    failures: list[Report] = []

    def add(self, report: Report) -> None:
        """Count one seed in."""
        self.seeds += 1
        self.deep += report.depth >= 2
        self.hits += report.hits
        self.crashed_at += report.crashed_at
        self.modes[report.mode] += 1
        self.modes["without transactions"] += not report.transactions
        self.executions += report.executions
        self.descents += report.hits["descent"]
        if report.violation:
            self.failures.append(report)

    def shortcomings(self, *, hits_min: int, crashes_min: int) -> list[str]:
        """Where the run looked away."""
        found = []
        if self.deep * 2 < self.seeds:
            found.append(f"only {self.deep} of {self.seeds} seeds have depth 2 or more")
        if self.descents < hits_min:
            found.append(f"only {self.descents} executions went on below")
        found += [f"fault {k} struck {self.hits[k]} times only" for k in FAULTS if self.hits[k] < hits_min]
        found += [f"killed {self.crashed_at[e]} times only at {e}" for e in EFFECTS if self.crashed_at[e] < crashes_min]
        return found

    def table(self) -> str:
        """For people."""
        lines = [f"{self.seeds} seeds, {self.deep} with depth >= 2, {self.executions} executions"]
        lines[0] += f", {self.descents} of which went on below"
        lines.append("modes    " + "  ".join(f"{k} {n}" for k, n in sorted(self.modes.items())))
        lines.append("faults   " + "  ".join(f"{k} {self.hits[k]}" for k in FAULTS))
        lines.append("kills at " + "  ".join(f"{k} {self.crashed_at[k]}" for k in EFFECTS))
        lines += [
            f"FAILED {r.mode}: {r.violation}\n  repeat: python -m tests.simulation --seeds 1 --from {r.seed}"
            for r in self.failures
        ]
        return "\n".join(lines)


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def run(seeds: int, first: int = 0, processes: int | None = None) -> Summary:
    """Run seeds `first` up to `first + seeds`."""
    summary = Summary()
    for report in _spread(run_seed, list(range(first, first + seeds)), processes):
        summary.add(report)
    return summary


def _spread(task: object, items: list[int], processes: int | None) -> Iterator[Report]:
    # Spawned, not forked: a greenlet's stack does not survive a fork.
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn"), initializer=_quiet) as pool:
        yield from pool.map(task, items, chunksize=25)  # type: ignore[arg-type]


def hunt_quietly(mutant: str, seeds: int) -> Report | None:
    """As `mutants.hunt`, without the log of what the mutant breaks."""
    _quiet()
    try:
        return hunt(mutant, seeds)
    finally:
        logging.disable(logging.NOTSET)
