"""Progress: what one execution has found out about a part of a request's tree, and what follows from it.

A **visit** is one run of one message by one worker. It says what to run next, what to commit and what to publish, and
does no I/O itself: the supervisor, or the simulation, drives it. One unit is under way at a time.

The rule that makes it quick is "work first, give back later": children of a mapper that ran here become a local
backlog at once, and nothing is recorded while that may all be over within milliseconds. A small tree so becomes
one transaction. What is not started after SPREAD_AFTER_S is published for others.

The rule that makes it right is that the manifest comes first: it fixes the children, and everything below is
committed with it or after it. If another execution's manifest is there already, the visit is void (`Verdict.LOST`):
whatever it has not committed is thrown away, and its message is opened anew against what the store says.

A repeat is harmless: every fact is created once, under the request's fence, and says the same whoever writes it.
"""

from __future__ import annotations

from array import array
from collections import deque
from functools import partial

import msgspec

from mr.codec import Items
from mr.model import ids
from mr.model.dataset import Chunks
from mr.model.definitions import DefinitionSet, HandlerRef
from mr.model.invocation import ErrorReport
from mr.model.message import Level
from mr.model.outcome import Failed, Mapped, Outcome, Reduced, Results, Returned
from mr.model.request import RequestState
from mr.rules import fan_out, keys, limits, retry
from mr.rules.refusal import refusal
from mr.services.branch import Branch, Run, Slice, level_of
from mr.services.calling import Calling
from mr.services.outbox import Outbox
from mr.services.records import Records, payload
from mr.services.sizing import Sizing
from mr.services.unit import End, Fact, Receipted, Unit, Verdict
from mr.services.work import MapWork, ReduceWork, Work, Worker


