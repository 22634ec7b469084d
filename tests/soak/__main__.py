"""`python -m tests.soak`: mixed jobs under random kills, for as long as asked; or `memory`: small jobs without any."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.deployment import PAIRS
from tests.soak import memory, soak


def main() -> int:
    """Soak the pairs that the command line asks for; 1 if there was a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("what", choices=["kills", "memory"], nargs="?", default="kills")
    parser.add_argument("--minutes", type=float, default=60.0, help="kills: in all, shared by the pairs (60)")
    parser.add_argument("--requests", type=int, default=100_000, help="memory: for each pair (100000)")
    parser.add_argument("--pair", choices=[*PAIRS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    pairs = PAIRS if asked.pair == "all" else (asked.pair,)
    problems = 0
    for pair in pairs:
        outcome: soak.Outcome | memory.Outcome
        if asked.what == "memory":
            outcome = memory.run(pair, asked.requests)
        else:
            outcome = soak.run(pair, asked.minutes / len(pairs), asked.seed)
        print(outcome, flush=True)
        problems += len(outcome.problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
