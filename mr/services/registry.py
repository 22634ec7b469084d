"""Registry: workflows, jobs, steps and handlers, by name, and never anything that dangles.

Each method decides on the current definition set: may this be, and which set follows. `Definitions` makes it so.
Names are looked up in the set; records of jobs and steps add their descriptions to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from mr import codec
from mr.clock import Clock
from mr.errors import (
    AlreadyExists,
    DefinitionInUse,
    InvalidHandler,
    InvalidStep,
    UnknownHandler,
    UnknownJob,
    UnknownStep,
    UnknownWorkflow,
    VersionConflict,
)
from mr.model import names
from mr.model.definitions import DefinitionSet, StepRef
from mr.model.handler import GENERAL, Handler, HandlerRecord
from mr.model.job import Job
from mr.model.step import Step
from mr.model.workflow import Workflow
from mr.ports.processor import Processor
from mr.ports.store import Absent, Delete, Put, Store, Transaction
from mr.rules import definitions as rule
from mr.rules import keys, routing
from mr.rules.definitions import Changes
from mr.services.definitions import Definitions, Redefinition, record
from mr.services.entities import Entities

R = TypeVar("R")
STEPS_AT_ONCE = 50
"""Steps that one transaction of a mass rename changes; each such transaction is a good definition by itself."""


class Registry:
    """All definitions of all workflows. Safe to call from several threads.

    Every method raises UnknownWorkflow, InvalidName, and StoreUnavailable (with `unknown` set: the change may have
    been made; looking, or asking for it again, is right). Changes raise VersionConflict if others never stop.
    """

    def __init__(self, store: Store, processors: Iterable[Processor], clock: Clock) -> None:
        self._store = store
        self._definitions = Definitions(store, clock)
        self._languages = {processor.source_type: processor for processor in processors}
        self._extensions = {
            extension: processor for processor in self._languages.values() for extension in processor.extensions
        }
        self._workflows = Entities(store, "workflow", Workflow, keys.workflow, UnknownWorkflow)
        self._jobs = Entities(store, "job", Job, keys.job, UnknownJob)
        self._steps = Entities(store, "step", Step, keys.step, UnknownStep)
        self._handlers = Entities(store, "handler", HandlerRecord, keys.handler, UnknownHandler)

    # What requests are pinned to

    def current(self, w: str) -> tuple[Workflow, int, DefinitionSet]:
        """The workflow as it is now, the version under which it may be replaced, and its definition set."""
        return self._definitions.current(w)

    def definitions(self, w: str, digest: str) -> DefinitionSet:
        """A definition set by its hash, also one that is not current any more.

        Raises: NotFound.
        """
        return self._definitions.at(w, digest)

    def known(self, w: str, digest: str) -> DefinitionSet | None:
        """The same, if it is at hand without asking the store."""
        return self._definitions.known(w, digest)

    def requirements(self, w: str) -> list[str]:
        """What handlers of the workflow ask for, or have asked for, beyond single names."""
        return self._definitions.requirements(w)

    def handler(self, w: str, version: str) -> Handler:
        """A handler with its source, by version.

        Raises: NotFound.
        """
        return self._definitions.handler(w, version)

    # Workflows

    def create_workflow(self, name: str, description: str) -> Workflow:
        """A new, empty workflow.

        Raises: AlreadyExists; InvalidName also if no capability would fit a topic with it.
        """
        names.check("workflow", name)
        routing.check(name, GENERAL)
        empty = DefinitionSet()
        workflow = Workflow(description=description, handlers_state=empty.hash)
        # What a deletion that was cut off has left behind must not become the new workflow's.
        if not self._definitions.remove_leftovers(name) or not self._definitions.commit(
            Transaction(
                conditions=[Absent(keys.workflow(name))],
                operations=[
                    Put(keys.workflow(name), codec.encode(workflow)),
                    Put(keys.definition_set(name, empty.hash), codec.encode(empty)),
                ],
            )
        ):
            raise AlreadyExists(f"workflow {name!r} exists already")
        return workflow

    def get_workflow(self, name: str) -> Workflow:
        """The workflow's record."""
        return self._workflows.get(name)

    def list_workflows(self) -> dict[str, Workflow]:
        """All workflows by name."""
        return dict(self._workflows.list(keys.WORKFLOWS))

    def update_workflow(self, name: str, description: str) -> Workflow:
        """Another description."""

        def decide(now: DefinitionSet) -> Redefinition[None]:
            return Redefinition(definitions=now, result=None, description=description)

        self._definitions.redefine(name, decide)
        return self.get_workflow(name)

    def delete_workflow(self, name: str, *, force: bool = False) -> list[str]:
        """Remove a workflow; with `force` also all that it defines and its handlers share, which is listed.

        Raises: DefinitionInUse if there is anything of it (unless forced), or if requests still run (always).
        """
        _, version, definitions = self.current(name)
        contents = rule.contents(definitions)
        if self._store.range(keys.collections(name), limit=1, keys_only=True).entries:
            contents = [*contents, "collections"]
        if contents and not force:
            raise DefinitionInUse(f"workflow {name!r} is not empty: {', '.join(contents)}", contents)
        self._refuse_while_requests_run(name)
        if contents:
            # A request may be accepted until here. Without a job none is, so the second look is the last.
            self._definitions.redefine(name, lambda _: Redefinition(definitions=DefinitionSet(), result=None))
            self._refuse_while_requests_run(name)
            _, version, definitions = self.current(name)
            if rule.contents(definitions):
                raise VersionConflict(f"workflow {name!r} was defined anew while it was being removed")
        self._workflows.delete(version, name)
        self._definitions.remove_leftovers(name)
        return contents

    # Jobs

    def create_job(self, w: str, name: str, description: str, initial_step: str) -> Job:
        """A new job.

        Raises: AlreadyExists; InvalidStep if the initial step does not exist.
        """
        job = Job(workflow_name=w, description=description, initial_step_name=initial_step)
        key = self._jobs.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[Job]:
            if name in now.jobs:
                raise AlreadyExists(f"job {name!r} of workflow {w!r} exists already")
            _check_initial(now, initial_step)
            after = msgspec.structs.replace(now, jobs={**now.jobs, name: initial_step})
            return Redefinition(definitions=after, result=job, operations=[Put(key, codec.encode(job))])

        return self._definitions.redefine(w, decide)

    def get_job(self, w: str, name: str) -> Job:
        """One job. Raises: UnknownJob."""
        return self._one(self._jobs, lambda now: now.jobs, w, name)

    def list_jobs(self, w: str) -> dict[str, Job]:
        """All jobs by name."""
        _, _, now = self.current(w)
        return {name: job for name, job in self._jobs.list(keys.jobs(w)) if name in now.jobs}

    def update_job(self, w: str, name: str, *, description: str | None = None, initial_step: str | None = None) -> Job:
        """Change what is given.

        Raises: UnknownJob; InvalidStep.
        """

        def decide(now: DefinitionSet) -> Redefinition[Job]:
            if name not in now.jobs:
                raise self._jobs.missing(w, name)
            old = self._jobs.get(w, name)
            job = msgspec.structs.replace(
                old,
                description=old.description if description is None else description,
                initial_step_name=now.jobs[name] if initial_step is None else initial_step,
            )
            _check_initial(now, job.initial_step_name)
            after = msgspec.structs.replace(now, jobs={**now.jobs, name: job.initial_step_name})
            return Redefinition(
                definitions=after, result=job, operations=[Put(self._jobs.key(w, name), codec.encode(job))]
            )

        return self._definitions.redefine(w, decide)

    def delete_job(self, w: str, name: str) -> None:
        """Remove a job; its running requests go on.

        Raises: UnknownJob.
        """
        key = self._jobs.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[None]:
            if name not in now.jobs:
                raise self._jobs.missing(w, name)
            return Redefinition(definitions=rule.without(now, jobs=[name]), result=None, operations=[Delete(key)])

        self._definitions.redefine(w, decide)

    # Steps

    def create_step(self, w: str, name: str, description: str, mapper: str, combiner: str | None, reducer: str) -> Step:
        """A new step; an empty combiner is none.

        Raises: AlreadyExists; InvalidStep, with its role, for a handler that does not exist or is of another type.
        """
        key = self._steps.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[Step]:
            if name in now.steps:
                raise AlreadyExists(f"step {name!r} of workflow {w!r} exists already")
            reference = rule.bind(now, mapper, combiner, reducer)
            step = _step(w, description, reference)
            after = msgspec.structs.replace(now, steps={**now.steps, name: reference})
            return Redefinition(definitions=after, result=step, operations=[Put(key, codec.encode(step))])

        return self._definitions.redefine(w, decide)

    def get_step(self, w: str, name: str) -> Step:
        """One step. Raises: UnknownStep."""
        return self._one(self._steps, lambda now: now.steps, w, name)

    def list_steps(self, w: str) -> dict[str, Step]:
        """All steps by name."""
        _, _, now = self.current(w)
        return {name: step for name, step in self._steps.list(keys.steps(w)) if name in now.steps}

    def update_step(
        self,
        w: str,
        name: str,
        *,
        description: str | None = None,
        mapper: str | None = None,
        combiner: str | None = None,
        reducer: str | None = None,
    ) -> Step:
        """Change what is given; an empty combiner takes it away.

        Raises: UnknownStep; InvalidStep with its role.
        """

        def decide(now: DefinitionSet) -> Redefinition[Step]:
            if name not in now.steps:
                raise self._steps.missing(w, name)
            old = now.steps[name]
            reference = rule.bind(
                now,
                old.mapper if mapper is None else mapper,
                old.combiner if combiner is None else combiner,
                old.reducer if reducer is None else reducer,
            )
            kept = self._steps.get(w, name).description if description is None else description
            step = _step(w, kept, reference)
            after = msgspec.structs.replace(now, steps={**now.steps, name: reference})
            return Redefinition(
                definitions=after, result=step, operations=[Put(self._steps.key(w, name), codec.encode(step))]
            )

        return self._definitions.redefine(w, decide)

    def replace_in_steps(
        self, w: str, handler_type: str, if_name: str, to_name: str, *, simulate: bool = False
    ) -> list[str]:
        """Put `to_name` in the place of `if_name` in all steps that name it in that role, and list them.

        Many steps change in several transactions; cut off between them, calling again does the rest.
        Raises: InvalidStep if the role, or `to_name` for the role, is wrong.
        """
        role = rule.role(handler_type)
        _, _, now = self.current(w)
        if to_name or role != "combiner":
            rule.require(now, role, to_name)
        matched = sorted(name for name, step in now.steps.items() if (role, if_name) in rule.bound(step))
        if simulate or if_name == to_name:
            return matched

        def decide(now: DefinitionSet) -> Redefinition[int]:
            left = sorted(name for name, step in now.steps.items() if (role, if_name) in rule.bound(step))
            steps: dict[str, StepRef] = {}
            operations: list[Put | Delete] = []
            for name in left[:STEPS_AT_ONCE]:
                wanted = rule.rebind(now.steps[name], role, to_name)
                steps[name] = rule.bind(now, wanted.mapper, wanted.combiner, wanted.reducer)
                step = _step(w, self._steps.get(w, name).description, steps[name])
                operations.append(Put(self._steps.key(w, name), codec.encode(step)))
            after = msgspec.structs.replace(now, steps={**now.steps, **steps})
            return Redefinition(definitions=after, result=len(left) - len(steps), operations=operations)

        left = len(matched)
        while left:
            left = self._definitions.redefine(w, decide)
        return matched

    def delete_step(self, w: str, name: str, *, force: bool = False) -> list[str]:
        """Remove a step; with `force` also the jobs that start with it, which are listed.

        Raises: UnknownStep; DefinitionInUse with those jobs, unless forced.
        """
        self._steps.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[list[str]]:
            if name not in now.steps:
                raise self._steps.missing(w, name)
            return self._removal(w, now, f"step {name!r}", [], [name], force)

        return self._definitions.redefine(w, decide)

    # Handlers

    def processor(self, extension: str) -> Processor | None:
        """Who checks files of this extension (without its dot)."""
        return self._extensions.get(extension.lower())

    def language(self, source_type: str) -> Processor | None:
        """Who checks handlers of this language."""
        return self._languages.get(source_type)

    @property
    def languages(self) -> list[str]:
        """All languages, by name."""
        return sorted(self._languages)

    def create_handler(self, w: str, name: str, handler: Handler) -> HandlerRecord:
        """A new handler from fields and code given apart.

        Raises: AlreadyExists; InvalidHandler.
        """
        self._handlers.key(w, name)
        language = self._languages.get(handler.source_type)
        if language is None:
            raise InvalidHandler(
                f"{name}:1: source_type {handler.source_type!r} has no processor",
                hint=f"there are: {', '.join(self.languages)}",
            )
        checked = language.verify(name, handler)

        def decide(now: DefinitionSet) -> Redefinition[HandlerRecord]:
            if name in now.handlers:
                raise AlreadyExists(f"handler {name!r} of workflow {w!r} exists already")
            after = rule.stored(now, {name: checked}, Changes(new=[name]))
            return Redefinition(definitions=after, result=record(w, checked), handlers={name: checked})

        return self._definitions.redefine(w, decide)

    def compare_handlers(
        self, w: str, handlers: Mapping[str, Handler], *, remove_others: bool = False, force: bool = False
    ) -> tuple[Changes, list[str]]:
        """What `store_handlers` would do now, and what would dangle, so that it would refuse."""
        _, _, now = self.current(w)
        changes = rule.compare(now, handlers, remove_others=remove_others, force=force)
        return changes, rule.problems(rule.stored(now, handlers, changes))

    def store_handlers(
        self, w: str, handlers: Mapping[str, Handler], *, remove_others: bool = False, force: bool = False
    ) -> Changes:
        """Store handlers that a processor has checked, all at once; what is the same is not written unless forced.

        `remove_others` removes every other handler that no step names, and reports the rest as kept.
        Guarantee: requests see all of it or nothing; a repeat changes nothing.
        Raises: InvalidStep if a step would name a handler of the wrong type.
        """
        for name in handlers:
            self._handlers.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[Changes]:
            changes = rule.compare(now, handlers, remove_others=remove_others, force=force)
            return Redefinition(
                is_needed=bool(changes.written or changes.removed),
                definitions=rule.stored(now, handlers, changes),
                result=changes,
                handlers={name: handlers[name] for name in changes.written},
                gone=changes.removed,
            )

        changes = self._definitions.redefine(w, decide)
        self._definitions.settle(w)
        return changes

    def get_handler(self, w: str, name: str) -> HandlerRecord:
        """One handler with its source. Raises: UnknownHandler."""
        self._handlers.key(w, name)
        _, _, now = self.current(w)
        if name not in now.handlers:
            raise self._handlers.missing(w, name)
        return record(w, self.handler(w, now.handlers[name].version))

    def list_handlers(self, w: str) -> dict[str, HandlerRecord]:
        """All handlers with their sources, by name."""
        _, _, now = self.current(w)
        stored = {known.version: known for _, known in self._handlers.list(keys.handlers(w))}
        return {
            name: stored.get(reference.version) or record(w, self.handler(w, reference.version))
            for name, reference in sorted(now.handlers.items())
        }

    def delete_handler(self, w: str, name: str, *, force: bool = False) -> list[str]:
        """Remove a handler; with `force` also the steps that name it and the jobs that start with those, listed.

        Raises: UnknownHandler; DefinitionInUse with those steps, unless forced.
        """
        self._handlers.key(w, name)

        def decide(now: DefinitionSet) -> Redefinition[list[str]]:
            if name not in now.handlers:
                raise self._handlers.missing(w, name)
            return self._removal(w, now, f"handler {name!r}", [name], rule.steps_with(now, name), force)

        return self._definitions.redefine(w, decide)

    # How it is done

    def _one(self, noun: Entities[R], defined: Callable[[DefinitionSet], Mapping[str, Any]], w: str, name: str) -> R:
        noun.key(w, name)
        _, _, now = self.current(w)
        if name not in defined(now):
            raise noun.missing(w, name)
        return noun.get(w, name)

    def _removal(
        self, w: str, now: DefinitionSet, what: str, handlers: list[str], steps: list[str], force: bool
    ) -> Redefinition[list[str]]:
        jobs = rule.jobs_with(now, steps)
        users = [f"job {job}" for job in jobs]
        if handlers:
            users = [*(f"step {step}" for step in steps), *users]
        if users and not force:
            raise DefinitionInUse(f"{what} of workflow {w!r} is in use: {', '.join(users)}", users)
        return Redefinition(
            definitions=rule.without(now, handlers=handlers, steps=steps, jobs=jobs),
            result=users,
            operations=[*(Delete(keys.step(w, name)) for name in steps), *(Delete(keys.job(w, name)) for name in jobs)],
            gone=handlers,
        )

    def _refuse_while_requests_run(self, w: str) -> None:
        running = self._store.count(keys.active(w, ""))
        if running:
            raise DefinitionInUse(
                f"workflow {w!r} has {running} unfinished requests",
                [f"{running} requests"],
                hint="wait for them, or cancel them",
            )


def _check_initial(now: DefinitionSet, step: str) -> None:
    if step not in now.steps:
        known = ", ".join(sorted(now.steps)) or "none yet"
        raise InvalidStep(f"Initial step is invalid: [{step[:100]}]", hint=f"the workflow has: {known[:500]}")


def _step(w: str, description: str, reference: StepRef) -> Step:
    return Step(
        workflow_name=w,
        description=description,
        map_handler_name=reference.mapper,
        combine_handler_name=reference.combiner,
        reduce_handler_name=reference.reducer,
    )
