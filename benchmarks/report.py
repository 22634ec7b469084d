"""What people read (tables on stderr) and what programs read (one JSON document on stdout)."""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine
from benchmarks.measure import DISTURBED_PERCENT, Goal, Standing, Turn, Verdict
from benchmarks.peers.contestants import Tuning

NOTES = {
    "always": "Redis answers after its disk has the data, as mr's stores do (appendfsync always)",
    "everysec": "Redis may lose its last second of work in a crash, mr's stores lose nothing (appendfsync everysec)",
}
_console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)


class Finding(msgspec.Struct, frozen=True):
    """One workload, done."""

    title: str
    standings: dict[str, Standing]
    verdicts: list[Verdict]


class Report(msgspec.Struct, frozen=True):
    """A whole run."""

    machine: Machine
    peers: dict[str, str]
    tuning: Tuning
    rounds: int
    findings: dict[str, Finding]


def say(text: str) -> None:
    _console.print(text, markup=False, soft_wrap=True)


def show_machine(machine: Machine, peers: dict[str, str], tuning: Tuning) -> None:
    say(
        f"{machine.cores} cores ({machine.processor}), {machine.memory_gb:g} GB, Linux {machine.kernel}, "
        f"Python {machine.python}, load {machine.load}; data in {machine.folder} ({machine.filesystem}, "
        f"a synced write {machine.sync_ms:g} ms)"
    )
    say("peers: " + ", ".join(f"{name} {version}" for name, version in peers.items()))
    say(f"{NOTES.get(tuning.appendfsync, tuning.appendfsync)}; one contestant runs at a time")
    say("the client is a process of its own on the same cores, the same one for all; its CPU is in the JSON")


def show_turn(name: str, number: int, turn: Turn | str) -> None:
    if isinstance(turn, str):
        say(f"  turn {number}  {name}  failed: {turn}")
    else:
        figures = "  ".join(f"{key} {_number(value)}" for key, value in turn.figures.items())
        disturbed = f"  disturbed: others used {turn.others_percent:.0f} % of a core" if turn.is_disturbed else ""
        say(f"  turn {number}  {name}  {figures}{disturbed}")


def show(finding: Finding) -> None:
    figures = list(dict.fromkeys(key for standing in finding.standings.values() for key in standing.medians))
    table = Table("median (lowest to highest)", *figures)
    for name, standing in finding.standings.items():
        cells = []
        for figure in figures:
            values = [turn.figures[figure] for turn in standing.turns if figure in turn.figures]
            if not values:
                cells.append("failed" if standing.errors else "")
            elif len(values) == 1:
                cells.append(_number(values[0]))
            else:
                cells.append(f"{_number(standing.medians[figure])} ({_number(min(values))} to {_number(max(values))})")
        table.add_row(name, *cells)
    _console.print(table)
    if finding.verdicts:
        goals = Table("", "figure", "against", "measured", "goal", "")
        for verdict in finding.verdicts:
            goals.add_row(*_row(verdict))
        _console.print(goals)
    for verdict in finding.verdicts:
        if verdict.is_peer_weak:
            say(
                f"{verdict.goal.contestant}, {verdict.goal.figure}: {verdict.goal.peer} did "
                f"{_number(verdict.peer_value or 0)} here and {_number(verdict.goal.known or 0)} on another machine of "
                "2 cores; this ratio may flatter mr"
            )
    turns = [turn for standing in finding.standings.values() for turn in standing.turns]
    if disturbed := [turn for turn in turns if turn.is_disturbed]:
        say(
            f"Do not trust this: in {len(disturbed)} of {len(turns)} turns other programs used more than "
            f"{DISTURBED_PERCENT:g} % of a core. Run it again when the machine has nothing else to do."
        )


def _row(verdict: Verdict) -> tuple[str, str, str, str, str, str]:
    goal: Goal = verdict.goal
    unit = " x" if goal.peer else ""
    sign = "<=" if goal.at_most else ">="
    measured = f"{verdict.value:.2f}{unit}" if goal.peer else _number(verdict.value)
    if verdict.is_met is None:
        mark = f"not comparable: {goal.needs} below {goal.needs_at_least:g}"
    else:
        mark = "met" if verdict.is_met else "missed"
    return goal.contestant, goal.figure, goal.peer or "", measured, f"{sign} {goal.bound:g}{unit}", mark


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
