"""A soak: load on a deployment, strike after strike, and at the end everything that has to be true.

The hard part is to be sure that a strike hits something: one counts as a hit when requests are open at that moment
that were accepted before it. How long such a strike is felt is the time until the last of those is over.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from random import Random
from statistics import median

import msgspec

from tests.chaos.deployment import BOUND_S, Deployment
from tests.chaos.kills import KINDS
from tests.chaos.ledger import Ledger
from tests.chaos.processes import NotInTime, wait_for
from tests.soak import jobs
from tests.soak.load import Load
from tests.soak.observer import Observer
from tests.soak.sizes import Size, sizes

CLIENTS = 8
PAUSE_S = (1.0, 5.0)
"""Between two strikes."""
SETTLE_S = 30.0
"""Beyond the bound: a job with a poisoned leaf takes its time by itself."""


class Strike(msgspec.Struct):
    """One fault: whom it hit, how many requests were open, and when the last of these was over."""

    kind: str
    at: float
    open: set[str]
    felt_s: float = 0.0


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a soak."""

    pair: str
    seed: int
    minutes: float
    requests: int
    outcomes: dict[str, int]
    answers: dict[int, int]
    strikes: dict[str, int]
    hits: int
    felt_p50_s: float
    felt_p99_s: float
    repeated: int
    before: dict[str, Size]
    after: dict[str, Size]
    problems: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.pair}: {self.requests} requests in {self.minutes:g} min, "
            f"{sum(self.strikes.values())} faults ({', '.join(f'{k} {n}' for k, n in sorted(self.strikes.items()))}), "
            f"{self.hits} of them hit work in hand",
            f"  ended: {', '.join(f'{name} {count}' for name, count in sorted(self.outcomes.items()))}",
            f"  clients were answered: {', '.join(f'{s} {n}' for s, n in sorted(self.answers.items()))} (0: cut off)",
            f"  the requests open at a fault were over after: p50 {self.felt_p50_s:.1f} s, p99 {self.felt_p99_s:.1f} s",
            f"  leaves executed more than once: {self.repeated}",
        ]
        for name, size in self.after.items():
            before = self.before[name]
            lines.append(
                f"  {name}: {before.rss_mb:.0f} MB and {before.descriptors} descriptors at the start, "
                f"{size.rss_mb:.0f} and {size.descriptors} at the end"
            )
        lines += [f"  PROBLEM: {problem}" for problem in self.problems[:20]]
        lines.append(f"  {len(self.problems)} problems; seed {self.seed}")
        return "\n".join(lines)


def run(pair: str, minutes: float, seed: int) -> Outcome:
    """Soak a pair for so long, and until every kind of fault has struck; then let it come to rest and check."""
    random = Random(f"{seed} strikes {pair}")
    with Deployment(pair, jobs.WORKFLOW, jobs.define) as deployment:
        ledger = Ledger(deployment.folder / "ledger")
        observer = Observer(deployment.parts)
        load = Load(deployment.port, ledger.path, seed, CLIENTS)
        observer.start()
        before = sizes(deployment)
        load.start()
        problems: list[str] = []
        strikes = _strikes(deployment, observer, ledger, random, time.monotonic() + 60 * minutes, problems)
        load.stop(BOUND_S[pair] + SETTLE_S)
        try:
            wait_for("every request is over", lambda: not observer.open, BOUND_S[pair] + SETTLE_S)
        except NotInTime as error:
            problems.append(f"{error}: {', '.join(sorted(observer.open)[:5])}")
        after = sizes(deployment)
        ledger.read()
        for strike in strikes:
            strike.felt_s = max((observer.ended.get(r, strike.at) for r in strike.open), default=strike.at) - strike.at
        deployment.finished = {r: time.time() for r in observer.ended}
        observer.stop()
        problems += load.problems + observer.problems
        problems += [
            f"a client was told that nothing was accepted of {observer.marks[mark]}"
            for mark in load.refused
            if mark in observer.marks
        ]
        problems += _end(deployment)
        deployment.keep = deployment.keep or bool(problems)
        felt = sorted(strike.felt_s for strike in strikes if strike.open)
        return Outcome(
            pair=pair, seed=seed, minutes=minutes, requests=len(observer.accepted), outcomes=dict(observer.outcomes),
            answers=dict(load.answers), strikes=dict(Counter(strike.kind for strike in strikes)), hits=len(felt),
            felt_p50_s=median(felt) if felt else 0.0, felt_p99_s=felt[int(0.99 * len(felt))] if felt else 0.0,
            repeated=ledger.more_than_once, before=before, after=after, problems=problems,
        )  # fmt: skip


def _strikes(
    deployment: Deployment, observer: Observer, ledger: Ledger, random: Random, until: float, problems: list[str]
) -> list[Strike]:
    kinds = [name for name, kind in KINDS.items() if deployment.pair in kind.pairs]
    deck: list[str] = []
    strikes: list[Strike] = []
    while True:
        time.sleep(random.uniform(*PAUSE_S))
        if time.monotonic() >= until and (problems or {strike.kind for strike in strikes} == set(kinds)):
            return strikes
        # Every kind has its turn before one comes again.
        deck = deck or random.sample(kinds, len(kinds))
        kind = deck.pop()
        ledger.read()
        try:
            # An executor is there to be killed only while none is being replaced.
            deployment.wait_until_ready()
            strike = Strike(kind, time.monotonic(), observer.open)
            fault = KINDS[kind].strike(deployment, random, ledger)
            next(fault)
            strikes.append(strike)
            for _ in fault:
                pass
        except (NotInTime, AssertionError) as error:
            problems.append(f"after {kind}: {error}")
            print(f"PROBLEM: {problems[-1]}", file=sys.stderr, flush=True)
            # As a process manager does, so that the rest of the time tells something, too.
            for process in deployment.processes:
                if not process.is_alive:
                    process.start()


def _end(deployment: Deployment) -> list[str]:
    try:
        return deployment.end()
    except (NotInTime, AssertionError) as error:
        return [str(error)]
