"""The simulated processes: front ends that accept, workers that run, commit, sweep and clean.

A worker has several greenlets, as the real one has threads: lanes that run handlers, one that commits, one that
keeps house. All decisions are the product's own (`mr.services`); only the order of events is the seed's.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import msgspec

from mr import codec
from mr.clock import stamp
from mr.codec import Items
from mr.errors import NotFound, StoreUnavailable
from mr.model import ids
from mr.model.dataset import Chunks
from mr.model.definitions import DefinitionSet
from mr.model.invocation import ErrorReport, WorkerRecord
from mr.model.message import Message, seal, unseal
from mr.model.outcome import Data, Failed, Mapped, Reduced, Results, Returned
from mr.model.request import Active
from mr.model.workflow import Workflow
from mr.ports.result_writer import Origin, ResultWriter
from mr.ports.store import Lease, Put, Transaction
from mr.rules import fan_out, keys, routing
from mr.services.blobs import Blobs
from mr.services.briefing import Briefing
from mr.services.cleaner import Cleaner
from mr.services.committer import Committer
from mr.services.datasets import Datasets
from mr.services.progress import Visit
from mr.services.quota import Quota
from mr.services.receipts import Receipts
from mr.services.retention import Retention
from mr.services.sweeper import Sweeper
from mr.services.unit import Verdict
from mr.services.work import MapWork, ReduceWork, Worker
from mr.services.writing import Writers, Writing

from .backends import SimBroker, SimDelivery, SimStore
from .blobs import SimBlobStore
from .job import Job, W, way_of
from .world import Process, World

KEY = b"0" * 32
RETENTION = Retention(quiet_s=5.0)
QUOTA_BYTES = 2**28
SPILLING_BYTES = 200
"""The share of a request where there is a blob store: its first records are over it."""


class Violation(AssertionError):
    """A promise was broken."""


class Definitions:
    """The registry, as far as submission and workers ask it."""

    def __init__(self, store: SimStore, job: Job) -> None:
        self._store, self._set = store, job.definitions()

    def current(self, w: str) -> tuple[Workflow, int, DefinitionSet]:
        entry = self._store.entries[keys.workflow(w)]
        return Workflow(description="", handlers_state=self._set.hash), entry.version, self._set

    def definitions(self, w: str, digest: str) -> DefinitionSet:
        return self._set


class Ledger:
    """What was run and written, noted outside the product. Nothing in the product reads it."""

    def __init__(self) -> None:
        self.maps: Counter[str] = Counter()
        self.reduces: Counter[str] = Counter()
        self.writes: dict[str, list[list[tuple[str, Any]]]] = {}


class SimWriter(ResultWriter):
    """Writes into the ledger, if it does not fail."""

    name = "ledger"

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world, self._ledger = world, ledger

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any]:
        found = [tuple(msgspec.json.decode(pair)) for items in pairs for pair in items]
        self._world.step("write.before")
        if self._world.strikes("writer"):
            raise OSError("the disk is full")
        self._ledger.writes.setdefault(origin.request_id, []).append(found)
        self._world.step("write.after")
        return {"times": len(self._ledger.writes[origin.request_id])}


class SimWorker:
    """One life of a worker."""

    def __init__(
        self, world: World, name: str, store: SimStore, broker: SimBroker, job: Job, ledger: Ledger,
        capabilities: frozenset[str], *, sweeps: bool, writes: bool, blobs: SimBlobStore | None, mutant: str | None,
    ) -> None:  # fmt: skip
        self.world, self.store, self.broker, self.job, self.ledger = world, store, broker, job, ledger
        self.mutant = mutant
        self.process = Process(name)
        self.visits: dict[Visit, tuple[SimDelivery, Message]] = {}
        self.busy: set[Visit] = set()
        self.at: dict[MapWork, tuple[Visit, int]] = {}
        self.capabilities = capabilities
        # Where handlers are that slow, nobody takes what he cannot start.
        is_long = min(job.pace) > 10
        self.visits_max, self.tick_s = (1, 0.04) if is_long else (3, 0.004)
        self.topics = routing.topics(W, sorted(capabilities)) + ([routing.write_topic(W)] if writes else [])
        definitions = Definitions(store, job)
        self.datasets = Datasets(store, Blobs(blobs))
        self.receipts = Receipts(store, broker, world)
        if blobs is None:
            quota = Quota(store, QUOTA_BYTES, name, lambda: 2)
        else:
            quota = Quota(store, SPILLING_BYTES, name, lambda: 2, has_blobs=True)
        self.committer = Committer(
            store, broker, self.receipts, world, RETENTION, quota, world.sleep, blobs=Blobs(blobs)
        )
        worker = Worker(
            name=name, offers=capabilities.__contains__, slots=lambda: 2, seal=lambda message: seal(message, KEY),
            now=world.monotonic, stamp=lambda: stamp(world.now()),
            seconds_each=lambda version: world.rng.choice((None, 0.001, 0.5)), writes=writes,
        )  # fmt: skip
        self.writing = Writing(
            store, self.datasets, self.committer, Writers(SimWriter(world, ledger)), worker=name, stamp=worker.stamp
        )
        self.briefing = Briefing(
            store, self.datasets, definitions.definitions,
            (lambda w, digest: definitions.definitions(w, digest)), worker,
        )  # fmt: skip
        self.sweeper = Sweeper(store, broker, definitions.definitions, world, KEY) if sweeps else None
        self.cleaner = Cleaner(store, world, Blobs(blobs))
        for _ in range(2):
            world.spawn(self.process, self._lane)
        world.spawn(self.process, self._commits)
        world.spawn(self.process, self._house)

    # -- lanes: take a message, or run a piece of work -------------------------------------------------------------

    def _lane(self) -> None:
        world = self.world
        while True:
            idle = [v for v in self.visits if v.has_work]
            if idle and world.rng.random() < 0.8:
                visit = world.rng.choice(idle)
                work = visit.next(world.rng.choice((1, 2, 8)))
                if work is not None:
                    self._run(visit, work)
            elif len(self.visits) < self.visits_max:
                self._take()
                world.step("idle", self.tick_s / 2 if self.visits else 0.2)
            else:
                world.step("idle", self.tick_s * 2)

    def _take(self) -> None:
        delivery = self.broker.receive(self.process, self.topics)
        if delivery is None:
            return
        try:
            message = unseal(delivery.body, KEY)
            if message.kind == "write":
                self._write(delivery, message)
                return
            again = delivery.attempts > 1
            visit = None if again else self.briefing.open_quickly(message)
            if visit is None:
                visit = self._open(message, again)
            if visit is None:
                delivery.finish()
            else:
                if self.mutant == "finish before commit":
                    delivery.finish()
                self.visits[visit] = (delivery, message)
        except StoreUnavailable:
            delivery.requeue(0.05)

    def _write(self, delivery: SimDelivery, message: Message) -> None:
        again_s = self.writing.write(message)
        if again_s is None:
            delivery.finish()
        else:
            delivery.requeue(again_s)

    def _open(self, message: Message, again: bool) -> Visit | None:
        try:
            return self.briefing.open(message, again=again)
        except NotFound:
            return None

    def _run(self, visit: Visit, work: MapWork | ReduceWork) -> None:
        self.busy.add(visit)
        try:
            if isinstance(work, MapWork):
                self._run_map(visit, work)
            else:
                self._run_reduce(visit, work)
        except StoreUnavailable:
            visit.unfinished(work)
        except NotFound as error:
            fence = self.store.entries.get(keys.active(W, visit.request_id))
            if fence is not None and fence.value == codec.encode(Active(visit.epoch)):
                raise Violation(f"{work.p} was run before what it needs was there: {error}") from error
            visit.finished(work)
            visit.verdict = Verdict.ENDED
        finally:
            self.busy.discard(visit)

    def _executes(self, p: str) -> None:
        node = self.job.nodes.get(p)
        slow = node is not None and node.is_slow
        self.world.step("execute", self.world.rng.choice(self.job.pace) if slow else 0.001)

    def _run_map(self, visit: Visit, work: MapWork) -> None:
        if work.items is None:
            if work.chunks is not None:
                work.items = self.datasets.cut(W, visit.request_id, work.chunks, work.first, work.to)
            else:
                work.items = self.datasets.arguments(W, visit.request_id, work.p, work.first, work.to)
        if self._run_children(visit, work) in ("plain", "other"):
            visit.finished(work)

    def _run_children(self, visit: Visit, work: MapWork) -> Literal["plain", "other", "left", "died"]:
        """Run the children in an executor: all of them are plain results, or some are not, or were left to others."""
        try:
            return self._run_each(visit, work)
        finally:
            self.at.pop(work, None)

    def _run_each(self, visit: Visit, work: MapWork) -> Literal["plain", "other", "left", "died"]:
        assert work.items is not None
        world, r, count, plain = self.world, visit.request_id, len(work.items), 0
        started = world.time
        results: list[bytes] = []
        first = work.first

        def flush() -> None:
            nonlocal results, first
            if results:
                us = array("I", [1] * len(results))
                visit.record(work, Results(first=first, items=Items.of(results), us=us))
            first += len(results)
            results = []

        for child, item in enumerate(work.items, work.first):
            ((p, chain),) = codec.decode(item, list[tuple[str, list[int]]])
            if p != ids.child(work.p, child):
                raise Violation(f"child {child} of {work.p} got the arguments of {p}")
            self.ledger.maps[f"{r}.{p}"] += 1
            self.at[work] = visit, child
            if world.rng.random() < 0.02:
                visit.take_back(work, child + 1, keep=world.rng.random() < 0.5)
            begun = world.time
            self._executes(p)
            if visit.verdict is not None:
                break
            if world.strikes("executor_death"):
                # What was not reported yet is lost with the executor, and runs again.
                class_ = world.rng.choice(("lost_worker", "exit"))
                report = ErrorReport(class_=class_, type="Killed", message="an executor died")
                visit.record(work, Failed(child=child, report=report))
                visit.finished(work, first, keep=True, without=child)
                return "died"
            outcome = self._outcome(visit, p, child, chain)
            if isinstance(outcome, bytes):
                results.append(outcome)
                plain += 1
            else:
                flush()
                is_small = isinstance(outcome, Mapped) and isinstance(outcome.args, Items) and len(outcome.args)
                first = child + 1
                if not is_small or world.rng.random() < 0.5:
                    visit.record(work, outcome)
                elif world.strikes("executor_death"):
                    # Below, before it has told that it went there: nobody is to blame.
                    visit.finished(work, child, keep=True)
                    return "died"
                elif not self._go_on(visit, work, outcome):
                    visit.finished(work, first, keep=True)
                    return "died"
            if world.rng.random() < 0.3:
                flush()
            if child + 1 >= work.to:
                # The rest was taken back, or there is none; an executor may overlook that for a child.
                if not world.is_faulty or world.rng.random() < 0.7:
                    break
                world.hit("overrun")
            left = work.to - child - 1
            passed = world.time - started
            if left > 0 and fan_out.gives_back(
                left=left, finished=child + 1 - work.first, running_s=passed, current_s=world.time - begun
            ):
                flush()
                visit.finished(work, child + 1)
                return "left"
        flush()
        return "plain" if plain == count else "other"

    def _go_on(self, visit: Visit, work: MapWork, outcome: Mapped) -> bool:
        """The executor goes on with what it has mapped to, and with the reduce of that; whether it lives on."""
        below = visit.descend(work, outcome)
        if below is None:
            return True
        self.world.hits["descent"] += 1
        ended = self._run_children(visit, below)
        if ended == "plain":
            reduce = visit.ascend(below)
            return reduce is None or self._run_reduce(visit, reduce)
        if ended == "other":
            visit.finished(below)
        return ended != "died"

    def _outcome(self, visit: Visit, p: str, child: int, chain: list[int]) -> Any:
        node = self.job.nodes[p]
        if node.is_failing and visit.epoch == 1:
            return Failed(child=child, report=ErrorReport(class_="exception", type="ValueError", message="boom"))
        nonce = 0 if self.job.deterministic else self.world.rng.randrange(1000)
        if node.variants:
            way = way_of(node, nonce)
            session = {"decided": codec.encode([chain, way])}
            children = [codec.encode([[f"{p}.{i}", [*chain, way]]]) for i in range(node.variants[way])]
            args = self._data(visit, f"{p}.arguments", Items.of(children))
            return Mapped(child=child, step=f"step{node.level + 1}", args=args, session=session)
        leaf = f"leaf {p} {chain}"
        if self.job.reducer_capability[node.level] in self.capabilities:
            self.ledger.reduces[f"{visit.request_id}.{p}"] += 1
            return codec.encode([[leaf, 1], [f"reduced {p} {chain}", 1]])
        rows = self._data(visit, f"{p}.rows", Items.of([codec.encode([leaf, [1]])]))
        return Returned(child=child, rows=rows, session={"decided": codec.encode([chain, -1])})

    def _data(self, visit: Visit, kind: str, items: Items) -> Data:
        """Small data as it is; with some jobs everything is staged as if it were big."""
        if not self.job.is_big or not len(items):
            return items
        counts = []
        fence = (keys.active(W, visit.request_id), codec.encode(Active(visit.epoch)))
        for number, start in enumerate(range(0, len(items), 2)):
            piece = items.cut(start, start + 2)
            key = keys.chunk(W, visit.request_id, visit.execution, kind, number)
            self.committer.stage(fence, [(key, piece.array())])
            counts.append(len(piece))
        return Chunks(execution=visit.execution, kind=kind, counts=counts)

    def _run_reduce(self, visit: Visit, work: ReduceWork) -> bool:
        """Run a reduce in an executor; whether that lives on."""
        world, r, p = self.world, visit.request_id, work.p
        session = work.session
        if session is None:
            session = self.datasets.session(W, r, p, work.level)
        tokens: Counter[str] = Counter()
        for kind, items in self._inputs(visit, work):
            for element in items:
                value = msgspec.json.decode(element)
                pairs = value if kind == "datasets" else [value]
                for token, n in pairs:
                    tokens[token] += sum(n) if kind == "rows" else n
        self.ledger.reduces[f"{r}.{p}"] += 1
        self._executes(p)
        if world.strikes("executor_death"):
            report = ErrorReport(class_="lost_worker", type="Killed", message="an executor died")
            visit.record(work, Failed(child=0, report=report))
            visit.finished(work)
            return False
        if "decided" not in session:
            raise Violation(f"the session of {p} is not what its mapper kept: {session}")
        chain, way = msgspec.json.decode(session["decided"])
        level = self.job.nodes[p].level
        for token in tokens:
            kind, q, seen = token.split(" ", 2)
            decided = msgspec.json.decode(seen)
            if kind == "leaf" and self.job.nodes[q].level == level + 1 and decided != [*chain, way]:
                raise Violation(f"the session of {p} says {chain} {way}, its child says {token}")
        tokens[f"reduced {p} {chain}"] += 1
        pairs = Items.of([codec.encode([token, n]) for token, n in sorted(tokens.items())])
        data = self._data(visit, f"{p}.pairs", pairs)
        visit.record(work, Reduced(child=ids.parent(p)[1], pairs=data))
        visit.finished(work)
        return True

    def _inputs(self, visit: Visit, work: ReduceWork) -> list[tuple[str, Items]]:
        if work.datasets is not None:
            return [("datasets", items) for items in work.datasets]
        if isinstance(work.rows, Items):
            return [("rows", work.rows)]
        if work.rows is not None:
            return [("rows", items) for items in self.datasets.staged(W, visit.request_id, work.rows)]
        return list(self.datasets.inputs(W, visit.request_id, work.p, work.level))

    # -- committing -------------------------------------------------------------------------------------------------

    def _commits(self) -> None:
        world = self.world
        while True:
            ready = []
            for work, (visit, child) in list(self.at.items()):
                if world.rng.random() < 0.05:
                    visit.take_back(work, child + 1, keep=world.rng.random() < 0.5)
            for visit in list(self.visits):
                if world.rng.random() < 0.9:
                    unit = visit.harvest(share=world.rng.random() < 0.8)
                    if unit is not None:
                        ready.append((visit, unit))
            if ready:
                receipts = self.committer.commit([unit for _, unit in ready])
                for (visit, _), receipt in zip(ready, receipts, strict=True):
                    visit.committed(receipt)
            for visit in [v for v in self.visits if v.is_over and v not in self.busy]:
                delivery, message = self.visits.pop(visit)
                if visit.verdict is Verdict.LOST:
                    self._again(delivery, message)
                else:
                    delivery.finish()
            world.step("idle", self.tick_s if self.visits else 0.2)

    def _again(self, delivery: SimDelivery, message: Message) -> None:
        try:
            visit = self._open(message, True)
        except StoreUnavailable:
            delivery.requeue(0.05)
            return
        if visit is None:
            delivery.finish()
        else:
            self.visits[visit] = (delivery, message)

    # -- house-keeping ----------------------------------------------------------------------------------------------

    def _house(self) -> None:
        lease: Lease | None = None
        for tick in count():
            try:
                if lease is None or not self.store.keep(lease):
                    lease = self.store.grant(2.0)
                self._register(lease)
                self.receipts.flush()
                if self.sweeper is not None:
                    self.sweeper.sweep()
                if tick % 4 == 0:
                    self.cleaner.clean()
            except StoreUnavailable:
                pass
            self.world.step("house", 0.5)

    def _register(self, lease: Lease) -> None:
        now = self.world.time
        holds = [f"{W}/{v.request_id}/{p}" for v in self.visits if now - v.started > 0.5 for p in v.holds]
        record = WorkerRecord(
            host="sim", pid=1, capabilities=sorted(self.capabilities), workflows=[W], slots=2, version="0",
            started_at="", holds=holds,
        )  # fmt: skip
        try:
            put = Put(keys.worker(self.process.name), codec.encode(record), lease)
            self.store.commit(Transaction(operations=[put]))
        except NotFound:
            pass
