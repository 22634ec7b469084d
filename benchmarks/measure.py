"""Turns: every contestant once, then every contestant again (A B C A B C ...), and what the turns say together.

A machine has good and bad minutes. Taking turns gives each contestant its share of both; the median over the turns
keeps one bad minute from deciding.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from benchmarks.processes import BenchmarkError, Crew, Usage, busy_s

Figures = dict[str, float]
"""What a turn measured, by name; the name ends in its unit."""


DISTURBED_PERCENT = 15.0
"""More of a core than this used by strangers, and a turn's figures are not to be trusted."""
WEAK = 1.5
"""A peer that is so many times slower than it is known to be is reported."""


class Turn(msgspec.Struct, frozen=True):
    """One turn of one contestant: its figures, and what its programs used while they were measured.

    `others_percent` of a core went to programs that have nothing to do with the benchmark; None if nobody looked.
    """

    figures: Figures
    usage: dict[str, Usage] = {}
    others_percent: float | None = None

    @property
    def is_disturbed(self) -> bool:
        return self.others_percent is not None and self.others_percent > DISTURBED_PERCENT


class Meter:
    """Watches a stretch of time: what the programs of a turn use, and what strangers take from them."""

    def __init__(self, crew: Crew | None = None) -> None:
        self._crew = crew
        self._before = crew.usage() if crew is not None else {}
        self._own, self._busy, self._begun = _own_s(), busy_s(), time.monotonic()

    def turn(self, figures: Figures) -> Turn:
        """The turn, if these are its figures and it ends now."""
        passed, busy, own = time.monotonic() - self._begun, busy_s() - self._busy, _own_s() - self._own
        after = self._crew.usage() if self._crew is not None else {}
        used = {
            name: Usage(cpu_s=round(after[name].cpu_s - before.cpu_s, 2), peak_mb=after[name].peak_mb)
            for name, before in self._before.items()
        }
        others = busy - own - sum(one.cpu_s for one in used.values())
        return Turn(figures, used, round(max(0.0, others) / passed * 100, 1))


def _own_s() -> float:
    """CPU seconds of the benchmark itself, and of its clients and commands that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Contestant(msgspec.Struct, frozen=True):
    """Something that can take a turn: starts itself, is measured, ends itself."""

    name: str
    turn: Callable[[], Turn]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on a contestant's figure: as a ratio to the peer's, or as it is.

    Where the contestant's figure `needs` is less than `needs_at_least`, the two did not do the same work, and nothing
    is judged. `known` is the peer's figure as somebody else measured it: one that does much worse here may be set up
    badly, or the machine was busy, and either flatters mr.
    """

    contestant: str
    figure: str
    bound: float
    at_most: bool
    peer: str | None = None
    needs: str | None = None
    needs_at_least: float = 0.0
    known: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What became of a goal. `value` is the ratio, or the figure where there is no peer.

    `is_met` is None where the contestant did other work than the goal is about. `peer_value` is the peer's figure.
    """

    goal: Goal
    value: float
    is_met: bool | None
    peer_value: float | None = None

    @property
    def is_peer_weak(self) -> bool:
        """Whether the peer did much worse than it is known to."""
        known, here = self.goal.known, self.peer_value
        if known is None or here is None:
            return False
        return (here / known if self.goal.at_most else known / here) > WEAK


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
        theirs = 1.0 if goal.peer is None else _median(standings, goal.peer, goal.figure)
        if mine is not None and theirs:
            value = mine / theirs
            is_met: bool | None = value <= goal.bound if goal.at_most else value >= goal.bound
            if goal.needs and (_median(standings, goal.contestant, goal.needs) or 0.0) < goal.needs_at_least:
                is_met = None
            verdicts.append(Verdict(goal, value, is_met, theirs if goal.peer else None))
    return verdicts


def _median(standings: Mapping[str, Standing], name: str, figure: str) -> float | None:
    return standings[name].medians.get(figure) if name in standings else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
