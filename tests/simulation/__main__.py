"""python -m tests.simulation --seeds N --from S [--mutant NAME]"""

from __future__ import annotations

import argparse
import sys
import time

from .mutants import MUTANTS, hunt
from .run import run_seed
from .suite import run


def main() -> int:
    """Run seeds, print the table, say what failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this rule and look for the first seed")
    options = parser.parse_args()
    if options.mutant:
        found = hunt(options.mutant, options.seeds, options.first)
        print(f"found by seed {found.seed}: {found.violation}" if found else "NOT FOUND")
        return 0 if found else 1
    if options.seeds == 1:
        report = run_seed(options.first)
        print(report.violation or "no violation")
        print(report.traceback)
        return 1 if report.violation else 0
    begun = time.monotonic()
    summary = run(options.seeds, options.first)
    print(summary.table())
    print(f"{options.seeds / (time.monotonic() - begun):.0f} seeds/s")
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
