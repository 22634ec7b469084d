"""The supervisor: takes messages, feeds executors, and hands what came out to be committed. It never runs user code.

One asyncio loop decides everything and never waits for a store: a thread commits (`committing`), a few read, one
keeps house (`house`), two watch (`watching`). The loop's state is the set of cases: a **case** is one delivery with
its visit. After whatever happens, `_pump` brings the case forward: free executors get work, what is ready is
committed, what is over is finished.

    delivery ─▶ case ─▶ visit.next ─▶ run on an executor ─▶ visit.record ─▶ visit.harvest ─▶ commit ─▶ finish
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from mr.clock import stamp
from mr.errors import CorruptEntry, NotFound, StoreFull, StoreUnavailable
from mr.model import ids
from mr.model.capability import written
from mr.model.invocation import ErrorReport
from mr.model.message import Message, seal
from mr.model.outcome import Failed
from mr.ports.broker import Delivery
from mr.rules import fan_out, keys, limits
from mr.services import machine
from mr.services.briefing import Briefing
from mr.services.committer import Committer
from mr.services.progress import Visit
from mr.services.quota import Quota
from mr.services.sweeper import Sweeper
from mr.services.unit import Receipted, Verdict
from mr.services.work import MapWork, ReduceWork, Work, Worker
from mr.wiring import Parts
from mr.worker.answering import Answering
from mr.worker.case import Case, Slot, holds, last_lines
from mr.worker.committing import CommitThread, Stopped
from mr.worker.descents import Descents
from mr.worker.desk import Desk
from mr.worker.endings import Endings
from mr.worker.endings import fence as fence_of
from mr.worker.executor_process import ExecutorGone
from mr.worker.exit import Exit
from mr.worker.feeding import Feeding
from mr.worker.house import House
from mr.worker.judging import Judge, unreadable
from mr.worker.opening import Opening
from mr.worker.paces import Paces
from mr.worker.pool import Pool, hooks_of
from mr.worker.run import Run
from mr.worker.serving import Serving
from mr.worker.staging import Staging
from mr.worker.stock import Stock
from mr.worker.watching import Watching

_log = logging.getLogger(__name__)

T = TypeVar("T")

TICK_S = 0.02
TOUCH_S = 1.0
READERS = 4
UNTOLD_S = 0.5
"""An executor that has gone on by itself says so within 25 ms, unless native code keeps it from running any other."""
LONG_S = 60.0
"""Work older than this is entered in a receipt, and its message finished: no broker has to wait for it."""


class Supervisor:
    """A worker. `run` serves until `stop` is called."""

    def __init__(self, parts: Parts, environ: Mapping[str, str]) -> None:
        settings = parts.settings
        self._parts, self._settings, self._environ = parts, settings, environ
        self.name = ids.new_worker_id()
        self._clock = parts.clock
        self._offered = machine.offered(settings.worker.capabilities)
        self._stock = Stock(self._offered)
        self._topics: Mapping[str, str] = {}
        self._paused: Set[str] = frozenset()
        self._cases: set[Case] = set()
        self._ready: deque[Case] = deque()
        self._paces = Paces()
        self._fleet_workers = 1
        self._fleet_slots = settings.worker.executors
        self._held: list[str] = []
        self._printed: dict[str, str] = {}
        self._problem: BaseException | None = None
        self._stopping = asyncio.Event()
        self._is_draining = False
        self._gives_up = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._consumer = parts.consumer()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._pool = Pool(
            settings.worker.executors, settings.handlers, environ, parts.languages, self._stock, hooks_of(settings),
            file_system=settings.files.shared,
            spawn=self._task, on_exit=self._executor_ended, on_free=self._feed,
        )  # fmt: skip
        self._feeding = Feeding(parts.registry, parts.datasets, settings.handlers, self._stock, self._readers)
        self._descents = Descents(self._feeding, self._paces.of, self._pool.is_suspect)
        quota_bytes = settings.store.request_max_bytes
        has_blobs = parts.blobs.is_there
        self._quota = Quota(parts.store, quota_bytes, self.name, lambda: self._fleet_workers, has_blobs=has_blobs)
        self._judge = Judge(settings.handlers, self._quota)
        committer = Committer(
            parts.store, parts.publisher, parts.receipts, parts.clock, parts.retention, self._quota, self._pause,
            events=parts.events, on_failure=parts.notices.failed, blobs=parts.blobs,
        )  # fmt: skip
        self._committer = committer
        self._staging = Staging(committer, self._quota, lambda call: self._loop.call_soon_threadsafe(call))
        worker = Worker(
            name=self.name,
            offers=self._stock.offers,
            slots=lambda: self._fleet_slots,
            seal=lambda message: seal(message, parts.message_key),
            now=time.monotonic,
            stamp=lambda: stamp(parts.clock.now()),
            seconds_each=self._paces.of,
            batch_size=settings.worker.batch_size,
            writes=parts.writers is not None,
        )
        registry = parts.registry
        briefing = Briefing(parts.store, parts.datasets, registry.definitions, registry.known, worker)
        self._opening = Opening(briefing, parts.message_key, read=self._read, begin=self._begin)
        self._sweeper = Sweeper(parts.store, parts.publisher, registry.definitions, parts.clock, parts.message_key)
        self._desk = Desk(parts, committer, worker, lambda: self._gives_up)
        self._endings = Endings(
            parts.store, lambda: self._cases, self._pump,
            read=self._read, post=lambda call: self._loop.call_soon_threadsafe(call),
        )  # fmt: skip

    # -- life -----------------------------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> int:
        """Serve until stopped, then drain; the exit code, 1 if it ended by itself. `on_ready`: messages may come.

        Raises: ConfigError if the executors cannot start; StoreUnavailable if the store is away at the start.
        """
        self._loop = asyncio.get_running_loop()
        parts, post = self._parts, self._loop.call_soon_threadsafe
        commits = self._commits = CommitThread(self._committer, post, self._fail)
        self._answering = Answering(parts.collections, self._quota, len(self._pool.slots), self._pause, post)
        serving = Serving(
            parts.registry, self._settings.worker, self._offered, learn=self._feeding.learn, on_change=self._serve,
            tell=parts.notices.tell, post=post,
        )  # fmt: skip
        house = House(
            name=self.name, store=parts.store, receipts=parts.receipts, sweeper=self._sweeper, cleaner=parts.cleaner,
            clock=self._clock, capabilities=written(self._offered), workflows=lambda: serving.workflows,
            serves_all=self._settings.worker.workflows is None,
            slots=len(self._pool.slots), holds=lambda: self._held, printed=lambda: self._printed,
            on_fleet=self._on_fleet, maintain=parts.maintain,
            writer=parts.writers.names if parts.writers is not None else "",
            post=parts.postman.rounds if parts.postman is not None else None,
        )  # fmt: skip
        definitions = Watching(
            "definitions", self._parts.store, keys.WORKFLOWS, look=serving.look,
            on_changes=lambda _: serving.look(), every_s=self._settings.worker.definitions_check_s,
        )  # fmt: skip
        stopped = Watching(
            "stopped", self._parts.store, keys.stopped(""), look=lambda: None,
            on_changes=self._endings.on_stopped, every_s=60.0,
        )  # fmt: skip
        await self._pool.start()
        commits.start()
        await self._in_thread(house.start)
        await self._consumer.start(self._opening.deliver)
        await self._desk.start()
        definitions.start()
        stopped.start()
        self._allow()
        tick = self._task(self._ticks())
        tick.add_done_callback(self._tick_ended)
        on_ready()
        await self._stopping.wait()
        await asyncio.gather(self._drain(), self._desk.stop(self._settings.worker.drain_s))
        tick.cancel()
        for watching in (definitions, stopped):
            watching.stop()
        await self._in_thread(commits.stop, 5.0)
        await self._consumer.close()
        await self._in_thread(house.stop)
        self._gives_up = True
        await self._pool.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._staging.close()
        self._answering.close()
        if self._problem is not None:
            _log.error("the worker ended because a thread of it died", exc_info=self._problem)
        return 0 if self._problem is None else 1

    def stop(self) -> None:
        """Take no more messages, finish what is short, hand the rest back, then end. A second call hurries."""
        if self._stopping.is_set():
            self._gives_up = True
        self._stopping.set()

    def _tick_ended(self, tick: asyncio.Task[Any]) -> None:
        error = None if tick.cancelled() else tick.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A thread without which nothing works has died of something unknown: end, so that somebody starts anew."""
        self._problem = error
        self._gives_up = True
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _drain(self) -> None:
        self._is_draining = True
        self._pool.refuse_more()
        self._consumer.allow(0)
        deadline = self._loop.time() + self._settings.worker.drain_s
        for case in list(self._cases):
            self._pump(case)
        while self._cases and self._loop.time() < deadline and not self._gives_up:
            await asyncio.sleep(TICK_S)
        for case in list(self._cases):
            # What still runs is handed back; its executor goes with this process.
            for slot in list(case.slots):
                if slot.executor is not None:
                    slot.verdict = "drained"
                    self._task(slot.executor.kill())
            if case.delivery is not None:
                case.delivery.requeue(0.0)
            self._cases.discard(case)

    async def _ticks(self) -> None:
        touch_at = 0.0
        while True:
            await asyncio.sleep(TICK_S if self._cases else 0.1)
            now = self._loop.time()
            for slot in self._pool.slots:
                if slot.run is not None:
                    self._watch_over(slot, slot.run)
            for case in list(self._cases):
                self._pump(case)
            self._allow()
            if now >= touch_at:
                touch_at = now + TOUCH_S
                self._held = holds(self._cases, time.monotonic())
                self._printed = last_lines(self._pool.slots)
                self._endings.look(time.monotonic())
                for case in list(self._cases):
                    self._hold(case)

    def _hold(self, case: Case) -> None:
        """Keep a message alive while its work goes on; a very long one is noted in the store instead."""
        if case.delivery is None:
            return
        case.delivery.touch()
        if time.monotonic() - case.since > LONG_S:
            delivery, case.delivery = case.delivery, None
            fence, receipts = fence_of(case.visit), case.visit.receipt_keys()

            def noted(error: BaseException | None) -> None:
                if error is None:
                    delivery.finish()
                else:
                    case.delivery = delivery

            self._read(partial(self._parts.receipts.held, fence, receipts, self.name), lambda _: noted(None), noted)

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), ExecutorGone):
            _log.error("a task of the supervisor failed", exc_info=task.exception())

    def _pause(self, seconds: float) -> None:
        if self._gives_up:
            raise Stopped
        time.sleep(seconds)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(None, call, *arguments)

    def _read(self, call: Callable[[], T], then: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Call in a reader thread; the result, or what it raised, comes back into the loop."""

        def work() -> None:
            try:
                result = call()
            except Exception as error:  # whatever it is, the loop has to hear of it
                self._loop.call_soon_threadsafe(failed, error)
            else:
                self._loop.call_soon_threadsafe(then, result)

        self._readers.submit(work)

    # -- the worker among others ----------------------------------------------------------------------------------

    def _serve(self, names: list[str], topics: dict[str, str]) -> None:
        self._topics = topics
        self._task(self._consumer.subscribe(list(topics)))
        self._mind_stock()
        self._task(self._desk.serve(names))

    def _on_fleet(self, workers: int, slots: int) -> None:
        self._fleet_workers, self._fleet_slots = max(workers, 1), max(slots, 1)

    @property
    def _is_alone(self) -> bool:
        """Whether there is no other worker to give work to; then only this one's executors share it."""
        return self._fleet_workers == 1

    def _allow(self) -> None:
        """As many messages at a time as keep the executors fed, and no more: nobody hoards."""
        is_long = any(slot.run is not None and self._loop.time() - slot.run.started > 0.05 for slot in self._pool.slots)
        slots = len(self._pool.slots)
        self._consumer.allow(0 if self._is_draining else slots + 1 if is_long else slots * 16)

    def _begin(self, delivery: Delivery, message: Message, visit: Visit) -> None:
        case = Case(delivery, message, visit, time.monotonic())
        self._cases.add(case)
        self._pump(case)

    # -- bringing a case forward ----------------------------------------------------------------------------------

    def _pump(self, case: Case) -> None:
        visit = case.visit
        case.is_due = False
        if visit.verdict is not None:
            for slot in case.slots:
                self._pool.void(slot)
        elif visit.has_work:
            self._line_up(case)
            self._feed()
        unit = visit.harvest(share=not self._is_alone, drain=self._is_draining)
        if unit is not None:
            self._commits.commit(unit, partial(self._committed, case))
        if visit.is_over and not case.slots and case in self._cases:
            self._over(case)

    def _committed(self, case: Case, receipt: Receipted) -> None:
        case.visit.committed(receipt)
        self._pump(case)

    def _over(self, case: Case) -> None:
        self._cases.discard(case)
        if case.visit.verdict is Verdict.LOST:
            _log.info("request %s: another execution's manifest won, looking again", case.visit.request_id)
            if case.delivery is not None:
                self._opening.once_more(case.delivery, case.message)
        elif case.delivery is not None:
            case.delivery.finish()

    # -- feeding executors ----------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Give work to free executors, cases in turn."""
        held: list[Case] = []
        while self._ready and (slot := self._pool.free()) is not None:
            case = self._ready.popleft()
            case.is_ready = False
            handler = case.visit.next_handler
            if case.visit.verdict is not None or handler is None:
                continue
            slot.version = handler.version if handler.handler_type == "mapper" else None
            taken = self._stock.take(handler.capability) if self._pool.may_run(slot.version) else None
            if taken is None:
                held.append(case)
                continue
            work = case.visit.next(self._paces.at_once(slot.version))
            if work is None:
                self._stock.give_back(taken)
                continue
            slot.taken = taken
            if case.visit.has_work:
                self._line_up(case)
            self._prepare(slot, case, work)
        for case in held:
            self._line_up(case)
        self._mind_stock()

    def _line_up(self, case: Case) -> None:
        if not case.is_ready:
            case.is_ready = True
            self._ready.append(case)

    def _mind_stock(self) -> None:
        """Nothing is taken of topics for which too little is left; what is theirs is for others."""
        exhausted = self._stock.exhausted(self._topics)
        if exhausted != self._paused:
            self._paused = exhausted
            self._consumer.pause(exhausted)

    def _prepare(self, slot: Slot, case: Case, work: Work) -> None:
        """Fetch what the work needs and is not at hand, then start it."""
        slot.case = case
        case.slots.add(slot)
        if self._feeding.is_ready(case.visit, work):
            self._start(slot, case, work)
            return
        self._read(
            partial(self._feeding.fetch, case.visit, work),
            lambda _: self._start(slot, case, work),
            partial(self._not_fetched, slot, case, work),
        )

    def _not_fetched(self, slot: Slot, case: Case, work: Work, error: BaseException) -> None:
        slot.release()
        if isinstance(error, (StoreUnavailable, StoreFull)):
            self._loop.call_later(0.2, self._again, case, work)
            return
        if isinstance(error, CorruptEntry):
            self._refuse(case, work, partial(unreadable, error))
            return
        if not isinstance(error, NotFound):
            _log.error("work of request %s cannot be prepared", case.visit.request_id, exc_info=error)
        self._give_up(case, work)

    def _again(self, case: Case, work: Work) -> None:
        case.visit.unfinished(work)
        self._pump(case)

    def _give_up(self, case: Case, work: Work) -> None:
        """What the work needs is gone: the request is over, or else the sweeper will find out."""
        case.visit.finished(work)
        case.visit.verdict = Verdict.ENDED
        self._pump(case)

    def _start(self, slot: Slot, case: Case, work: Work) -> None:
        executor = slot.executor
        if executor is None or not executor.alive or case.visit.verdict is not None:
            slot.release()
            case.visit.unfinished(work)
            self._pump(case)
            return
        visit = case.visit
        if self._quota.is_over(visit.workflow, visit.request_id):
            slot.release()
            self._refuse(case, work, self._quota.report)
            return
        slot.verdict = ""
        spills = self._quota.spills(visit.workflow, visit.request_id)
        slot.run = Run(
            visit, work, executor, stage=self._staging.stage, now=self._loop.time, notices=self._parts.notices,
            inline_max=limits.SPILLED_MIN if spills else limits.INLINE_MAX,
            on_outcome=partial(self._heard, case), on_mapped=partial(self._descents.learn, visit),
            on_finished=partial(self._run_finished, slot), on_call=self._answering.take,
        )  # fmt: skip
        below = None if case.is_careful or spills else self._descents.of(visit, work)
        try:
            is_fed = self._feeding.begin(executor, visit, work, slot.run, below, spills=spills)
            if not is_fed and isinstance(work, ReduceWork):
                self._task(self._feeding.send_input(slot, executor, visit, work))
        except ExecutorGone:
            return  # its exit is on the way, and takes care of the work

    def _refuse(self, case: Case, work: Work, report: Callable[[str], ErrorReport]) -> None:
        """The request fails with what would have run next; `report` says why, about the handler of that name."""
        step = case.visit.definitions.steps[work.step]
        first, handler = (work.first, step.mapper) if isinstance(work, MapWork) else (0, step.reducer)
        case.visit.record(work, Failed(child=first, report=report(handler)))
        case.visit.finished(work)
        self._pump(case)

    # -- what comes back from executors ---------------------------------------------------------------------------

    def _heard(self, case: Case) -> None:
        # Once for all that came together.
        if not case.is_due:
            case.is_due = True
            self._loop.call_soon(self._look, case)

    def _look(self, case: Case) -> None:
        if case.is_due:
            self._pump(case)

    def _run_finished(self, slot: Slot, run: Run) -> None:
        self._paces.learn(run, self._loop.time())
        case = slot.release()
        self._pool.after(slot, run)
        keep = self._is_alone
        run.visit.finished(run.work, run.next if run.above is None else run.reported, keep=keep)
        run.leave_above(keep=keep)
        self._pump(case)
        self._feed()

    def _watch_over(self, slot: Slot, run: Run) -> None:
        """Time-outs, and fairness: what waits behind a slow child goes to others."""
        executor = slot.executor
        if executor is None:
            return
        current = executor.current()
        if current is None:
            return
        is_known = current.is_below == (run.above is not None)
        if is_known:
            verdict = self._judge.verdict(slot, run, current)
        else:
            # What it is about to tell is not here yet; if it cannot tell, all of it is ordered again one by one.
            verdict = "untold" if current.seconds > UNTOLD_S else ""
        if verdict and not slot.verdict:
            slot.verdict = verdict
            self._task(executor.kill())
        elif is_known and (not self._is_alone or self._pool.free() is not None):
            left = run.behind(current)
            running_s = self._loop.time() - run.started
            if fan_out.gives_back(left=left, finished=current.finished, running_s=running_s, current_s=current.seconds):
                # It will not start another; those that wait behind this child need not wait for its end.
                executor.stop_after_current()
                run.take_back(current, keep=self._is_alone)
                if slot.case is not None:
                    self._pump(slot.case)

    def _executor_ended(self, slot: Slot, run: Run, exit_: Exit) -> None:
        run.died(exit_, partial(self._run_died, slot, run, exit_))

    def _run_died(self, slot: Slot, run: Run, exit_: Exit) -> None:
        """Blame exactly the child that ran; what was not reported of the others runs again."""
        verdict, stage, corrupt = slot.verdict, exit_.stage, slot.corrupt
        if verdict == "timeout" and slot.stage is not None:
            stage = slot.stage[1]  # that was too long, wherever the executor got to before it was killed
        case = slot.release()
        visit, work = run.visit, run.work
        is_untold = exit_.is_untold or verdict == "untold"
        is_somebody = exit_.class_ != "lost_worker" and verdict in ("", "timeout", "storm") and not is_untold
        if run.version is not None and is_somebody:
            self._pool.suspect(run.version)
        if visit.verdict is not None or verdict in ("void", "drained"):
            visit.finished(work)
        elif verdict == "unfed":
            self._loop.call_later(0.2, self._again, case, work)
            return
        elif corrupt is not None:
            self._refuse(case, work, partial(unreadable, corrupt))
            return
        elif verdict == "gone":
            self._give_up(case, work)
            return
        elif is_untold:
            # Who ran is not known: it is ordered again, and so that it will be known.
            case.is_careful = True
            if isinstance(work, ReduceWork):
                visit.unfinished(work)
            else:
                visit.finished(work, run.reported, keep=True)
        elif isinstance(work, ReduceWork):
            visit.record(work, Failed(child=0, report=self._judge.report(run, stage, exit_, verdict)))
            visit.finished(work)
        else:
            child = exit_.child
            if child is None or not run.reported <= child < work.to:
                # Between two children: nobody is to blame.
                visit.finished(work, run.reported, keep=True)
            else:
                visit.record(work, Failed(child=child, report=self._judge.report(run, stage, exit_, verdict)))
                visit.finished(work, run.reported, keep=True, without=child)
        run.leave_above(keep=True)
        self._pump(case)
