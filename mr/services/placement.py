"""Placement: who could run a job, as the fleet is now; what nobody could, and who comes nearest.

It is a hint, never a refusal: a worker may join a second later, and what waits for it is not lost.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from mr.model.capability import Amounts, offer, requirement
from mr.model.definitions import DefinitionSet
from mr.model.invocation import WorkerRecord


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody offers what `required` says. `nearest` is the worker that lacks least; empty where no worker runs.

    `steps` are those that need it, the initial one first where it is among them.
    """

    required: str
    steps: list[str] = []
    nearest: str = ""
    host: str = ""
    offers: list[str] = []
    lacks: list[str] = []

    def __str__(self) -> str:
        if not self.nearest:
            return f"nobody offers {self.required}; no worker runs"
        return f"nobody offers {self.required}; nearest: {self.host}, lacks {', '.join(self.lacks)}"


class Placement(msgspec.Struct, frozen=True):
    """What of a job nobody could run: its first invocation (`initial`), and all of its workflow (`unplaced`)."""

    initial: Unplaced | None = None
    unplaced: list[Unplaced] = []

    def __str__(self) -> str:
        return " | ".join(map(str, self.unplaced))


def offered(record: WorkerRecord) -> Amounts:
    """What a worker says that it offers."""
    return offer(record.capabilities)


def serves(record: WorkerRecord, workflow: str, required: str) -> bool:
    """Whether a worker takes such work. One that names no workflow has only just begun to look for them."""
    return _works_for(record, workflow) and requirement(required).fits(offered(record))


def writes(record: WorkerRecord, workflow: str) -> bool:
    """Whether a worker writes results of a workflow."""
    return bool(record.writer) and _works_for(record, workflow)


def _works_for(record: WorkerRecord, workflow: str) -> bool:
    return record.serves_all or not record.workflows or workflow in record.workflows


def nobody(workflow: str, required: str, workers: Mapping[str, WorkerRecord]) -> Unplaced:
    """What is missing where no worker serves it; the nearest lacks least, or offers something spelled alike."""
    wanted = requirement(required)

    def distance(name: str) -> tuple[int, float, int]:
        record = workers[name]
        lacks = wanted.lacking(offered(record))
        alike = [difflib.SequenceMatcher(None, lack, one).ratio() for lack in lacks for one in offered(record)]
        return len(lacks), -round(max(alike, default=0.0), 1), -record.slots

    if not workers:
        return Unplaced(required=wanted.text)
    nearest = min(sorted(workers), key=distance)
    record = workers[nearest]
    lacks = wanted.lacking(offered(record)) or [f"workflow {workflow}"]
    return Unplaced(required=wanted.text, nearest=nearest, host=record.host, offers=record.capabilities, lacks=lacks)


def place(workflow: str, job: str, definitions: DefinitionSet, workers: Mapping[str, WorkerRecord]) -> Placement:
    """Which steps of a workflow nobody could run now, those of a job's first invocation apart."""
    initial = definitions.jobs.get(job)
    first = definitions.mapper(initial).capability if initial is not None else ""
    needs: dict[str, list[str]] = {first: [initial]} if initial is not None else {}
    for name in sorted(definitions.steps):
        for handler in (definitions.mapper(name), definitions.reducer(name)):
            steps = needs.setdefault(handler.capability, [])
            if name not in steps:
                steps.append(name)
    found = {
        required: msgspec.structs.replace(nobody(workflow, required, workers), steps=steps)
        for required, steps in needs.items()
        if not any(serves(record, workflow, required) for record in workers.values())
    }
    return Placement(found.get(first), list(found.values()))
