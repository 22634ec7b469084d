"""Definitions: how the definition set of a workflow becomes another one.

What a workflow defines is one immutable definition set; the workflow's record names the current one by its hash
(`handlers_state`). **Every change makes a whole new set, checks it, and replaces the workflow's record under the
version that was read**, so two changes never mix: who loses the race reads again and decides again.

    1  content       library/…, definition_sets/…    in steps; means nothing yet
    2  the change    entities/workflow/<w>           one transaction, with the records of the entities that changed
    3  the rest      entities/handler/<w>/…          only when there are too many for 2, in steps under the version

The set is the truth for who exists and what names what. Records of jobs and steps add their descriptions and are
always written in 2. Records of handlers say nothing that set and library do not, they are there for people with
`etcdctl`; so step 3 may come a moment later, and one that was cut off is made good by the next push.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from mr import codec
from mr.clock import Clock
from mr.collections.pages import entries
from mr.errors import DefinitionError, StoreUnavailable, UnknownWorkflow, VersionConflict
from mr.model.definitions import DefinitionSet
from mr.model.handler import Handler, HandlerRecord
from mr.model.workflow import Workflow
from mr.ports.store import Absent, At, Delete, Equals, Put, Store, Transaction
from mr.rules import definitions as rule
from mr.rules import keys
from mr.services.entities import Entities
from mr.services.library import Library, batches
from mr.services.lock import locked

_log = logging.getLogger(__name__)

R = TypeVar("R")
PATIENCE_S = 10.0
"""How long a change is tried again while others change the same workflow."""
COMMIT_TRIES = 3
"""How often one transaction is sent while nobody knows whether it was applied."""


class Redefinition(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """What a decision comes to: the new set, the records to write, and the answer to the caller.

    Without `is_needed` nothing is written. `handlers` is content to store, by name; `gone` has the names of
    handlers that are no more.
    """

    definitions: DefinitionSet
    result: R
    operations: Sequence[Put | Delete] = ()
    handlers: Mapping[str, Handler] = {}
    gone: Sequence[str] = ()
    description: str | None = None
    is_needed: bool = True


class Definitions:
    """Current and former definition sets of all workflows. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._library = Library(store)
        self._workflows = Entities(store, "workflow", Workflow, keys.workflow, UnknownWorkflow)
        self._handlers = Entities(store, "handler", HandlerRecord, keys.handler)

    def current(self, w: str) -> tuple[Workflow, int, DefinitionSet]:
        """The workflow's record, the version under which it may be replaced, and its definition set.

        Raises: UnknownWorkflow.
        """
        found = self._workflows.find(w)
        if found is None:
            raise self._workflows.missing(w)
        return found.value, found.version, self.at(w, found.value.handlers_state)

    def at(self, w: str, digest: str) -> DefinitionSet:
        """A definition set by its hash. Raises: NotFound."""
        return self._library.definitions(w, digest)

    def known(self, w: str, digest: str) -> DefinitionSet | None:
        """The same, if it is at hand without asking the store."""
        return self._library.known(w, digest)

    def handler(self, w: str, version: str) -> Handler:
        """A handler with its source, by version. Raises: NotFound."""
        return self._library.handler(w, version)

    def requirements(self, w: str) -> list[str]:
        """What handlers of the workflow ask for beyond single names, former ones included: their work may still lie
        there."""
        found = entries(self._store, keys.requirements(w))
        return [str(codec.loads(entry.value)["capability"]) for entry in found]

    def redefine(self, w: str, decide: Callable[[DefinitionSet], Redefinition[R]]) -> R:
        """Decide on the current set and make the outcome the current set; again while others are faster.

        Raises: what `decide` raises, then nothing has changed; InvalidStep or InvalidName for a set that could not
        be run; DefinitionError for one that is too big; VersionConflict if others never stop.
        """
        deadline = self._clock.monotonic() + PATIENCE_S
        while True:
            workflow, version, now = self.current(w)
            change = decide(now)
            if not change.is_needed:
                return change.result
            rule.check(w, change.definitions)
            self._library.add(w, change.handlers.values(), change.definitions)
            if self._apply(w, workflow, version, now, change):
                return change.result
            if self._clock.monotonic() >= deadline:
                raise VersionConflict(f"the definitions of workflow {w!r} keep changing", hint="try again")

    def _apply(self, w: str, workflow: Workflow, version: int, now: DefinitionSet, change: Redefinition[R]) -> bool:
        after = Workflow(
            description=workflow.description if change.description is None else change.description,
            handlers_state=change.definitions.hash,
        )
        needed: list[Put | Delete] = [Put(keys.workflow(w), codec.encode(after)), *change.operations]
        # With the change itself: a worker that is told of it must find what it may have to serve.
        needed += [
            Put(keys.requirements(w, one.word), codec.encode({"capability": one.text}))
            for one in rule.requirements(change.definitions) - rule.requirements(now)
        ]
        records: list[Put | Delete] = [
            *(Put(keys.handler(w, name), codec.encode(record(w, value))) for name, value in change.handlers.items()),
            *(Delete(keys.handler(w, name)) for name in change.gone),
        ]
        limits = self._store.limits
        at = At(keys.workflow(w), version)
        if len(list(batches([*needed, *records], limits))) == 1:
            return self.commit(Transaction(conditions=[at], operations=[*needed, *records]))
        if len(list(batches(needed, limits))) > 1:
            raise DefinitionError(f"too many entries of workflow {w!r} change at once: {len(needed)}")
        if not self.commit(Transaction(conditions=[at], operations=needed)):
            return False
        self.settle(w)
        return True

    def settle(self, w: str) -> None:
        """Make the records of handlers say what the current set says.

        Each step is refused when the workflow's record has moved, and then all starts over, so an old push never
        writes over a new one. Where others move it for too long, the records are left to the next push.
        """
        deadline = self._clock.monotonic() + PATIENCE_S
        while True:
            _, version, now = self.current(w)
            stored = {name: known.version for name, known in self._handlers.list(keys.handlers(w))}
            operations: list[Put | Delete] = [
                Put(keys.handler(w, name), codec.encode(record(w, self.handler(w, reference.version))))
                for name, reference in sorted(now.handlers.items())
                if stored.get(name) != reference.version
            ]
            operations += [Delete(keys.handler(w, name)) for name in stored if name not in now.handlers]
            at = At(keys.workflow(w), version)
            if all(
                self.commit(Transaction(conditions=[at], operations=batch))
                for batch in batches(operations, self._store.limits)
            ):
                return
            if self._clock.monotonic() >= deadline:
                _log.warning("records of handlers of workflow %s are behind; the next push mends them", w)
                return

    def commit(self, transaction: Transaction) -> bool:
        """Apply a change of definitions; False if its conditions do not hold. All changes pass here.

        Without transactions the operations go one by one under a lock, and what the condition is about, which is the
        workflow's record, last. A change that is cut off leaves content that nobody names, or records of jobs and
        steps that are ahead of their set; requests go by the set.
        """
        if self._store.abilities.transactions:
            return self._commit(transaction)
        (condition,) = transaction.conditions
        with locked(self._store, condition.key):
            if not self._stands(condition):
                return False
            for operation in transaction.operations:
                if operation.key != condition.key:
                    self._commit(Transaction(operations=[operation]))
            last = [operation for operation in transaction.operations if operation.key == condition.key]
            return self._commit(Transaction(conditions=[condition], operations=last))

    def _commit(self, transaction: Transaction) -> bool:
        for tried in range(1, COMMIT_TRIES + 1):
            try:
                applied = self._store.commit(transaction).succeeded
            except StoreUnavailable as error:
                if not error.unknown or tried == COMMIT_TRIES:
                    raise
                continue
            # Refused after an attempt whose outcome nobody knows: perhaps by what that attempt itself wrote.
            return applied or (tried > 1 and self._holds(transaction))
        raise AssertionError("the loop returns or raises")

    def _stands(self, condition: Absent | Equals | At) -> bool:
        return self._store.commit(Transaction(conditions=[condition])).succeeded

    def _holds(self, transaction: Transaction) -> bool:
        for operation in transaction.operations:
            entry = self._store.get(operation.key)
            if (None if entry is None else entry.value) != (operation.value if isinstance(operation, Put) else None):
                return False
        return True

    def remove_leftovers(self, w: str) -> bool:
        """Remove what a workflow that is gone has defined or kept; False, and no more goes, if it is there."""
        absent = Absent(keys.workflow(w))
        prefixes = [keys.jobs(w), keys.steps(w), keys.handlers(w), keys.requirements(w), keys.collections(w)]
        for prefix in (*prefixes, keys.library(w), keys.definition_set(w)):
            going = [Delete(entry.key) for entry in entries(self._store, prefix, keys_only=True)]
            for batch in batches(going, self._store.limits):
                if not self.commit(Transaction(conditions=[absent], operations=batch)):
                    return False
        return True


def record(w: str, handler: Handler) -> HandlerRecord:
    """What stands at a handler's name."""
    return HandlerRecord(workflow_name=w, version=handler.version, **msgspec.structs.asdict(handler))
