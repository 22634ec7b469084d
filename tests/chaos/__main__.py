"""`python -m tests.chaos`: kill real processes while jobs run, many times, and print what came of it."""

from __future__ import annotations

import argparse
import sys

from tests.chaos import jobs, report, trial
from tests.chaos.deployment import PAIRS, Deployment
from tests.chaos.kills import KINDS
from tests.chaos.processes import NotInTime
from tests.chaos.trial import Record


def main() -> int:
    """Run the trials that the command line asks for; 1 if one of them found a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--pair", choices=[*PAIRS, "all"], default="all")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--times", type=int, default=10, help="trials of each kind (10)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first trial (0)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    records: list[Record] = []
    problems: list[str] = []
    for pair in PAIRS if asked.pair == "all" else (asked.pair,):
        kinds = [kind for kind in asked.kind if pair in KINDS[kind].pairs]
        found, others = _trials(pair, kinds, range(asked.first, asked.first + asked.times), asked.seed)
        records += found
        problems += others
    print(report.table(records))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems or any(record.problems for record in records) else 0


def _trials(pair: str, kinds: list[str], numbers: range, seed: int) -> tuple[list[Record], list[str]]:
    """The trials on one pair: one deployment survives them all, unless something is wrong with it."""
    records: list[Record] = []
    problems: list[str] = []
    left = [(kind, number) for kind in kinds for number in numbers]
    while left:
        with Deployment(pair) as deployment:
            usual_s = {}
            for job in jobs.JOBS:
                records.append(_said(trial.undisturbed(deployment, job, seed)))
                usual_s[job] = records[-1].took_s or 0.0
            while left and not deployment.keep:
                kind, number = left.pop(0)
                try:
                    records.append(_said(trial.run(deployment, kind, number, seed, usual_s)))
                    is_good = not records[-1].problems
                except NotInTime as error:
                    problems.append(f"{pair} {kind} {number} did not begin: {error}")
                    deployment.keep, is_good = True, False
                if not is_good:
                    print(
                        f"    again: python -m tests.chaos --pair {pair} --kind {kind} --seed {seed} "
                        f"--from {number} --times 1"
                    )
            if deployment.keep:
                continue
            try:
                problems += deployment.end()
            except NotInTime as error:
                problems.append(str(error))
                deployment.keep = True
    return records, problems


def _said(record: Record) -> Record:
    print(record, flush=True)
    return record


if __name__ == "__main__":
    sys.exit(main())
