"""The rules of the protocol, broken one at a time. Each mutant has to be found by the seeds of a test run.

A mutant that is not found means that the simulation looks away there, and is as bad as a violation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any
from unittest.mock import patch

import msgspec

from mr import codec
from mr.errors import BlobStoreUnavailable, BrokerUnavailable
from mr.model.message import Message
from mr.model.request import RequestState
from mr.ports.store import Equals, Outcome, Transaction
from mr.rules import keys
from mr.services import committer, sweeper
from mr.services.acceptance import Acceptance
from mr.services.blobs import Blobs, Reference
from mr.services.committer import Committer
from mr.services.progress import Visit
from mr.services.sweeper import Sweeper
from mr.services.unit import End, Receipted, Verdict
from mr.services.work import MapWork, ReduceWork
from mr.services.writing import Writing

from .run import Report, run_seed, scene, spills, writes

Patches = Iterator[Any]


def _without_guard(fragment: str) -> Patches:
    prepare = Committer._prepare

    def mutated(self: Committer, unit: Any) -> Any:
        one = prepare(self, unit)
        one.atoms = [
            committer._Atom(None if atom.guard and fragment in atom.guard else atom.guard, atom.operations)
            for atom in one.atoms
        ]
        return one

    yield patch.object(Committer, "_prepare", mutated)


def _count_on_success_only() -> Patches:
    apply = Committer._apply

    def no_counts_alone(self: Committer, transaction: Transaction) -> Outcome:
        outcome = apply(self, transaction)
        if transaction.counts and not transaction.operations and not transaction.conditions:
            return msgspec.structs.replace(outcome, counts=dict.fromkeys(transaction.counts, 0))
        return outcome

    yield patch.object(Committer, "_apply", no_counts_alone)


def _one_too_few() -> Patches:
    real = Visit.committed

    def mutated(self: Visit, receipt: Receipted) -> None:
        more = {prefix: n + 1 for prefix, n in receipt.counts.items() if "/done/" in prefix}
        real(self, msgspec.structs.replace(receipt, counts={**receipt.counts, **more}))

    yield patch.object(Visit, "committed", mutated)


def _publish_before_commit() -> Patches:
    real = Committer.commit

    def mutated(self: Committer, units: Any) -> Any:
        for unit in units:
            with suppress(BrokerUnavailable):
                self._publisher.publish([call.publication for call in unit.calls])
        return real(self, units)

    yield patch.object(Committer, "commit", mutated)


def _fence_is(condition: Callable[[Committer, Any], Any]) -> Patches:
    """Replace the fence in every transaction."""
    apply = Committer._apply

    def mutated(self: Committer, transaction: Transaction) -> Outcome:
        conditions = []
        for one in transaction.conditions:
            if isinstance(one, Equals) and one.key.startswith(keys.ACTIVE):
                replaced = condition(self, one)
                conditions += [replaced] if replaced is not None else []
            else:
                conditions.append(one)
        return apply(self, msgspec.structs.replace(transaction, conditions=conditions))

    yield patch.object(Committer, "_apply", mutated)


def _no_fence() -> Patches:
    yield from _fence_is(lambda self, fence: None)


def _epoch_ignored() -> Patches:
    def any_epoch(self: Committer, fence: Equals) -> Equals:
        entry = self._store.entries.get(fence.key)  # type: ignore[attr-defined]
        return Equals(fence.key, entry.value) if entry is not None else fence

    yield from _fence_is(any_epoch)
    real = Committer._ending

    def mutated(self: Committer, unit: Any, end: Any) -> Any:
        entry = self._store.entries.get(keys.request(unit.workflow, unit.request_id))  # type: ignore[attr-defined]
        return real(self, msgspec.structs.replace(unit, request=entry.value if entry else unit.request), end)

    yield patch.object(Committer, "_ending", mutated)


def _sweeper_ignores_backlog() -> Patches:
    def mutated(
        self: Sweeper, label: str, topic: str, receipt: Any, first: float, workers: Any, seen: Any, now: float
    ) -> bool:
        return now - first >= sweeper.DUE_S

    yield patch.object(Sweeper, "_is_lost", mutated)


def _chunks_without_execution() -> Patches:
    real = keys.chunk
    yield patch.object(keys, "chunk", lambda w, r, execution, kind, number: real(w, r, "any", kind, number))


def _session_without_execution() -> Patches:
    one, all_ = keys.session, keys.sessions
    yield patch.object(keys, "session", lambda w, r, p, execution, key: one(w, r, p, "any", key))
    yield patch.object(keys, "sessions", lambda w, r, p="", execution="": all_(w, r, p, "any" if p else ""))


def _kept_below_a_lost_manifest() -> Patches:
    def mutated(atom: Any, existing: Any, others: set[str]) -> Verdict:
        others.add(atom.guard)
        return Verdict.COMMITTED

    yield patch.object(committer, "_compare", mutated)


def _random_reduce_id() -> Patches:
    numbers = count()
    real = keys.reduce
    yield patch.object(keys, "reduce", lambda w, r, p: real(w, r, f"{p}-{next(numbers)}"))


def _end_unguarded() -> Patches:
    """The end is written whatever the fence says, and whatever end is there already."""
    real = Committer._stepwise

    def mutated(self: Committer, one: Any, piece: Any, others: set[str]) -> Verdict:
        verdict = real(self, one, piece, others)
        if verdict is Verdict.ENDED and one.unit.end is not None and self._store.abilities.transactions:
            self._apply(Transaction(operations=list(one.atoms[-1].operations)))
        return verdict

    yield patch.object(Committer, "_stepwise", mutated)


def _empty_map_forgotten() -> Patches:
    real = Visit._complete

    def mutated(self: Visit, branch: Any) -> None:
        if branch.count:
            real(self, branch)

    yield patch.object(Visit, "_complete", mutated)


def _write_published_first() -> Patches:
    real = Committer.commit

    def mutated(self: Committer, units: Any) -> Any:
        committed = []
        for unit in units:
            if unit.end is not None and unit.end.state is RequestState.WRITING:
                with suppress(BrokerUnavailable):
                    self._publisher.publish([call.publication for call in unit.calls])
                unit = msgspec.structs.replace(unit, calls=[])
            committed.append(unit)
        return real(self, committed)

    yield patch.object(Committer, "commit", mutated)


def _end_without_the_write() -> Patches:
    def mutated(self: Writing, message: Message) -> None:
        self._end(message, End(state=RequestState.SUCCEEDED, after=RequestState.WRITING, written={}))

    yield patch.object(Writing, "write", mutated)


def _reduced_without_what_was_taken_back() -> Patches:
    real = Visit.ascend

    def mutated(self: Visit, work: MapWork) -> ReduceWork | None:
        branch = self._branches[work.p]
        reduce = real(self, work)
        if reduce is None and self.verdict is None and self._end is None and branch.retained:
            parts = branch.datasets()
            step, level = self._step_of(work.p), branch.level()
            reduce = ReduceWork(number=0, p=work.p, step=step, level=level, datasets=parts, session=branch.session)
            return self._started(reduce)
        return reduce

    yield patch.object(Visit, "ascend", mutated)


def _blob_taken_for_written() -> Patches:
    def mutated(self: Committer, fence: tuple[str, bytes], key: str, chunk: bytes) -> bool:
        with suppress(BlobStoreUnavailable):
            self._blobs.write(key, chunk)
        return self._stage(fence, [(key, codec.encode(Reference(blob=keys.blob(key), bytes=len(chunk))))])

    yield patch.object(Committer, "_spill", mutated)


def _nothing() -> Patches:
    return iter(())


def _refused_is_accepted() -> Patches:
    real = Acceptance._commit

    def mutated(self: Acceptance, group: Any) -> Any:
        real(self, group)
        return [True] * len(group)

    yield patch.object(Acceptance, "_commit", mutated)


MUTANTS: dict[str, Callable[[], Patches]] = {
    "manifest unguarded": lambda: _without_guard("/manifest/"),
    "slice record unguarded": lambda: _without_guard("/done/"),
    "count only in the success branch": _count_on_success_only,
    "count >= n - 1": _one_too_few,
    "publish before commit": _publish_before_commit,
    "finish before commit": _nothing,
    "no fence": _no_fence,
    "epoch ignored": _epoch_ignored,
    "no sweeper": _nothing,
    "sweeper ignores the backlog": _sweeper_ignores_backlog,
    "chunks without execution id": _chunks_without_execution,
    "session without execution id": _session_without_execution,
    "facts below a lost manifest kept": _kept_below_a_lost_manifest,
    "random reduce id": _random_reduce_id,
    "end of the request unguarded": _end_unguarded,
    "empty map does not trigger its reduce": _empty_map_forgotten,
    "reduced without what was taken back": _reduced_without_what_was_taken_back,
    "refused acceptance taken for an accepted one": _refused_is_accepted,
    "write published before the root's record": _write_published_first,
    "end without the write": _end_without_the_write,
    "blob that was refused taken for written": _blob_taken_for_written,
    "blobs stay when their request goes": lambda: iter([patch.object(Blobs, "remove", lambda self, w, r: None)]),
    "blob that came too late stays": lambda: iter([patch.object(Blobs, "drop", lambda self, key: None)]),
}
OF_BLOBS = frozenset(mutant for mutant in MUTANTS if mutant.startswith("blob"))
OF_WRITES = frozenset({"write published before the root's record", "end without the write"})

# Where to look first: a mode in which the rule matters. The rest of the seeds follow.
SCENES = {
    "count only in the success branch": "quiet",
    "finish before commit": "quiet",
    "empty map does not trigger its reduce": "quiet",
    "sweeper ignores the backlog": "calm",
    "random reduce id": "calm",
    "write published before the root's record": "quiet",
}


@contextmanager
def broken(mutant: str) -> Iterator[None]:
    """The product with one rule broken."""
    with ExitStack() as stack:
        for one in MUTANTS[mutant]():
            stack.enter_context(one)
        yield


def hunt(mutant: str, seeds: int, first: int = 0) -> Report | None:
    """The first seed that finds the mutant, or None."""
    mode = SCENES.get(mutant, "stormy")
    numbers = range(first, first + seeds)
    promising = {seed for seed in numbers if scene(random.Random(seed)) == (mode, True)}
    if mutant in OF_WRITES:
        promising = {seed for seed in promising if writes(seed)}
    if mutant in OF_BLOBS:
        promising = {seed for seed in promising if spills(seed)}
    with broken(mutant):
        for seed in sorted(numbers, key=lambda seed: (seed not in promising, seed)):
            report = run_seed(seed, mutant)
            if report.violation:
                return report
    return None
