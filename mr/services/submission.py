"""Submission: accept requests (`acceptance`), cancel one, or give it a second life."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from mr import codec
from mr.clock import Clock
from mr.collections.pages import remove_all
from mr.errors import (
    BrokerUnavailable,
    MrError,
    RequestEnded,
    RequestError,
    RequestNotFound,
)
from mr.model import ids
from mr.model.invocation import ErrorReport, report_as_dict
from mr.model.message import Message, seal
from mr.model.request import Active, Reply, Request, RequestState
from mr.ports.broker import Publication, Publisher
from mr.ports.store import Absent, At, Delete, Equals, Put, Store, Transaction
from mr.rules import keys, lifecycle, routing
from mr.services.acceptance import Acceptance, Accepted, Definitions, Posting
from mr.services.events import Events
from mr.services.retention import Retention

_log = logging.getLogger(__name__)


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
        events: Events | None = None,
    ) -> None:
        self._events = events or Events()
        self._store, self._publisher, self._definitions = store, publisher, definitions
        self._clock, self._retention, self._message_key = clock, retention, message_key
        self.accept = Acceptance(store, publisher, definitions, clock, message_key).accept

    def submit(
        self, workflow: str, job: str, arguments: Mapping[str, Any], *, context: Mapping[str, Any] | None = None
    ) -> Accepted:
        """Accept a request: each item of `arguments` becomes one (key, value) pair of the root invocation.

        Guarantee: durable when it returns; not at all when it raises, except StoreUnavailable with `unknown` set.
        Raises: UnknownWorkflow, UnknownJob; ValueRefused, InvalidArguments; VersionConflict; StoreUnavailable.
        """
        posting = Posting(
            request_id=ids.new_request_id(), workflow=workflow, job=job, arguments=arguments, context=context or {}
        )
        (outcome,) = self.accept([posting])
        if isinstance(outcome, MrError):
            raise outcome
        return outcome

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
        operations += self._events.of_end(w, r, ended, self._clock.now())
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
            remove_all(self._store, keys.all_attempts(workflow, request_id))
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
