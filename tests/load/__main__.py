"""`python -m tests.load`: many clients wait at a front end, and all are answered."""

from __future__ import annotations

import argparse
import sys

from tests.load.trial import MEMORY_MAX_MB, PAIRS, run


def main() -> int:
    """Run it on the pairs that the command line asks for; 1 if a client was not answered rightly, or memory is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000, help="connections that wait at once (10000)")
    parser.add_argument("--pair", choices=[*PAIRS, "both"], default="both")
    asked = parser.parse_args()
    is_good = True
    for pair in PAIRS if asked.pair == "both" else (asked.pair,):
        outcome = run(pair, asked.clients)
        print(outcome, flush=True)
        is_good = is_good and not outcome.problems and outcome.memory_mb <= MEMORY_MAX_MB
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
