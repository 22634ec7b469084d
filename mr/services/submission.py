"""Submission: accept a request, or cancel one.

An accepted request is one transaction: its record, its fence, and the manifest of the virtual mapper `-` whose
only child is the root invocation, under the version of the workflow whose definition set it is pinned to. Only
then is the first message published; if that fails, the sweeper does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from mr import codec
from mr.clock import Clock, stamp
from mr.codec import Items
from mr.errors import (
    BrokerUnavailable,
    InvalidArguments,
    RequestEnded,
    RequestError,
    RequestNotFound,
    StoreUnavailable,
    UnknownJob,
    VersionConflict,
)
from mr.model import ids
from mr.model.dataset import Payload
from mr.model.definitions import DefinitionSet
from mr.model.invocation import ErrorReport, Manifest, report_as_dict
from mr.model.message import Level, Message, seal
from mr.model.request import Active, Reply, Request, RequestState
from mr.model.workflow import Workflow
from mr.ports.broker import Publication, Publisher
from mr.ports.store import Absent, At, Delete, Equals, Put, Store, Transaction
from mr.rules import keys, lifecycle, limits, routing
from mr.services.retention import Retention

_log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often an acceptance is tried again when the workflow's definitions change under it."""


class Definitions(Protocol):
    """What submission asks of the registry."""

    def current(self, w: str) -> tuple[Workflow, int, DefinitionSet]:
        """The workflow's record, its version, and its current definition set. Raises: UnknownWorkflow."""

    def definitions(self, w: str, digest: str) -> DefinitionSet:
        """A definition set by its hash. Raises: NotFound."""


class Accepted(msgspec.Struct, frozen=True):
    """An accepted request, as the caller may want to know it."""

    request_id: str
    request: Request


