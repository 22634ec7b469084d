"""Fingerprint jobs: 1,000 leaves in three levels, each of which yields a token made of its path.

Reducers add multisets of tokens, so the result has every token exactly once if and only if nothing was lost and
nothing counted twice. In the job `fingerprint` every worker may do everything; in `apart` the reduces above the
leaves need a capability that one worker has.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from mr.wiring import Parts

WORKFLOW = "chaos"
JOBS = {"fingerprint": "spread", "apart": "spread_apart"}
"""Jobs, and the step that all levels but the leaves run."""
CAPABILITY = "adder"
WIDTHS = (10, 10, 10)
LEAVES = math.prod(WIDTHS)
ROOT = "root"
_HANDLERS = Path(__file__).parent / "handlers"


def paths() -> list[str]:
    """The paths of all leaves."""
    return [".".join((ROOT, *map(str, numbers))) for numbers in itertools.product(*map(range, WIDTHS))]


def tokens() -> dict[str, int]:
    """What the job has to yield: computed here, without the product."""
    return {f"token of {path}": 1 for path in paths()}


def arguments(job: str, *, ledger: Path, slowness: float, seed: str) -> dict[str, Any]:
    """The arguments of a request. `slowness` stretches the time that leaves take."""
    plan = {"widths": list(WIDTHS), "step": JOBS[job], "ledger": str(ledger), "slowness": slowness, "seed": seed}
    return {ROOT: plan}


def define(parts: Parts) -> None:
    """Make the workflow with its handlers, steps and jobs."""
    registry = parts.registry
    registry.create_workflow(WORKFLOW, "Jobs whose result shows what was lost or counted twice.")
    parts.sync.apply(parts.sync.plan(WORKFLOW, _HANDLERS))
    registry.create_step(WORKFLOW, "leaf", "One token.", "leaf", None, "add")
    registry.create_step(WORKFLOW, "spread", "A level.", "spread", None, "add")
    registry.create_step(WORKFLOW, "spread_apart", "A level, added up elsewhere.", "spread", None, "add_apart")
    for job, step in JOBS.items():
        registry.create_job(WORKFLOW, job, "One token for each leaf.", step)
