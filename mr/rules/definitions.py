"""What a definition set must look like, and how it changes: nothing dangles, ever.

Every function takes a set and gives a new one or an answer; whoever stores it is elsewhere. A set that passed
`check` can be run without looking again whether a step, or a handler of a step, exists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import get_args

import msgspec

from mr.errors import InvalidName, InvalidStep
from mr.model.capability import Requirement, requirement
from mr.model.definitions import DefinitionSet, HandlerRef, StepRef
from mr.model.handler import Handler, HandlerType
from mr.rules import routing

NAMED_MAX = 10
ROLES: Mapping[HandlerType, str] = {"mapper": "Map", "combiner": "Combine", "reducer": "Reduce"}


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Names of handlers by what a push does to them; `kept` maps those that should go to the steps that hold them."""

    new: list[str] = []
    changed: list[str] = []
    same: list[str] = []
    removed: list[str] = []
    kept: dict[str, list[str]] = {}

    @property
    def written(self) -> list[str]:
        """Names of handlers whose content must be stored."""
        return [*self.new, *self.changed]


def reference(handler: Handler) -> HandlerRef:
    """What a set says of a handler."""
    return HandlerRef(
        version=handler.version,
        handler_type=handler.handler_type,
        capability=handler.capability,
        timeout_s=handler.timeout_s,
        memory_mb=handler.memory_mb,
        attempts=handler.attempts,
    )


def bind(definitions: DefinitionSet, mapper: str, combiner: str | None, reducer: str) -> StepRef:
    """A step of these handlers; an empty combiner is none.

    Raises: InvalidStep with its role if a handler does not exist or is of another type.
    """
    given: list[tuple[HandlerType, str]] = [("mapper", mapper), ("reducer", reducer)]
    if combiner:
        given.insert(1, ("combiner", combiner))
    for handler_type, name in given:
        require(definitions, handler_type, name)
    return StepRef(mapper=mapper, combiner=combiner or None, reducer=reducer)


def require(definitions: DefinitionSet, handler_type: HandlerType, name: str) -> None:
    """Refuse a handler that does not exist or is of another type.

    Raises: InvalidStep with its role.
    """
    problem = _misfit(definitions, handler_type, name)
    if problem:
        fitting = sorted(name for name, one in definitions.handlers.items() if one.handler_type == handler_type)
        there = ", ".join(fitting[:NAMED_MAX]) + (", …" if len(fitting) > NAMED_MAX else "")
        hint = f"{problem}; {handler_type}s: {there or 'none yet'}"
        raise InvalidStep(f"{ROLES[handler_type]} handler is invalid: [{name[:100]}]", role=handler_type, hint=hint)


def role(name: str) -> HandlerType:
    """A handler type that somebody typed.

    Raises: InvalidStep.
    """
    for known in get_args(HandlerType):
        if name == known:
            found: HandlerType = known
            return found
    raise InvalidStep(f"Handler type is invalid: [{name[:100]}]", hint="mapper, combiner or reducer")


def bound(step: StepRef) -> list[tuple[HandlerType, str]]:
    """The handlers that a step names, with the role of each."""
    named: list[tuple[HandlerType, str]] = [("mapper", step.mapper), ("reducer", step.reducer)]
    if step.combiner:
        named.insert(1, ("combiner", step.combiner))
    return named


def rebind(step: StepRef, handler_type: HandlerType, name: str) -> StepRef:
    """The step with another handler in one role."""
    if handler_type == "mapper":
        return msgspec.structs.replace(step, mapper=name)
    if handler_type == "combiner":
        return msgspec.structs.replace(step, combiner=name)
    return msgspec.structs.replace(step, reducer=name)


def steps_with(definitions: DefinitionSet, handler: str) -> list[str]:
    """Names of the steps that name the handler in any role, in order."""
    return sorted(
        name for name, step in definitions.steps.items() if handler in (step.mapper, step.combiner, step.reducer)
    )


