"""Acceptance: several postings at once become requests, each for itself.

An accepted request is one transaction: its record, its fence, and the manifest of the virtual mapper `-` whose
only child is the root invocation, under the version of the workflow whose definition set it is pinned to. Only
then is the first message published; if that fails, the sweeper does it.

What makes it quick: postings that come together share a transaction, and the definitions are those that were read
last. Neither can do harm: a workflow that has changed since refuses the transaction, and then each posting is
accepted alone, under definitions that are read anew. Nobody is ever refused on what was known before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mr import codec
from mr.clock import Clock, stamp
from mr.codec import Items
from mr.errors import (
    BrokerUnavailable,
    InvalidArguments,
    MrError,
    StoreFull,
    StoreUnavailable,
    UnknownJob,
    VersionConflict,
)
from mr.model import ids
from mr.model.dataset import Payload
from mr.model.definitions import DefinitionSet
from mr.model.invocation import Manifest
from mr.model.message import Level, Message, seal
from mr.model.request import Active, Request
from mr.model.workflow import Workflow
from mr.ports.broker import Publication, Publisher
from mr.ports.store import Absent, At, Put, Store, Transaction
from mr.ports.store import Outcome as Committed
from mr.rules import keys, limits, routing

_log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often an acceptance is tried again when the workflow's definitions change under it."""


class Definitions(Protocol):
    """What acceptance asks of the registry."""

    def current(self, w: str) -> tuple[Workflow, int, DefinitionSet]:
        """The workflow's record, its version, and its current definition set. Raises: UnknownWorkflow."""

    def definitions(self, w: str, digest: str) -> DefinitionSet:
        """A definition set by its hash. Raises: NotFound."""


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for. `request_id` is fresh; `arguments` become the pairs of the root invocation."""

    request_id: str
    workflow: str
    job: str
    arguments: Mapping[str, Any]
    context: Mapping[str, Any] = {}
    is_blocking: bool = False
    reply_to: str | None = None


class Accepted(msgspec.Struct, frozen=True):
    """An accepted request, as the caller may want to know it."""

    request_id: str
    request: Request


class _Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A posting with all that its transaction needs."""

    accepted: Accepted
    version: int
    fence: Put
    manifest: Put
    record: Put
    publication: Publication

    @property
    def size_bytes(self) -> int:
        puts = (self.fence, self.manifest, self.record)
        return sum(2 * len(put.key) + len(put.value) for put in puts) + len(self.publication.body)


Outcome = Accepted | MrError


