"""Jobs of many kinds, and what each must come to: computed here, without the product.

A request's arguments hold its whole plan, so that whoever finds the request in the store knows what to expect of it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from mr.wiring import Parts

WORKFLOW = "soak"
JOB = "mixed"
ROOT = "root"
_HANDLERS = Path(__file__).parent / "handlers"


class Shape(NamedTuple):
    """A kind of job: how often it is drawn, how wide its levels are, how long a leaf takes, and what one leaf does.

    `error` is the class of error that the request ends with, empty if it succeeds.
    """

    weight: int
    widths: tuple[int, ...]
    seconds: float = 0.0
    bad_deed: str = ""
    error: str = ""


SHAPES = {
    "tiny": Shape(60, (2,)),
    "wide": Shape(6, (300,), seconds=0.002),
    "deep": Shape(8, (2, 2, 2, 2, 2, 2)),
    "slow": Shape(8, (8,), seconds=0.4),
    "failing": Shape(12, (20,), bad_deed="raise", error="exception"),
    "leaving": Shape(3, (10,), bad_deed="exit", error="exit"),
    "poisoned": Shape(3, (10,), bad_deed="kill", error="lost_worker"),
}


class Plan(msgspec.Struct, frozen=True):
    """What a request is about. `mark` is like no other request's."""

    mark: str
    shape: str
    widths: list[int]
    seconds: float
    ledger: str
    bad_leaf: str
    bad_deed: str

    @property
    def error(self) -> str:
        """The class of error that the request ends with, empty if it succeeds."""
        return SHAPES[self.shape].error

    def tokens(self) -> dict[str, int]:
        """The result, if it succeeds."""
        return {f"token of {path}": 1 for path in _paths(SHAPES[self.shape].widths)}

    def arguments(self) -> dict[str, Any]:
        """What is posted."""
        return {ROOT: msgspec.to_builtins(self)}


def draw(random: Random, ledger: Path) -> Plan:
    """The plan of the next request."""
    names = list(SHAPES)
    name = random.choices(names, [SHAPES[name].weight for name in names])[0]
    shape = SHAPES[name]
    bad_leaf = random.choice(_paths(shape.widths)) if shape.bad_deed else ""
    mark = f"{random.getrandbits(64):016x}"
    return Plan(mark, name, list(shape.widths), shape.seconds, str(ledger), bad_leaf, shape.bad_deed)


def define(parts: Parts) -> None:
    """Make the workflow with its handlers, steps and job."""
    registry = parts.registry
    registry.create_workflow(WORKFLOW, "Jobs of many kinds that end as their plan says.")
    parts.sync.apply(parts.sync.plan(WORKFLOW, _HANDLERS))
    registry.create_step(WORKFLOW, "leaf", "One token, or a bad deed.", "leaf", None, "add")
    registry.create_step(WORKFLOW, "spread", "A level.", "spread", None, "add")
    registry.create_job(WORKFLOW, JOB, "What the plan says.", "spread")


def _paths(widths: tuple[int, ...]) -> list[str]:
    return [".".join((ROOT, *map(str, numbers))) for numbers in itertools.product(*map(range, widths))]