def jobs_with(definitions: DefinitionSet, steps: Collection[str]) -> list[str]:
    """Names of the jobs that start with one of the steps, in order."""
    return sorted(name for name, step in definitions.jobs.items() if step in steps)


def contents(definitions: DefinitionSet) -> list[str]:
    """Everything defined, as `job x`, `step y`, `handler z`."""
    return [
        *(f"job {name}" for name in sorted(definitions.jobs)),
        *(f"step {name}" for name in sorted(definitions.steps)),
        *(f"handler {name}" for name in sorted(definitions.handlers)),
    ]


def compare(
    definitions: DefinitionSet, handlers: Mapping[str, Handler], *, remove_others: bool, force: bool
) -> Changes:
    """What storing these handlers does; `force` writes also what is the same."""
    new, changed, same = [], [], []
    for name in sorted(handlers):
        known = definitions.handlers.get(name)
        if known is None:
            new.append(name)
        elif force or known.version != handlers[name].version:
            changed.append(name)
        else:
            same.append(name)
    others = sorted(set(definitions.handlers) - set(handlers)) if remove_others else []
    kept = {name: steps for name in others if (steps := steps_with(definitions, name))}
    removed = [name for name in others if name not in kept]
    return Changes(new=new, changed=changed, same=same, removed=removed, kept=kept)


def stored(definitions: DefinitionSet, handlers: Mapping[str, Handler], changes: Changes) -> DefinitionSet:
    """The set after the changes that `compare` found."""
    going = set(changes.removed)
    remaining = {name: known for name, known in definitions.handlers.items() if name not in going}
    remaining.update({name: reference(handlers[name]) for name in changes.written})
    return msgspec.structs.replace(definitions, handlers=remaining)


def without(
    definitions: DefinitionSet, *, handlers: Iterable[str] = (), steps: Iterable[str] = (), jobs: Iterable[str] = ()
) -> DefinitionSet:
    """The set without the things named."""
    return DefinitionSet(
        handlers={name: value for name, value in definitions.handlers.items() if name not in set(handlers)},
        steps={name: value for name, value in definitions.steps.items() if name not in set(steps)},
        jobs={name: value for name, value in definitions.jobs.items() if name not in set(jobs)},
    )


def problems(definitions: DefinitionSet) -> list[str]:
    """What dangles or does not fit, a sentence each."""
    found = []
    for name, step in sorted(definitions.steps.items()):
        for handler_type, handler in bound(step):
            problem = _misfit(definitions, handler_type, handler)
            if problem:
                found.append(f"step {name} names {handler} as its {handler_type}, but {problem}")
    for name, initial in sorted(definitions.jobs.items()):
        if initial not in definitions.steps:
            found.append(f"job {name} starts with step {initial}, which does not exist")
    return found


def check(workflow: str, definitions: DefinitionSet) -> None:
    """Refuse a set that could not be run.

    Raises: InvalidStep with all that dangles; InvalidName if a capability does not fit a topic with the workflow.
    """
    found = problems(definitions)
    if found:
        raise InvalidStep("; ".join(found))
    for capability in {handler.capability for handler in definitions.handlers.values()}:
        routing.check(workflow, capability)


def requirements(definitions: DefinitionSet) -> set[Requirement]:
    """What its handlers require beyond single names."""
    found = {requirement(handler.capability) for handler in definitions.handlers.values()}
    return {one for one in found if not one.is_plain}


def routable(workflow: str, handler: Handler) -> str:
    """Why the handler's work could not be published in this workflow; empty if it could."""
    try:
        routing.check(workflow, handler.capability)
    except InvalidName as error:
        return str(error)
    return ""


def _misfit(definitions: DefinitionSet, handler_type: HandlerType, name: str) -> str:
    handler = definitions.handlers.get(name)
    if handler is None:
        return "no handler has this name"
    if handler.handler_type != handler_type:
        return f"it is a {handler.handler_type}"
    return ""
