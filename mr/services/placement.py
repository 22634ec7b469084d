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


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody offers a capability.

    `nearest` is the worker that lacks least: `offers` is what it has, `lacks` what it has not. All are empty where no
    worker runs.
    """

    capability: str
    nearest: str = ""
    host: str = ""
    offers: list[str] = []
    lacks: list[str] = []

    @property
    def help(self) -> str:
        """The command that would change it."""
        return f"mr worker --capabilities {requirement(self.capability).example}"

    @property
    def near(self) -> str:
        """Who comes nearest, and what it has; empty where no worker runs."""
        if not self.nearest:
            return ""
        return f"; nearest: {self.host} ({', '.join(self.offers)}), lacks {', '.join(self.lacks)}"

    def __str__(self) -> str:
        if not self.nearest:
            return f"nobody offers {self.capability}; no worker runs"
        return f"nobody offers {self.capability}; nearest: {self.host}, lacks {', '.join(self.lacks)}"


class Unplaced(Missing, frozen=True, kw_only=True):
    """What steps of a workflow need and nobody offers; the initial step comes first where it is among them."""

    steps: list[str] = []


class Placement(msgspec.Struct, frozen=True):
    """What of a job nobody could run: its first invocation (`initial`), and all of its workflow (`unplaced`).

    `is_deserted`: no worker runs at all, so nothing changes before somebody starts one.
    """

    initial: Unplaced | None = None
    unplaced: list[Unplaced] = []
    is_deserted: bool = False

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


def nobody(workflow: str, required: str, workers: Mapping[str, WorkerRecord]) -> Missing:
    """What is missing where no worker serves it; the nearest lacks least, or offers something spelled alike."""
    wanted = requirement(required)

    def distance(name: str) -> tuple[int, float, int]:
        record = workers[name]
        lacks = wanted.lacking(offered(record))
        alike = [difflib.SequenceMatcher(None, lack, one).ratio() for lack in lacks for one in offered(record)]
        return len(lacks), -round(max(alike, default=0.0), 1), -record.slots

    if not workers:
        return Missing(capability=wanted.text)
    nearest = min(sorted(workers), key=distance)
    record = workers[nearest]
    lacks = wanted.lacking(offered(record)) or [f"workflow {workflow}"]
    return Missing(capability=wanted.text, nearest=nearest, host=record.host, offers=record.capabilities, lacks=lacks)


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
        required: Unplaced(**msgspec.structs.asdict(nobody(workflow, required, workers)), steps=steps)
        for required, steps in needs.items()
        if not any(serves(record, workflow, required) for record in workers.values())
    }
    return Placement(found.get(first), list(found.values()), is_deserted=not workers)