class Submission:
    """Accepts and cancels requests. Safe to call from several threads."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        definitions: Definitions,
        clock: Clock,
        retention: Retention,
        message_key: bytes,
        new_id: Callable[[], str] = ids.new_request_id,
    ) -> None:
        self._store, self._publisher, self._definitions = store, publisher, definitions
        self._clock, self._retention, self._message_key, self._new_id = clock, retention, message_key, new_id

    def submit(
        self,
        workflow: str,
        job: str,
        arguments: Mapping[str, Any],
        *,
        context: Mapping[str, Any] | None = None,
        is_blocking: bool = False,
        reply_to: str | None = None,
        request_id: str | None = None,
    ) -> Accepted:
        """Accept a request: each item of `arguments` becomes one (key, value) pair of the root invocation.

        `request_id` is for a caller that must know a fresh id before the request exists.

        Guarantee: durable when it returns; not at all when it raises, except StoreUnavailable with `unknown` set.
        Raises: UnknownWorkflow, UnknownJob; ValueRefused, InvalidArguments; StoreUnavailable.
        """
        pairs = Items.of([codec.dumps((key, value)) for key, value in arguments.items()])
        if pairs.size_bytes > limits.INLINE_MAX:
            raise InvalidArguments(
                f"the arguments are {pairs.size_bytes} bytes; at most {limits.INLINE_MAX} are accepted",
                hint="put big input on the shared file system or behind a URL and pass its name",
            )
        request_id = request_id or self._new_id()
        for _ in range(ATTEMPTS):
            _, version, definitions = self._definitions.current(workflow)
            step = definitions.jobs.get(job)
            if step is None:
                known = ", ".join(sorted(definitions.jobs)) or "none yet"
                raise UnknownJob(f"workflow {workflow!r} has no job {job!r}", hint=f"it has: {known}")
            request = Request(
                workflow_name=workflow,
                job_name=job,
                invocation_id=f"{request_id}.0",
                context=dict(context or {}),
                is_blocking=is_blocking,
                set=definitions.hash,
                reply_to=reply_to,
                created_at=stamp(self._clock.now()),
            )
            if self._accept(request_id, request, definitions, step, pairs, version):
                return Accepted(request_id, request)
        raise VersionConflict(f"the definitions of workflow {workflow!r} keep changing", hint="try again")

    def _accept(
        self, r: str, request: Request, definitions: DefinitionSet, step: str, pairs: Items, version: int
    ) -> bool:
        w = request.workflow_name
        args = Items.of([pairs.array()])
        manifest = Manifest(execution="accepted", step=step, count=1, slice=1, args=Payload(inline=args.raw()))
        record = codec.encode(request)
        message = Message(
            w=w,
            r=r,
            epoch=request.epoch,
            set=request.set,
            kind="map",
            p=ids.ROOT,
            to=1,
            levels=[Level(1, 1, step, 0, "accepted")],
            args=args.raw(),
            request=msgspec.Raw(record),
        )
        topic = routing.topic(w, "map", definitions.mapper(step).capability)
        publication = Publication(topic, seal(message, self._message_key))
        puts = [
            Put(keys.active(w, r), codec.encode(Active(request.epoch))),
            Put(keys.manifest(w, r, ids.ROOT), codec.encode(manifest)),
            Put(keys.request(w, r), record),
        ]
        if not self._store.abilities.transactions:
            # In this order: without its record a request was never accepted, and the sweeper clears the rest away.
            # If it did so while this process stood still, the fence is missing at the end, and is put again.
            for put in (*puts, puts[0]):
                self._repeat(Transaction(conditions=[Absent(put.key)], operations=[put], reads=[put.key]), put.value)
        elif not self._repeat(
            Transaction(
                conditions=[At(keys.workflow(w), version), Absent(keys.active(w, r)), Absent(keys.request(w, r))],
                operations=puts,
                reads=[keys.request(w, r)],
                messages=[publication] if self._publisher.joins_commit else [],
            ),
            record,
        ):
            return False
        if not self._publisher.joins_commit:
            try:
                self._publisher.publish([publication])
            except BrokerUnavailable as error:
                _log.warning("request %s was accepted but not published, the sweeper will: %s", r, error)
        return True

    def _repeat(self, transaction: Transaction, record: bytes | None = None) -> bool:
        """Commit; once more where the outcome is unknown. True if it is applied, by whichever of the two."""
        try:
            return self._store.commit(transaction).succeeded
        except StoreUnavailable as error:
            if not error.unknown:
                raise
        outcome = self._store.commit(transaction)
        if outcome.succeeded or record is None:
            return outcome.succeeded
        entry = next(iter(outcome.entries.values()))
        return entry is not None

    def cancel(self, workflow: str, request_id: str, *, reason: str = "cancelled by a user") -> Request:
        """End a running request as cancelled; its fence goes, so that nothing of it is recorded any more.

        Raises: RequestNotFound; RequestEnded if it is over, or its result is being written.
        """
        key = keys.request(workflow, request_id)
        while True:
            entry = self._store.get(key)
            if entry is None:
                raise RequestNotFound(f"workflow {workflow!r} has no request {request_id}")
            request = codec.decode(entry.value, Request, where=key)
            if request.state is not RequestState.RUNNING:
                raise RequestEnded(f"request {request_id} is {request.state.value} already")
            report = ErrorReport(class_="cancelled", type="Cancelled", message=reason)
            now = self._clock.now()
            ended = lifecycle.advance(
                request,
                RequestState.CANCELLED,
                now,
                due_at=self._retention.due_at(request, RequestState.CANCELLED, now),
                error=report_as_dict(report),
            )
            if self._cancel(workflow, request_id, entry.version, ended):
                return ended

    def _cancel(self, w: str, r: str, version: int, ended: Request) -> bool:
        fence = codec.encode(Active(ended.epoch))
        operations: list[Put | Delete] = [Put(keys.request(w, r), codec.encode(ended))]
        if ended.due_at is not None:
            operations.append(Put(keys.due(ended.due_at, w, r), b"{}"))
        operations.append(Put(keys.stopped(w, r), codec.encode({"epoch": ended.epoch})))
        if ended.reply_to is not None:
            reply = Reply(workflow_name=w, state=ended.state, error=ended.error)
            operations.append(Put(keys.replies(ended.reply_to, r), codec.encode(reply)))
        operations.append(Delete(keys.active(w, r)))
        condition = At(keys.request(w, r), version)
        if self._store.abilities.transactions:
            conditions: list[Absent | Equals | At] = [condition, Equals(keys.active(w, r), fence)]
            return self._store.commit(Transaction(conditions=conditions, operations=operations)).succeeded
        if not self._store.commit(Transaction(conditions=[condition], operations=operations[:1])).succeeded:
            return False
        for operation in operations[1:]:
            self._store.commit(Transaction(operations=[operation]))
        return True

    def resume(self, workflow: str, request_id: str) -> Request:
        """Give a failed or cancelled request a new life: only what failed or never ran runs again, on its old set.

        Raises: RequestNotFound; RequestError if it is not failed or cancelled, or where the store has no transactions
        and so no fence that would keep the old life out of the new one.
        """
        if not self._store.abilities.transactions:
            raise RequestError("this store has no transactions, so a request cannot be resumed", hint="submit it anew")
        key = keys.request(workflow, request_id)
        while True:
            entry = self._store.get(key)
            if entry is None:
                raise RequestNotFound(f"workflow {workflow!r} has no request {request_id}")
            old = codec.decode(entry.value, Request, where=key)
            if old.state not in (RequestState.FAILED, RequestState.CANCELLED):
                raise RequestError(f"request {request_id} is {old.state.value}; only a failed or cancelled one resumes")
            root = self._store.get(keys.manifest(workflow, request_id, ids.ROOT))
            if root is None:
                raise RequestNotFound(f"request {request_id} is being cleaned away")
            while self._store.delete_prefix(keys.all_attempts(workflow, request_id)):
                pass
            running = lifecycle.advance(old, RequestState.RUNNING, self._clock.now())
            new = msgspec.structs.replace(running, epoch=old.epoch + 1, reply_to=None, is_blocking=False)
            operations: list[Put | Delete] = [
                Put(key, codec.encode(new)),
                Put(keys.active(workflow, request_id), codec.encode(Active(new.epoch))),
                Delete(keys.stopped(workflow, request_id)),
            ]
            if old.due_at is not None:
                operations.append(Delete(keys.due(old.due_at, workflow, request_id)))
            # The root's manifest is the first to go in a clean-up: one that has begun keeps the request out of here.
            conditions: list[Absent | Equals | At] = [At(key, entry.version), At(root.key, root.version)]
            if self._store.commit(Transaction(conditions=conditions, operations=operations)).succeeded:
                self._publish_again(workflow, request_id, new)
                return new

    def _publish_again(self, w: str, r: str, request: Request) -> None:
        definitions = self._definitions.definitions(w, request.set)
        step = definitions.jobs[request.job_name]
        message = Message(w=w, r=r, epoch=request.epoch, set="", kind="map", p=ids.ROOT, to=1, again=True)
        topic = routing.topic(w, "map", definitions.mapper(step).capability)
        try:
            self._publisher.publish([Publication(topic, seal(message, self._message_key))])
        except BrokerUnavailable as error:
            _log.warning("request %s was resumed but not published, the sweeper will: %s", r, error)