class Visit:
    """One execution of one message. See the module's text; the public methods are in the order of its life."""

    def __init__(
        self,
        *,
        worker: Worker,
        execution: str,
        workflow: str,
        request_id: str,
        epoch: int,
        definitions_hash: str,
        definitions: DefinitionSet,
        levels: dict[str, Level],
        request: bytes | None = None,
    ) -> None:
        self.worker, self.execution = worker, execution
        self.workflow, self.request_id, self.epoch = workflow, request_id, epoch
        self.definitions_hash, self.definitions = definitions_hash, definitions
        self.started = self._settled = worker.now()
        self.verdict: Verdict | None = None
        self._request = request
        self._levels = levels
        self._branches: dict[str, Branch] = {}
        self._stack: list[Branch] = []
        self._reduces: deque[ReduceWork] = deque()
        self._running: dict[int, Work] = {}
        self._number = 0
        self._outbox = Outbox()
        # No method of this visit: with one of them in its hands it would be a cycle, and a visit may hold megabytes.
        self._level = partial(level_of, self._branches, levels)
        self._calling = Calling(workflow, request_id, epoch, definitions_hash, definitions, worker.seal, self._level)
        self._records = Records(workflow, request_id, execution, worker.name, worker.stamp)
        self._sizing = Sizing(worker, definitions)
        self._end: End | None = None
        self._is_urgent = False
        self._in_flight: Unit | None = None
        self._fresh: list[Branch] = []
        self._touched: dict[tuple[str, int], Slice] = {}
        self._attempts: dict[str, int] = {}

    # -- what to do at first: said by whoever opened the message ------------------------------------------------

    def add_map(self, p: str, first: int, to: int, items: Items | None) -> None:
        """Children `first` up to `to` of a mapper whose manifest stands are to be run."""
        branch = self._foreign(p)
        assert branch.size is not None
        for number in range(first // branch.size, (to - 1) // branch.size + 1):
            part = branch.slice_of(number * branch.size)
            part.singly = first > part.start or to < part.stop
        self._queue(branch, first, to, items)

    def add_slice(self, p: str, number: int) -> None:
        """All parts of a slice stand, its `done` does not."""
        self._foreign(p)
        self._slice_counted(p, number)

    def add_reduce(self, p: str) -> None:
        """The reduce of `p` is due."""
        if self._offers(self.definitions.reducer(self._step_of(p)).capability):
            self._reduces.append(self._reduce_work(p))
        else:
            self._reduce_elsewhere(p)

    def add_end(self) -> None:
        """The root is done, and the request still runs: after a resume, or on a store without transactions."""
        self._root_done(None)

    def add_write(self) -> None:
        """The request is to be written; whoever recorded that may have died before it published the write."""
        self._outbox.message(self._calling.write())

    # -- running ------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether `next` would give some."""
        return self.verdict is None and (bool(self._reduces) or bool(self._stack))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to run, to wait for, or to commit."""
        if self.verdict is not None:
            return not self._running
        is_busy = self._running or self.has_work or self._in_flight or self._end
        return not (is_busy or self._fresh or self._touched or not self._outbox.is_empty)

    @property
    def holds(self) -> list[str]:
        """The paths of mappers and reduces that this visit has in hand, for the worker's record."""
        works = (*self._running.values(), *self._reduces)
        return [p for p, b in self._branches.items() if b.backlog or b.made_here] + [work.p for work in works]

    @property
    def next_handler(self) -> HandlerRef | None:
        """The reducer, or the mapper, that `next` would give work for."""
        if self._reduces:
            return self.definitions.reducer(self._reduces[0].step)
        return self.definitions.mapper(self._stack[-1].step) if self._stack else None

    def receipt_keys(self) -> list[str]:
        """Receipts of the work that executors have in hand."""
        return [key for work in self._running.values() for key in self._calling.receipts(work)]

    def next(self, limit: int) -> Work | None:
        """The next piece of work for a free executor: a reduce, or up to `limit` children of one mapper."""
        if self.verdict is not None or self._end is not None:
            return None
        if self._reduces:
            return self._started(self._reduces.popleft())
        return self._next_of_newest(limit) if self._stack else None

    def _next_of_newest(self, limit: int) -> MapWork:
        # The newest branch first: what is deep is finished, and forgotten, before what is wide.
        branch = self._stack[-1]
        first, to, items = branch.backlog.popleft()
        stop = min(to, first + limit)
        if stop < to:
            branch.backlog.appendleft((stop, to, items and items.cut(stop - first, to - first)))
        elif not branch.backlog:
            self._stack.pop()
        self._number += 1
        work = MapWork(
            number=self._number, p=branch.p, step=branch.step, first=first, to=stop,
            items=items and items.cut(0, stop - first),
            chunks=branch.args if isinstance(branch.args, Chunks) else None,
        )  # fmt: skip
        self._running[work.number] = work
        return work

    def _started(self, reduce: ReduceWork) -> ReduceWork:
        self._number += 1
        reduce.number = self._number
        self._running[self._number] = reduce
        return reduce

    def descend(self, work: MapWork, outcome: Mapped) -> MapWork | None:
        """A child has mapped, and its executor goes on with its children; None if they are not its to run."""
        self.record(work, outcome)
        branch = self._branches.get(ids.child(work.p, outcome.child))
        if self.verdict is not None or self._end is not None or branch is None or self._stack[-1:] != [branch]:
            return None
        branch.is_entered = True
        return self._next_of_newest(outcome.count)

    def ascend(self, work: MapWork) -> ReduceWork | None:
        """The executor has run all that `descend` gave it, and goes on with their reduce; None if that is not due."""
        branch = self._branches[work.p]
        reduce, branch.reduce = branch.reduce, None
        self.finished(work)
        return self._started(reduce) if reduce is not None and self.verdict is None and self._end is None else None

    def record(self, work: Work, outcome: Outcome) -> None:
        """Take in what an executor reports of work that is running."""
        if self.verdict is not None or self._end is not None:
            return
        if isinstance(work, ReduceWork):
            parent, child = ids.parent(work.p)
            if isinstance(outcome, Reduced):
                self._result(self._holder(parent, child), child, outcome)
            elif isinstance(outcome, Failed):
                self._failed(work.p, self.definitions.steps[work.step].reducer, outcome, retry_with=work)
            return
        branch = self._branches[work.p]
        if not isinstance(outcome, Results) and outcome.child >= work.to:
            return  # taken back meanwhile: it is others' now
        match outcome:
            case Results():
                self._results(branch, outcome, work.to)
            case Mapped():
                self._mapped(branch, outcome)
            case Returned():
                self._returned(branch, outcome)
            case Reduced():
                self._result(branch, outcome.child, outcome)
            case Failed():
                p = ids.child(work.p, outcome.child)
                if outcome.returned is not None:
                    again = self._returned(branch, outcome.returned, publish=False)
                    self._failed(p, self.definitions.steps[work.step].reducer, outcome, retry_with=again)
                else:
                    self._failed(p, self.definitions.steps[work.step].mapper, outcome, retry_with=work)

    def finished(self, work: Work, upto: int | None = None, *, keep: bool = False, without: int | None = None) -> None:
        """The executor is through with the work, or ended it before child `upto`.

        The rest, except child `without`, goes to others, or with `keep` back into the backlog.
        """
        self._running.pop(work.number, None)
        if isinstance(work, ReduceWork):
            return
        if reduce := self._branches[work.p].left():
            self._reduces.append(reduce)
        if upto is None or upto >= work.to or self.verdict is not None:
            return
        ranges = [(upto, work.to)] if without is None else [(upto, without), (without + 1, work.to)]
        for first, to in ranges:
            self._return(work, first, to, keep=keep)

    def take_back(self, work: MapWork, upto: int, *, keep: bool) -> None:
        """Children from `upto` on, which the executor has not started, go to others, or with `keep` into the backlog.

        What the executor says of them after all is ignored.
        """
        if upto >= work.to or self.verdict is not None:
            return
        to, work.to = work.to, upto
        self._return(work, upto, to, keep=keep)

    def _return(self, work: MapWork, first: int, to: int, *, keep: bool) -> None:
        if first < to:
            rest = work.items and work.items.cut(first - work.first, to - work.first)
            (self._push if keep else self._give_back)(self._branches[work.p], first, to, rest)

    def unfinished(self, work: Work) -> None:
        """The work did not start, or is to be run again from its start."""
        self._running.pop(work.number, None)
        if self.verdict is not None:
            return
        if isinstance(work, ReduceWork):
            self._reduces.append(work)
        else:
            self._push(self._branches[work.p], work.first, work.to, work.items)

    # -- committing ---------------------------------------------------------------------------------------------

    def harvest(self, *, share: bool = True, drain: bool = False) -> Unit | None:
        """What to commit now, if it is time.

        It is time when nothing runs or waits here any more, SPREAD_AFTER_S after the start or the time before, when
        something must be known before it goes on, or when the worker drains. `share`: what has not been started
        is published for others (then, and with `drain`).
        """
        if self._in_flight is not None or self.verdict is not None:
            return None
        now = self.worker.now()
        is_old = now - self._settled >= fan_out.SPREAD_AFTER_S
        if not (is_old or drain or self._end or self._is_urgent or not (self._running or self.has_work)):
            return None
        is_failing = self._end is not None and self._end.state is RequestState.FAILED
        self._settle(share=((share and is_old) or drain) and not is_failing, drain=drain and not is_failing)
        if is_failing:
            # What is known is kept for those who look why; nothing is to be done about it any more.
            self._outbox.drop_what_follows()
        self._is_urgent = False
        unit = self._unit()
        if unit is not None:
            self._in_flight, self._settled = unit, now
        return unit

    def committed(self, receipt: Receipted) -> None:
        """What became of the unit that `harvest` gave."""
        unit, self._in_flight = self._in_flight, None
        assert unit is not None
        if receipt.verdict is not Verdict.COMMITTED or unit.end is not None:
            self.verdict = Verdict.ENDED if receipt.verdict is Verdict.COMMITTED else receipt.verdict
            return
        self._outbox.committed(unit, receipt)

    # -- outcomes -----------------------------------------------------------------------------------------------

    def _results(self, branch: Branch, outcome: Results, to: int) -> None:
        run = Run(outcome.first, outcome.items, outcome.us, outcome.outputs).cut(0, max(to, outcome.first))
        if len(run.items):
            self._put(branch, run)

    def _result(self, branch: Branch, child: int, outcome: Reduced) -> None:
        pairs = outcome.pairs
        outputs = {child: outcome.output} if outcome.output else {}
        if isinstance(pairs, Items) and pairs.size_bytes <= limits.INLINE_MAX:
            self._put(branch, Run(child, Items.of([pairs.array()]), array("I", [outcome.us]), outputs))
        else:
            self._leave(branch, child, child + 1)
            part = branch.slice_of(child)
            record = self._records.part(branch.p, part.number, child, payload(pairs), outcome.us, outcome.output)
            self._outbox.fact(record)
            self._count_parts(branch, part)

    def _put(self, branch: Branch, run: Run) -> None:
        branch.put(run)
        if branch.size is not None:
            for number in range(run.first // branch.size, (run.first + len(run.items) - 1) // branch.size + 1):
                self._touched[branch.p, number] = branch.slices[number]
        self._complete(branch)

    def _complete(self, branch: Branch) -> None:
        """If all children are here, go on to the reduce without asking the store."""
        if not branch.is_complete or branch.p == ids.ROOT:
            return
        branch.is_reducing = True
        datasets, branch.retained = branch.datasets(), None
        step = self._step_of(branch.p)
        if self._offers(self.definitions.reducer(step).capability):
            level, session = branch.level(), branch.session
            reduce = ReduceWork(number=0, p=branch.p, step=step, level=level, datasets=datasets, session=session)
            if branch.is_entered:
                branch.reduce = reduce
            else:
                self._reduces.append(reduce)
        else:
            self._reduce_elsewhere(branch.p)

    def _reduce_elsewhere(self, p: str, *, may_be_known: bool = False) -> None:
        """The reduce of `p` is due and goes to another worker; so its result is not this visit's any more.

        `may_be_known`: others may find that out at the same time; the first to record it calls.
        """
        fact = self._records.due(p)
        self._outbox.due(fact)
        self._outbox.message(self._calling.reduce(p), unless_others=fact.key if may_be_known else None)
        parent, child = ids.parent(p)
        above = self._branches.get(parent)
        if above is not None:
            self._leave(above, child, child + 1)

    def _mapped(self, branch: Branch, outcome: Mapped) -> None:
        p = ids.child(branch.p, outcome.child)
        report = refusal(self.workflow, self.definitions.steps, outcome.step, outcome.count, ids.depth(p))
        if report is not None:
            failed = Failed(child=outcome.child, report=msgspec.structs.replace(report, output=outcome.output))
            self._failed(p, self.definitions.steps[branch.step].mapper, failed, retry_with=None)
            return
        below = Branch(p, outcome.count, outcome.step, self.execution, made_here=True)
        below.session, below.sessions = outcome.session, len(outcome.session)
        below.args = outcome.args
        below.manifest = self._records.decided(
            outcome.step, outcome.count, outcome.args, len(outcome.session), outcome.output, outcome.us
        )
        self._branches[p] = below
        self._fresh.append(below)
        if outcome.count == 0:
            self._complete(below)
        else:
            self._queue(below, 0, outcome.count, outcome.args if isinstance(outcome.args, Items) else None)

    def _returned(self, branch: Branch, outcome: Returned, *, publish: bool = True) -> ReduceWork:
        """A mapper returned data that is reduced later: the data becomes a manifest of its own."""
        p = ids.child(branch.p, outcome.child)
        level = Level(0, 1, "", len(outcome.session), self.execution)
        self._levels[p] = level
        self._outbox.manifests(
            *self._records.session(p, outcome.session),
            self._records.returned(p, outcome.rows, len(outcome.session), outcome.output, outcome.us),
        )
        work = ReduceWork(number=0, p=p, step=branch.step, level=level, rows=outcome.rows, session=outcome.session)
        if publish and self._offers(self.definitions.reducer(branch.step).capability):
            self._reduces.append(work)
        elif publish:
            self._reduce_elsewhere(p)
        return work

    def _failed(self, p: str, handler: str, outcome: Failed, *, retry_with: Work | None) -> None:
        # A mapper's invocation may have failed in its combiner: then the report says so.
        handler = outcome.report.handler or handler
        ref = self.definitions.handlers[handler]
        budget = retry.budget(outcome.report.class_, ref.attempts)
        nth = self._attempts[p] = self._attempts.get(p, 0) + 1
        report = self._records.blame(p, handler, ref, nth, outcome.report)
        self._outbox.fact(self._records.attempt(p, budget.name, nth, report))
        if budget.attempts <= 1 or retry_with is None:
            self._fail(p, report)
            return
        self._is_urgent = True

        def counted(attempts: int) -> None:
            if attempts >= budget.attempts:
                self._fail(p, msgspec.structs.replace(report, attempt=attempts))
            elif isinstance(retry_with, ReduceWork):
                self._reduces.append(retry_with)
            else:
                start = outcome.child - retry_with.first
                items = retry_with.items and retry_with.items.cut(start, start + 1)
                self._push(self._branches[retry_with.p], outcome.child, outcome.child + 1, items)

        self._outbox.count(keys.attempts(self.workflow, self.request_id, p, budget.name), counted)

    def _fail(self, p: str, report: ErrorReport) -> None:
        if self._end is None:
            self._end = End(state=RequestState.FAILED, failed=p, report=report)

    # -- what the tree looks like from here ---------------------------------------------------------------------

    def _offers(self, capability: str) -> bool:
        return self.worker.offers(capability)

    def _step_of(self, p: str) -> str:
        """The step that `p` ran as."""
        return self._level(ids.parent(p)[0]).step

    def _foreign(self, p: str) -> Branch:
        """The branch of a mapper whose manifest stands; this visit has some of its children at most."""
        branch = self._branches.get(p)
        if branch is None:
            level = self._levels[p]
            branch = self._branches[p] = Branch(p, level.count, level.step, level.execution, made_here=False)
            branch.size, branch.sessions = level.slice, level.session
        return branch

    def _holder(self, p: str, child: int) -> Branch:
        """The branch of `p`, to take the result of a child that this visit may not have had before."""
        branch = self._foreign(p)
        if not branch.made_here:
            assert branch.size is not None
            if child // branch.size not in branch.slices:
                part = branch.slice_of(child)
                part.singly = part.stop - part.start > 1
        return branch

    def _queue(self, branch: Branch, first: int, to: int, items: Items | None) -> None:
        if self._offers(self.definitions.mapper(branch.step).capability):
            self._push(branch, first, to, items)
        else:
            self._give_back(branch, first, to, items)

    def _push(self, branch: Branch, first: int, to: int, items: Items | None) -> None:
        if not branch.backlog:
            self._stack.append(branch)
        branch.backlog.append((first, to, items))

    def _reduce_work(self, p: str) -> ReduceWork:
        level = self._level(p)
        branch = self._branches.get(p)
        session = branch.session if branch is not None and branch.made_here else None
        return ReduceWork(number=0, p=p, step=self._step_of(p), level=level, session=session if level.session else {})

    # -- giving to others ---------------------------------------------------------------------------------------

    def _leave(self, branch: Branch, first: int, to: int) -> None:
        """Others will have the results of these children, and so perhaps that of the branch itself."""
        if branch.size is None:
            self._fix(branch)
        assert branch.size is not None
        for number in range(first // branch.size, (to - 1) // branch.size + 1):
            part = branch.slice_of(number * branch.size)
            part.singly = part.stop - part.start > 1
            if part.have:
                self._touched[branch.p, number] = part
        if not branch.is_shared:
            branch.is_shared = True
            if branch.p != ids.ROOT:
                parent, child = ids.parent(branch.p)
                if parent in self._branches:
                    self._leave(self._branches[parent], child, child + 1)

    def _give_back(self, branch: Branch, first: int, to: int, items: Items | None) -> None:
        self._leave(branch, first, to)
        for start, stop in self._sizing.messages(branch, first, to):
            args = items.cut(start - first, stop - first) if items is not None else None
            self._outbox.message(self._calling.map(branch.p, start, stop, args))

    # -- what is to be written ----------------------------------------------------------------------------------

    def _settle(self, *, share: bool, drain: bool) -> None:
        """Turn what is known into facts and messages."""
        while share and self._stack:
            branch = self._stack.pop()
            while branch.backlog:
                self._give_back(branch, *branch.backlog.popleft())
        while drain and self._reduces:
            self._reduce_elsewhere(self._reduces.popleft().p)
        for branch in self._fresh:
            self._settle_manifest(branch)
        self._fresh = []
        for (p, _), part in list(self._touched.items()):
            self._settle_slice(self._branches[p], part)

    def _fix(self, branch: Branch) -> None:
        branch.fix(self._sizing.slice(branch))
        for number, part in branch.slices.items():
            if part.have:
                self._touched[branch.p, number] = part

    def _settle_manifest(self, branch: Branch) -> None:
        if branch.size is None:
            self._fix(branch)
        assert branch.manifest is not None
        assert branch.size is not None
        self._outbox.manifests(
            *self._records.session(branch.p, branch.session),
            self._records.mapped(branch.p, branch.manifest, branch.size),
        )
        branch.manifest = None

    def _settle_slice(self, branch: Branch, part: Slice) -> None:
        """A slice that is here in full is one record; one that is shared is a part for each child."""
        if part.is_full:
            del self._touched[branch.p, part.number]
            runs, part.runs = sorted(part.runs, key=lambda run: run.first), []
            items = Items.join([run.items for run in runs])
            if branch.p == ids.ROOT:
                self._succeed(items, runs)
            elif items.size_bytes <= limits.INLINE_MAX:
                self._outbox.fact(self._records.done(branch.p, part.number, items, runs))
                self._count_slices(branch)
            else:
                # Too much for one record, but all here: nobody has to count the parts.
                self._outbox.facts(self._records.parts_of(branch.p, part.number, runs))
                self._outbox.fact(self._records.parts(branch.p, part.number))
                self._count_slices(branch)
        elif part.singly:
            del self._touched[branch.p, part.number]
            runs, part.runs = part.runs, []
            self._outbox.facts(self._records.parts_of(branch.p, part.number, runs))
            self._count_parts(branch, part)

    def _count_parts(self, branch: Branch, part: Slice) -> None:
        def counted(parts: int) -> None:
            if parts >= part.stop - part.start:
                self._slice_counted(branch.p, part.number)

        self._outbox.count(keys.parts(self.workflow, self.request_id, branch.p, part.number), counted)

    def _slice_counted(self, p: str, number: int) -> None:
        """All parts of a slice stand."""
        if p == ids.ROOT:
            self._root_done(self._records.parts(p, number))
        else:
            self._outbox.fact(self._records.parts(p, number))
            self._count_slices(self._branches[p])

    def _count_slices(self, branch: Branch) -> None:
        if branch.is_reducing:
            return

        def counted(done: int) -> None:
            assert branch.size is not None
            if done >= fan_out.slices(branch.count, branch.size):
                self._reduce_due(branch.p)

        self._outbox.count(keys.done(self.workflow, self.request_id, branch.p), counted)

    def _reduce_due(self, p: str) -> None:
        """All children are done. Whoever records that runs the reduce, or publishes it."""
        if self._offers(self.definitions.reducer(self._step_of(p)).capability):
            self._outbox.due(self._records.due(p), lambda: self._reduces.append(self._reduce_work(p)))
        else:
            self._reduce_elsewhere(p, may_be_known=True)

    def _succeed(self, items: Items, runs: list[Run]) -> None:
        pairs = Items.parse(items.item(0)) if items.size_bytes <= limits.REPLY_MAX else None
        self._root_done(self._records.done(ids.ROOT, 0, items, runs), pairs)

    def _root_done(self, done: Fact | None, pairs: Items | None = None) -> None:
        if self.worker.writes:
            self._outbox.message(self._calling.write(), unless_others=done.key if done is not None else None)
        state = RequestState.WRITING if self.worker.writes else RequestState.SUCCEEDED
        self._end = End(state=state, done=done, pairs=pairs)

    def _unit(self) -> Unit | None:
        if self._outbox.is_empty and self._end is None:
            return None
        unit = Unit(
            workflow=self.workflow, request_id=self.request_id, epoch=self.epoch,
            facts=[], counts=[], calls=[], end=self._end, request=self._request,
        )  # fmt: skip
        return self._outbox.take(unit, self._calling.call)