class Acceptance:
    """Makes requests of postings. Safe to call from several threads."""

    def __init__(
        self, store: Store, publisher: Publisher, definitions: Definitions, clock: Clock, message_key: bytes
    ) -> None:
        self._store, self._publisher, self._definitions = store, publisher, definitions
        self._clock, self._message_key = clock, message_key
        self._known: dict[str, tuple[Workflow, int, DefinitionSet]] = {}

    def accept(self, postings: Sequence[Posting]) -> list[Outcome]:
        """For each posting its request, or why there is none.

        Guarantee: what is accepted is durable; what has an error does not exist, except where that is a
        StoreUnavailable with `unknown` set. The errors: UnknownWorkflow, UnknownJob, ValueRefused, InvalidArguments,
        VersionConflict, StoreUnavailable, StoreFull.
        """
        outcomes: dict[int, Outcome] = {}
        publications: list[Publication] = []
        if self._store.abilities.transactions:
            for group in self._groups(postings):
                outcomes.update(self._together(group, publications))
        for number, posting in enumerate(postings):
            if number not in outcomes:
                outcomes[number] = self._alone(posting, publications)
        self._publish(publications)
        return [outcomes[number] for number in range(len(postings))]

    # -- from a posting to a transaction --------------------------------------------------------------------------

    def _prepare(self, posting: Posting, *, anew: bool) -> _Prepared:
        pairs = Items.of([codec.dumps((key, value)) for key, value in posting.arguments.items()])
        if pairs.size_bytes > limits.VALUE_MAX:
            _check_sizes(posting.arguments, pairs)
        w, r = posting.workflow, posting.request_id
        if anew or w not in self._known:
            self._known[w] = self._definitions.current(w)
        workflow, version, definitions = self._known[w]
        step = definitions.jobs.get(posting.job)
        if step is None:
            known = ", ".join(sorted(definitions.jobs)) or "none yet"
            raise UnknownJob(f"workflow {w!r} has no job {posting.job!r}", hint=f"it has: {known}")
        request = Request(
            workflow_name=w,
            job_name=posting.job,
            invocation_id=f"{r}.0",
            context=dict(posting.context),
            is_blocking=posting.is_blocking,
            set=workflow.handlers_state,
            reply_to=posting.reply_to,
            created_at=stamp(self._clock.now()),
        )
        args = Items.of([pairs.array()]).raw()
        manifest = Manifest(execution="accepted", step=step, count=1, slice=1, args=Payload(inline=args))
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
            args=args if pairs.size_bytes <= limits.INLINE_MAX else msgspec.Raw(b"null"),
            request=msgspec.Raw(record),
        )
        topic = routing.topic(w, "map", definitions.mapper(step).capability)
        return _Prepared(
            accepted=Accepted(r, request),
            version=version,
            fence=Put(keys.active(w, r), codec.encode(Active(request.epoch))),
            manifest=Put(keys.manifest(w, r, ids.ROOT), codec.encode(manifest)),
            record=Put(keys.request(w, r), record),
            publication=Publication(topic, seal(message, self._message_key)),
        )

    def _groups(self, postings: Sequence[Posting]) -> Iterator[dict[int, _Prepared]]:
        """By number, in runs that fit one transaction, what can be said by the definitions read last."""
        most = self._store.limits
        group: dict[int, _Prepared] = {}
        size = 0
        for number, posting in enumerate(postings):
            try:
                one = self._prepare(posting, anew=False)
            except MrError:
                continue  # its turn comes alone, under definitions read anew
            if group and (4 * (len(group) + 1) > most.operations or size + one.size_bytes > most.transaction_bytes):
                yield group
                group, size = {}, 0
            group[number] = one
            size += one.size_bytes
        if group:
            yield group

    # -- into the store -------------------------------------------------------------------------------------------

    def _together(self, group: Mapping[int, _Prepared], publications: list[Publication]) -> dict[int, Outcome]:
        """What became of those of the group about which that is certain now."""
        try:
            stand = self._commit(list(group.values()))
        except (StoreUnavailable, StoreFull) as error:
            return dict.fromkeys(group, error)
        except MrError:
            return {}  # one of them is to blame; alone, each gets its own answer
        outcomes: dict[int, Outcome] = {}
        for (number, one), stands in zip(group.items(), stand, strict=True):
            if stands:
                outcomes[number] = one.accepted
                publications.append(one.publication)
        return outcomes

    def _alone(self, posting: Posting, publications: list[Publication]) -> Outcome:
        try:
            for _ in range(ATTEMPTS):
                one = self._prepare(posting, anew=True)
                if not self._store.abilities.transactions:
                    self._plainly(one)
                elif not self._commit([one])[0]:
                    continue
                publications.append(one.publication)
                return one.accepted
        except MrError as error:
            return error
        return VersionConflict(f"the definitions of workflow {posting.workflow!r} keep changing", hint="try again")

    def _commit(self, group: Sequence[_Prepared]) -> list[bool]:
        """Commit all or none, once more where the outcome is unknown; says which requests stand.

        Raises: StoreUnavailable, with `unknown` if any of the tries may have been applied; StoreFull.
        """
        versions = {one.accepted.request.workflow_name: one.version for one in group}
        absent = [Absent(put.key) for one in group for put in (one.fence, one.record)]
        transaction = Transaction(
            conditions=[*(At(keys.workflow(w), version) for w, version in versions.items()), *absent],
            operations=[put for one in group for put in (one.fence, one.manifest, one.record)],
            reads=[one.record.key for one in group],
            messages=[one.publication for one in group] if self._publisher.joins_commit else [],
        )
        try:
            outcome = self._store.commit(transaction)
        except StoreUnavailable as error:
            if not error.unknown:
                raise
            outcome = self._repeat(transaction)
        return [outcome.succeeded or outcome.entries[one.record.key] is not None for one in group]

    def _repeat(self, transaction: Transaction) -> Committed:
        try:
            return self._store.commit(transaction)
        except StoreUnavailable as error:
            raise StoreUnavailable(error.message, unknown=True, hint=error.hint) from error

    def _plainly(self, one: _Prepared) -> None:
        # In this order: without its record a request was never accepted, and the sweeper clears the rest away.
        # If it did so while this process stood still, the fence is missing at the end, and is put again.
        for put in (one.fence, one.manifest, one.record, one.fence):
            transaction = Transaction(conditions=[Absent(put.key)], operations=[put])
            try:
                self._store.commit(transaction)
            except StoreUnavailable as error:
                if not error.unknown:
                    raise
                self._repeat(transaction)

    def _publish(self, publications: Sequence[Publication]) -> None:
        if publications and not self._publisher.joins_commit:
            try:
                self._publisher.publish(publications)
            except BrokerUnavailable as error:
                _log.warning(
                    "%d requests were accepted but not published, the sweeper will: %s", len(publications), error
                )


def _check_sizes(arguments: Mapping[str, Any], pairs: Items) -> None:
    """Raises: InvalidArguments if one argument, or all together, are too big."""
    named = zip(arguments, pairs.lengths, strict=True)
    sizes = [(f"argument {name[:100]!r} is", size, limits.VALUE_MAX) for name, size in named]
    for what, size, most in [*sizes, ("the arguments are", pairs.size_bytes, limits.ARGUMENTS_MAX)]:
        if size > most:
            raise InvalidArguments(
                f"{what} {size} bytes; at most {most} are accepted",
                hint="put big input on the shared file system or behind a URL and pass its name",
            )
