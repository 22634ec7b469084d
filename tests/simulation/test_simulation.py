"""The protocol under 3,000 seeds of faults, and the proof that those seeds would see it broken."""

from __future__ import annotations

import os

import pytest

from .mutants import MUTANTS
from .suite import hunt_quietly, run

SEEDS = 3000


def test_no_seed_breaks_a_promise_and_the_seeds_look_everywhere() -> None:
    # Beside other tests one process is this suite's share of the machine.
    summary = run(SEEDS, processes=1 if "PYTEST_XDIST_WORKER" in os.environ else None)
    print(summary.table())
    assert not summary.failures, summary.table()
    assert not summary.shortcomings(hits_min=200, crashes_min=20), summary.table()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_found(mutant: str) -> None:
    found = hunt_quietly(mutant, SEEDS)
    assert found is not None, f"{SEEDS} seeds do not notice: {mutant}"
