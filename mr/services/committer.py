"""The committer: units of many visits into few transactions, then publish. Commit comes before publish, always.

Whatever units are ready go into one transaction, under all their fences and guards. If it is refused, each unit
is sent alone, and if that is refused, each fact; so one late repeat never holds up its neighbours. A transaction
whose outcome is unknown is sent again as it is: then a fact that is there already counts as written by us if its
bytes are ours, and what follows from it happens just the same.

On a store without transactions the same facts go one by one in their order, and the fence is only looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from mr import codec
from mr.clock import Clock
from mr.errors import BlobStoreUnavailable, BrokerUnavailable
from mr.model import ids
from mr.model.invocation import ErrorReport, report_as_dict
from mr.model.request import Active, Reply, Request, RequestState
from mr.ports.broker import Publication, Publisher
from mr.ports.store import Absent, At, Delete, Entry, Equals, Outcome, Put, Store, Transaction
from mr.rules import keys, lifecycle, limits
from mr.services.blobs import Blobs
from mr.services.events import Events
from mr.services.insisting import insist
from mr.services.quota import Quota
from mr.services.receipts import Receipts
from mr.services.records import fitting
from mr.services.retention import Retention
from mr.services.unit import End, Fact, Receipted, Unit, Verdict

_log = logging.getLogger(__name__)

T = TypeVar("T")
_OVERHEAD = 64
"""Bytes that an operation costs beside its key and value."""


class _Atom(msgspec.Struct, frozen=True):
    """Writes that make sense together only. `guard` is the key that must be absent, if any."""

    guard: str | None
    operations: Sequence[Put | Delete]

    @property
    def size_bytes(self) -> int:
        return sum(_OVERHEAD + len(o.key) + (len(o.value) if isinstance(o, Put) else 0) for o in self.operations)


class _Prepared(msgspec.Struct, eq=False):
    """A unit on its way: its fence, its atoms, and what became of it."""

    unit: Unit
    fence: Equals
    atoms: list[_Atom]
    published: bool = False
    receipt: Receipted = Receipted(verdict=Verdict.COMMITTED)

    @property
    def keys(self) -> Iterator[str]:
        return (operation.key for atom in self.atoms for operation in atom.operations)


class Committer:
    """Commits units. `pause` waits between repeats and may raise to give up (a process that has to stop).

    `on_failure` is told of each request that ended here as failed, with the reason.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        receipts: Receipts,
        clock: Clock,
        retention: Retention,
        quota: Quota,
        pause: Callable[[float], None],
        on_failure: Callable[[str, str, ErrorReport], None] = lambda w, r, report: None,
        events: Events | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._blobs = blobs or Blobs()
        self._on_failure, self._events = on_failure, events or Events()
        self._store, self._publisher, self._receipts = store, publisher, receipts
        self._clock, self._retention, self._quota, self._pause = clock, retention, quota, pause

    def commit(self, units: Sequence[Unit]) -> list[Receipted]:
        """Commit all, then publish what they ask for. A repeat of a unit gives the same verdict.

        Guarantee: what is COMMITTED is durable. Publishing may fail; the sweeper makes up for it.
        """
        prepared = [self._prepare(unit) for unit in units]
        waiting = [one for one in prepared if one.receipt.verdict is Verdict.COMMITTED]
        while waiting:
            group = self._fill(waiting)
            waiting = [one for one in waiting if one not in group]
            if not self._store.abilities.transactions:
                for one in group:
                    self._plainly(one)
            elif len(group) > 1 and self._together(group):
                pass
            else:
                for one in group:
                    self._alone(one)
        self._publish([one for one in prepared if one.receipt.verdict is Verdict.COMMITTED and not one.published])
        for one in prepared:
            self._account_for(one)
            end = one.unit.end
            if end is not None and end.report is not None and one.receipt.verdict is Verdict.COMMITTED:
                self._on_failure(one.unit.workflow, one.unit.request_id, end.report)
        return [one.receipt for one in prepared]

    def stage(self, fence: tuple[str, bytes], puts: Sequence[tuple[str, bytes]]) -> bool:
        """Write an execution's own chunks, as blobs once the request spills; False if the request is over."""
        if self._quota.spills(*keys.of_active(fence[0])):
            return all(self._spill(fence, key, value) for key, value in puts)
        return self._stage(fence, puts)

    def _spill(self, fence: tuple[str, bytes], key: str, chunk: bytes) -> bool:
        """Write a chunk as a blob, and only then what names it. The fence is looked at before each try."""
        reference = self._insist(lambda: self._blobs.write(key, chunk) if self._stands(fence) else None)
        if reference is not None and self._stage(fence, [(key, reference)]):
            return True
        if self._read(key) is None:
            with suppress(BlobStoreUnavailable):  # then it goes with the request, or shows as an orphan
                self._blobs.drop(key)
        return False

    def _stands(self, fence: tuple[str, bytes]) -> bool:
        entry = self._store.get(fence[0])
        return entry is not None and entry.value == fence[1]

    def _stage(self, fence: tuple[str, bytes], puts: Sequence[tuple[str, bytes]]) -> bool:
        if not self._store.abilities.transactions:
            if not self._insist(lambda: self._stands(fence)):
                return False
            for key, value in puts:
                self._apply(Transaction(operations=[Put(key, value)]))
        elif not all(
            self._apply(Transaction(conditions=[Equals(*fence)], operations=[Put(key, value)])).succeeded
            for key, value in puts
        ):
            return False
        self._quota.stored(*keys.of_active(fence[0]), fence, sum(len(key) + len(value) for key, value in puts))
        return True

    def _account_for(self, one: _Prepared) -> None:
        w, r = one.unit.workflow, one.unit.request_id
        if one.receipt.verdict is Verdict.ENDED or one.unit.end is not None:
            self._quota.forget(w, r)
        else:
            self._quota.stored(w, r, (one.fence.key, one.fence.value), sum(atom.size_bytes for atom in one.atoms))

    # -- putting together ---------------------------------------------------------------------------------------

    def _prepare(self, unit: Unit) -> _Prepared:
        fence = Equals(keys.active(unit.workflow, unit.request_id), codec.encode(Active(unit.epoch)))
        atoms = [_Atom(fact.key if fact.once else None, self._writes(unit, fact)) for fact in unit.facts]
        prepared = _Prepared(unit, fence, atoms)
        if unit.end is not None:
            operations = self._ending(unit, unit.end)
            if operations is None:
                prepared.receipt = Receipted(verdict=Verdict.ENDED)
                return prepared
            done = unit.end.done
            first = [Put(done.key, done.value)] if done is not None else []
            atoms.append(_Atom(_guard(unit, unit.end), [*first, *operations]))
        return prepared

    def _writes(self, unit: Unit, fact: Fact) -> list[Put | Delete]:
        written: list[Put | Delete] = [Put(fact.key, fact.value)]
        if fact.report is not None:
            now = self._clock.now()
            written += self._events.of_attempt(unit.workflow, unit.request_id, fact.key, fact.report, now)
        return written

    def _ending(self, unit: Unit, end: End) -> list[Put | Delete] | None:
        """The end of a request, in the order for stores that cannot do it at once; None if it is not to end so."""
        w, r = unit.workflow, unit.request_id
        data = unit.request
        if data is None:
            entry = self._read(keys.request(w, r))
            if entry is None:
                return None
            data = entry.value
        request = codec.decode(data, Request, where=f"request {r}")
        now = self._clock.now()
        error = None
        if end.report is not None:
            brief = fitting(end.report.output, limits.REPORT_OUTPUT_MAX)
            error = report_as_dict(msgspec.structs.replace(end.report, output=brief))
        if request.state is end.after:
            is_written = end.written is not None
            request = lifecycle.advance(
                request, end.state, now, written=end.written,
                due_at=self._retention.due_at(request, end.state, now, is_written=is_written),
                failed_invocation_id=f"{r}.{end.failed}" if end.failed is not None else None, error=error,
            )  # fmt: skip
        elif self._store.abilities.transactions:
            return None
        operations: list[Put | Delete] = [Put(keys.request(w, r), codec.encode(request))]
        if not request.state.is_final:
            return operations
        operations += self._events.of_end(w, r, request, now)
        if request.due_at is not None:
            operations.append(Put(keys.due(request.due_at, w, r), b"{}"))
        if request.state is not RequestState.SUCCEEDED:
            operations.append(Put(keys.stopped(w, r), codec.encode({"epoch": unit.epoch})))
        if request.reply_to is not None:
            is_written = request.written is not None
            reply = Reply(workflow_name=w, state=request.state, error=request.error, is_written=is_written)
            if end.pairs is not None:
                reply = msgspec.structs.replace(reply, pairs=end.pairs.raw())
            operations.append(Put(keys.replies(request.reply_to, r), codec.encode(reply)))
        operations.append(Delete(keys.active(w, r)))
        return operations

    def _fill(self, waiting: list[_Prepared]) -> list[_Prepared]:
        """As many units as fit one transaction; one at least, which may be too big for it."""
        limits = self._store.limits
        group: list[_Prepared] = []
        written: set[str] = set()
        fences: dict[str, bytes] = {}
        conditions = operations = size = 0
        for one in waiting:
            names = set(one.keys)
            conditions += 1 + sum(atom.guard is not None for atom in one.atoms)
            operations += len(names) + len(one.unit.counts)
            size += (
                4 * sum(map(len, one.unit.counts))
                + sum(atom.size_bytes for atom in one.atoms)
                + sum(len(call.publication.body) for call in one.unit.calls)
            )
            conflict = (
                names & written
                or fences.get(one.fence.key, one.fence.value) != one.fence.value
                or len(names) < sum(len(atom.operations) for atom in one.atoms)
            )
            is_over = max(conditions, operations) > limits.operations or size > limits.transaction_bytes
            if group and (conflict or is_over):
                break
            group.append(one)
            written |= names
            fences[one.fence.key] = one.fence.value
            if conflict or is_over:
                break
        return group

    def _together(self, group: list[_Prepared]) -> bool:
        fences = {one.fence.key: one.fence for one in group}
        counts = list(dict.fromkeys(prefix for one in group for prefix in one.unit.counts))
        outcome = self._apply(
            Transaction(
                conditions=[*fences.values(), *(Absent(a.guard) for one in group for a in one.atoms if a.guard)],
                operations=[operation for one in group for atom in one.atoms for operation in atom.operations],
                counts=counts,
                messages=self._joined(group),
            )
        )
        if outcome.succeeded:
            for one in group:
                one.published = self._publisher.joins_commit
                one.receipt = Receipted(verdict=Verdict.COMMITTED, counts=dict(outcome.counts))
        return outcome.succeeded

    def _alone(self, one: _Prepared) -> None:
        """In as few transactions as fit; where one is refused, fact by fact."""
        others: set[str] = set()
        counts: dict[str, int] = {}
        pieces = list(self._pieces(one))
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            outcome = self._apply(
                Transaction(
                    conditions=[one.fence, *(Absent(atom.guard) for atom in piece if atom.guard)],
                    operations=[operation for atom in piece for operation in atom.operations],
                    counts=one.unit.counts if is_last else (),
                    messages=self._joined([one]) if is_last else (),
                )
            )
            if outcome.succeeded:
                one.published = is_last and self._publisher.joins_commit
                counts = dict(outcome.counts)
                continue
            verdict = self._stepwise(one, piece, others)
            if verdict is not Verdict.COMMITTED:
                one.receipt = Receipted(verdict=verdict)
                return
            if is_last and one.unit.counts:
                counts = dict(self._apply(Transaction(counts=one.unit.counts)).counts)
        one.receipt = Receipted(verdict=Verdict.COMMITTED, counts=counts, others=frozenset(others))

    def _pieces(self, one: _Prepared) -> Iterator[list[_Atom]]:
        limits = self._store.limits
        piece: list[_Atom] = []
        # The counts, the fence and the messages have to find room in the last piece; room is left in each.
        room = limits.operations - len(one.unit.counts) - 1
        room_bytes = limits.transaction_bytes - 4 * sum(map(len, one.unit.counts))
        if self._publisher.joins_commit:
            bodies = sum(len(call.publication.body) for call in one.unit.calls)
            room_bytes -= min(bodies, limits.transaction_bytes // 2)
        operations = size = 0
        written: set[str] = set()
        for atom in one.atoms:
            names = {operation.key for operation in atom.operations}
            too_much = operations + len(atom.operations) > room or size + atom.size_bytes > room_bytes
            if piece and (too_much or names & written):
                yield piece
                piece, operations, size, written = [], 0, 0, set()
            piece.append(atom)
            operations += len(atom.operations)
            size += atom.size_bytes
            written |= names
        yield piece

    def _stepwise(self, one: _Prepared, piece: list[_Atom], others: set[str]) -> Verdict:
        for atom in piece:
            reads = [one.fence.key, *([atom.guard] if atom.guard else [])]
            conditions: list[Absent | Equals | At] = [one.fence]
            if atom.guard:
                conditions.append(Absent(atom.guard))
            outcome = self._apply(Transaction(conditions=conditions, operations=atom.operations, reads=reads))
            if outcome.succeeded:
                continue
            fence = outcome.entries[one.fence.key]
            if fence is None or fence.value != one.fence.value or atom.guard is None:
                return Verdict.ENDED
            verdict = _compare(atom, outcome.entries[atom.guard], others)
            if verdict is not Verdict.COMMITTED:
                return verdict
        return Verdict.COMMITTED

    # -- without transactions -----------------------------------------------------------------------------------

    def _plainly(self, one: _Prepared) -> None:
        """Fact by fact, in order. The fence is read once before: a zombie may slip through, and leaves strays only."""
        entry = self._read(one.fence.key)
        if entry is None or entry.value != one.fence.value:
            one.receipt = Receipted(verdict=Verdict.ENDED)
            return
        others: set[str] = set()
        for atom in one.atoms:
            verdict = self._plain_atom(one, atom, others)
            if verdict is not Verdict.COMMITTED:
                one.receipt = Receipted(verdict=verdict)
                return
        counts = {prefix: self._count(prefix) for prefix in one.unit.counts}
        one.receipt = Receipted(verdict=Verdict.COMMITTED, counts=counts, others=frozenset(others))

    def _plain_atom(self, one: _Prepared, atom: _Atom, others: set[str]) -> Verdict:
        request_key = keys.request(one.unit.workflow, one.unit.request_id)
        for operation in atom.operations:
            if isinstance(operation, Put) and operation.key == atom.guard:
                outcome = self._apply(
                    Transaction(conditions=[Absent(atom.guard)], operations=[operation], reads=[atom.guard])
                )
                if not outcome.succeeded:
                    verdict = _compare(atom, outcome.entries[atom.guard], others)
                    if verdict is not Verdict.COMMITTED:
                        return verdict
            elif operation.key == request_key and isinstance(operation, Put):
                if not self._end_plainly(request_key, operation, one.unit.end):
                    return Verdict.ENDED
            else:
                self._apply(Transaction(operations=[operation]))
        return Verdict.COMMITTED

    def _end_plainly(self, key: str, operation: Put, end: End | None) -> bool:
        """Move the request's record to its end, unless another execution has; False if another end won."""
        assert end is not None
        while True:
            entry = self._read(key)
            if entry is None:
                return False
            if entry.value == operation.value:
                return True
            if codec.decode(entry.value, Request, where=key).state is not end.after:
                return False
            if self._apply(Transaction(conditions=[At(key, entry.version)], operations=[operation])).succeeded:
                return True

    # -- talking to the store and the broker --------------------------------------------------------------------

    def _apply(self, transaction: Transaction) -> Outcome:
        """Commit, repeating the same transaction until its outcome is known."""
        return self._insist(lambda: self._store.commit(transaction))

    def _read(self, key: str) -> Entry | None:
        return self._insist(lambda: self._store.get(key))

    def _count(self, prefix: str) -> int:
        return self._insist(lambda: self._store.count(prefix))

    def _insist(self, call: Callable[[], T]) -> T:
        return insist(call, self._pause, tell=_not_taken)

    def _joined(self, group: list[_Prepared]) -> list[Publication]:
        if not self._publisher.joins_commit:
            return []
        return [call.publication for one in group for call in one.unit.calls]

    def _publish(self, committed: list[_Prepared]) -> None:
        calls = [
            (one, call) for one in committed for call in one.unit.calls if call.unless_others not in one.receipt.others
        ]
        if not calls:
            return
        try:
            broker = self._publisher.publish([call.publication for _, call in calls])
        except BrokerUnavailable as error:
            _log.warning("%d messages were not published, the sweeper will: %s", len(calls), error)
            return
        if not self._publisher.joins_commit:
            for one, call in calls:
                self._receipts.published((one.fence.key, one.fence.value), call.receipts, broker)


def _not_taken(error: Exception, pause_s: float) -> None:
    _log.warning("a commit is not taken, trying again in %.2f s: %s", pause_s, error)


def _guard(unit: Unit, end: End) -> str | None:
    """What must not be there when the request ends: another's result of the root, or, for a failure, any."""
    if end.done is not None:
        return end.done.key
    if end.state is RequestState.FAILED and end.after is RequestState.RUNNING:
        return keys.done(unit.workflow, unit.request_id, ids.ROOT, 0)
    return None


def _compare(atom: _Atom, existing: Entry | None, others: set[str]) -> Verdict:
    """A guarded fact is there already: ours, written by a repeat, or another execution's."""
    assert atom.guard is not None
    ours = next((o.value for o in atom.operations if isinstance(o, Put) and o.key == atom.guard), None)
    if ours is None:
        return Verdict.ENDED  # a failure comes too late: the root is done
    if existing is not None and existing.value == ours:
        return Verdict.COMMITTED
    if "/manifest/" in atom.guard:
        return Verdict.LOST
    others.add(atom.guard)
    return Verdict.COMMITTED
