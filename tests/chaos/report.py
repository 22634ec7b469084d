"""The figures of many trials, a line for each pair and kind."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from tests.chaos.trial import Record

_HEAD = ("pair", "kind", "runs", "done", "killed at (% of leaves)", "recovery p50", "max", "leaves twice", "most")
_ROW = "{:9} {:12} {:>5} {:>6}  {:24} {:>12} {:>8} {:>13} {:>5}"


def table(records: Iterable[Record]) -> str:
    """The table: `done` is the share of runs without any problem; recovery is in seconds beyond an undisturbed run."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.pair, record.kind), []).append(record)
    lines = [_ROW.format(*_HEAD)]
    for (pair, kind), group in groups.items():
        shares = sorted(round(100 * record.done) for record in group)
        recoveries = [record.recovery_s for record in group if record.recovery_s is not None]
        good = sum(not record.problems for record in group) / len(group)
        lines.append(
            _ROW.format(
                pair,
                kind,
                len(group),
                f"{good:.0%}",
                f"{shares[0]}-{shares[-1]}, p50 {median(shares):.0f}",
                f"{median(recoveries):.2f} s" if recoveries else "",
                f"{max(recoveries):.2f} s" if recoveries else "",
                f"{sum(record.twice for record in group)}",
                max(record.executions for record in group),
            )
        )
    return "\n".join(lines)
