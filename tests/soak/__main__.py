"""`python -m tests.soak`: mixed jobs under random kills, for as long as asked."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.deployment import PAIRS
from tests.soak import soak


def main() -> int:
    """Soak the pairs that the command line asks for; 1 if there was a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, shared by the pairs (60)")
    parser.add_argument("--pair", choices=[*PAIRS, "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    pairs = PAIRS if asked.pair == "both" else (asked.pair,)
    problems = 0
    for pair in pairs:
        outcome = soak.run(pair, asked.minutes / len(pairs), asked.seed)
        print(outcome, flush=True)
        problems += len(outcome.problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
