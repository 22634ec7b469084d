"""Turns: every contestant once, then every contestant again (A B C A B C ...), and what the turns say together.

A machine has good and bad minutes. Taking turns gives each contestant its share of both; the median over the turns
keeps one bad minute from deciding.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec

from benchmarks.processes import BenchmarkError, Usage

Figures = dict[str, float]
"""What a turn measured, by name; the name ends in its unit."""


class Turn(msgspec.Struct, frozen=True):
    """One turn of one contestant: its figures, and what its programs used while they were measured."""

    figures: Figures
    usage: dict[str, Usage] = {}


class Contestant(msgspec.Struct, frozen=True):
    """Something that can take a turn: starts itself, is measured, ends itself."""

    name: str
    turn: Callable[[], Turn]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on a contestant's figure: as a ratio to a peer's (`peer_figure` if it has another name), or as it is."""

    contestant: str
    figure: str
    bound: float
    at_most: bool
    peer: str | None = None
    peer_figure: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What became of a goal. `value` is the ratio, or the figure where there is no peer."""

    goal: Goal
    value: float
    is_met: bool


class Standing(msgspec.Struct, frozen=True):
    """All turns of one contestant and the medians of their figures; the errors of turns that failed."""

    medians: Figures
    turns: list[Turn]
    errors: list[str]


def take_turns(
    contestants: Sequence[Contestant], rounds: int, tell: Callable[[str, int, Turn | str], None]
) -> dict[str, Standing]:
    """Let each contestant take a turn, `rounds` times; one that fails twice takes no more. `tell` hears of each."""
    turns: dict[str, list[Turn]] = {one.name: [] for one in contestants}
    errors: dict[str, list[str]] = {one.name: [] for one in contestants}
    for number in range(1, rounds + 1):
        for one in contestants:
            if len(errors[one.name]) >= 2:
                continue
            try:
                turn = one.turn()
            except BenchmarkError as error:
                text = "\n".join([str(error), *getattr(error, "__notes__", [])])
                errors[one.name].append(text)
                tell(one.name, number, text)
            else:
                turns[one.name].append(turn)
                tell(one.name, number, turn)
    return {name: Standing(medians(turns[name]), turns[name], errors[name]) for name in turns}


def medians(turns: Sequence[Turn]) -> Figures:
    """The median of each figure over the turns."""
    names = list(turns[0].figures) if turns else []
    return {name: statistics.median(turn.figures[name] for turn in turns) for name in names}


def judge(goals: Sequence[Goal], standings: Mapping[str, Standing]) -> list[Verdict]:
    """The verdicts on all goals whose figures were measured."""
    verdicts = []
    for goal in goals:
        mine = _median(standings, goal.contestant, goal.figure)
        theirs = 1.0 if goal.peer is None else _median(standings, goal.peer, goal.peer_figure or goal.figure)
        if mine is not None and theirs:
            value = mine / theirs
            verdicts.append(Verdict(goal, value, value <= goal.bound if goal.at_most else value >= goal.bound))
    return verdicts


def _median(standings: Mapping[str, Standing], name: str, figure: str) -> float | None:
    return standings[name].medians.get(figure) if name in standings else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
