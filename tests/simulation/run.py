"""One seed: a random job under random faults, then calm, then the promises are checked, then everything is cleaned.

python -m tests.simulation --seeds 1 --from SEED     repeats one
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from mr import codec
from mr.clock import stamp
from mr.errors import RequestEnded, RequestError, StoreUnavailable
from mr.model.invocation import Manifest
from mr.model.request import Request, RequestState
from mr.ports.store import Entry, Put, Transaction
from mr.rules import fan_out, keys, limits, retry
from mr.services.acceptance import Accepted, Posting
from mr.services.blobs import Blobs
from mr.services.datasets import Datasets
from mr.services.submission import Submission

from .actors import KEY, RETENTION, Definitions, Ledger, SimWorker, Violation
from .backends import SimBroker, SimStore
from .blobs import SimBlobStore
from .job import Job, W, way_of
from .world import Faults, Process, World

END_WITHIN_S = 240.0
CLEAN_WITHIN_S = 120.0


class Report(msgspec.Struct):
    """What one seed did."""

    seed: int
    depth: int = 0
    violation: str = ""
    mode: str = ""
    hits: Counter[str] = Counter()
    crashed_at: Counter[str] = Counter()
    transactions: bool = True
    executions: int = 0
    traceback: str = ""


@contextmanager
def small_limits() -> Iterator[None]:
    """Slices of two, at most four of them: every level of the protocol is met by a job of a few nodes."""
    wanted = {
        (fan_out, "SLICES_MAX"): 4, (fan_out, "SLICE_MAX"): 4, (fan_out, "SLICE_USUAL_MAX"): 2,
        (fan_out, "CHILDREN_MAX"): 16, (fan_out, "SLICES_PER_SLOT"): 1,
        (limits, "INLINE_MAX"): 400, (limits, "REPLY_MAX"): 100, (limits, "RETAINED_MAX"): 300,
    }  # fmt: skip
    before = {place: getattr(*place) for place in wanted}
    try:
        for (module, name), value in wanted.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def scene(rng: random.Random) -> tuple[str, bool]:
    """What a seed draws first: its mode, and whether its store has transactions.

    stormy: any faults. calm: none, so nothing may run twice. quiet: only those that redelivery alone must survive;
    there is no sweeper, which a store without transactions cannot do without.
    """
    mode = rng.choice(("stormy",) * 6 + ("calm",) * 2 + ("quiet",) * 2)
    return mode, mode == "quiet" or rng.random() < 0.6


def writes(seed: int) -> bool:
    """Whether results leave by a writer in this seed. Dice of its own: what else happens in a seed stays the same."""
    return random.Random(f"writer {seed}").random() < 0.4


def spills(seed: int) -> bool:
    """Whether big data goes on in a blob store in this seed, by dice of its own."""
    return random.Random(f"blobs {seed}").random() < 0.5


class _Seed:
    """The state of one run."""

    def __init__(self, seed: int, mutant: str | None = None) -> None:
        self.seed, self.mutant = seed, mutant
        self.world = World(seed)
        rng = self.world.rng
        self.mode, self.is_atomic = scene(rng)
        joins = self.is_atomic and rng.random() < 0.4
        self.broker = SimBroker(self.world, joins_commit=joins)
        self.store = SimStore(self.world, transactions=self.is_atomic, broker=self.broker if joins else None)
        self.faults = Faults(rng)
        if self.mode == "quiet":
            for kind in ("loss", "wipe"):
                self.faults.rates.pop(kind, None)
            # Without delays a job is over in a moment: faults have to be quick to meet it.
            self.faults.rates = {kind: min(rate * 5, 0.3) for kind, rate in self.faults.rates.items()}
        # Sometimes every handler is so slow that messages wait for long, and nothing is wrong.
        is_long = self.mode == "calm" and rng.random() < 0.25
        slow = 1.0 if is_long else rng.choice((0.0, 0.3))
        self.job = Job(
            rng, deterministic=rng.random() < 0.4, may_fail=self.mode != "calm", slow=slow,
            pace=(12.0,) if is_long else (0.05, 0.6, 4.0), depth_max=2 if is_long else 4,
        )  # fmt: skip
        # Some storms last until the sweeper is at work in them.
        self.storm_until = self.world.time + (rng.choice((2.0, 2.0, 2.0, 11.0)) if self.mode == "stormy" else 0.0)
        self.writes = writes(seed)
        if self.writes and self.mode != "calm":
            self.faults.rates["writer"] = random.Random(f"faults of the writer {seed}").choice((0.0, 0.3, 0.7, 0.7))
        self.blobs = SimBlobStore(self.world, self.store) if self.job.is_big and spills(seed) else None
        if self.blobs is not None and self.mode != "calm":
            self.faults.rates["blob"] = random.Random(f"faults of the blobs {seed}").choice((0.0, 0.1, 0.3))
        self.ledger = Ledger()
        self.workers: list[SimWorker] = []
        self.lives = 0
        self.ends: dict[str, list[Request]] = {}
        self.store.observers.append(self._observe)
        self.born: set[str] = set()
        self.accepted: list[str] = []
        self.attempted: list[str] = []
        self.cancelled: set[str] = set()
        self.resumed: set[str] = set()
        self.is_cleaning = False

    # -- what must never be seen ----------------------------------------------------------------------------------

    def _observe(self, key: str, old: Entry | None, new: Entry | None) -> None:
        if key.startswith(keys.requests(W)) and new is not None:
            self.born.add(key[len(keys.requests(W)) :])
        if key.startswith(keys.requests(W)) and old is not None and new is not None:
            before, after = codec.decode(old.value, Request), codec.decode(new.value, Request)
            if before.state.is_final and after.epoch == before.epoch and after.state is not before.state:
                raise Violation(f"request {key} went from {before.state.value} to {after.state.value}")
            self._observe_write(key.rpartition("/")[2], before, after)
        elif key.startswith("entities/invocation/") and "/attempt/" not in key and old is not None and new is not None:
            if old.value != new.value:
                raise Violation(f"{key} was written twice")

    def _observe_write(self, r: str, before: Request, after: Request) -> None:
        """From WRITING on only the writer ends a request; and where there is one, it wrote before any good end."""
        if before.state is RequestState.WRITING and after.state is not before.state:
            class_ = (after.error or {}).get("class")
            if after.state is not RequestState.SUCCEEDED and class_ != "result_writer":
                raise Violation(f"{r} was to be written, and went to {after.state.value}: {class_}")
        if self.writes and after.state is RequestState.SUCCEEDED and not self.ledger.writes.get(r):
            raise Violation(f"{r} succeeded, and was not written")

    # -- the story ------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        world, job = self.world, self.job
        report = Report(
            self.seed, depth=job.depth, mode=self.mode, hits=world.hits, crashed_at=world.crashed_at,
            transactions=self.is_atomic,
        )  # fmt: skip
        try:
            self._story()
        except Exception as error:  # whatever the product raises where nobody expects it is a violation
            report.violation = f"{type(error).__name__}: {error}"
            report.traceback = "".join(traceback.format_exception(error)[-8:])
        report.executions = sum(self.ledger.maps.values())
        world.is_faulty = False
        for worker in self.workers:
            world.kill(worker.process)
        return report

    def _story(self) -> None:
        world = self.world
        self.store._revision = 1
        self.store.entries[keys.workflow(W)] = Entry(keys.workflow(W), b"{}", 1, 1)
        for number in range(3):
            self._start_worker(number)
        if self.mode != "calm":
            world.rates = self.faults.rates
            world.is_faulty = True
        self._client(world.rng.choice((1, 1, 2)))
        world.run(lambda: self._all_ended() and world.time > self.storm_until, 12.0)
        world.is_faulty = False
        self._meddle()
        if not world.run(self._all_ended, END_WITHIN_S):
            raise Violation(f"not at its end {END_WITHIN_S} s after the last fault: {self._open_requests()}")
        for r in self.accepted:
            self._check(r)
        self.is_cleaning = True
        if not world.run(self._is_clean, CLEAN_WITHIN_S):
            raise Violation(f"left behind after cleaning: {self._leftovers()[:5]}")

    def _start_worker(self, number: int) -> None:
        world = self.world
        self.lives += 1
        capabilities = (frozenset({"general", "gpu"}), frozenset({"general"}), frozenset({"gpu"}))[number]
        name = f"worker{number}.{self.lives}"
        sweeps = self.mode != "quiet" and self.mutant != "no sweeper"
        worker = SimWorker(
            world, name, self.store, self.broker, self.job, self.ledger, capabilities,
            sweeps=sweeps, writes=self.writes, blobs=self.blobs, mutant=self.mutant,
        )  # fmt: skip
        self.workers.append(worker)

        def nurse() -> None:
            if worker.process.is_alive:
                world.at(0.5, nurse)
            else:
                self._start_worker(number)

        world.at(0.5, nurse)

    def _client(self, requests: int) -> None:
        """Posts requests. It never dies in the modes that must do without the sweeper."""
        world, rng = self.world, self.world.rng
        name = "front" if self.mode == "stormy" else "client"

        def post() -> None:
            definitions = Definitions(self.store, self.job)
            submission = Submission(self.store, self.broker, definitions, world, RETENTION, KEY)
            for accepted in self._postings(submission, requests):
                self.accepted.append(accepted.request_id)
                if rng.random() < 0.15 and self.mode == "stormy":
                    world.sleep(rng.choice((0.01, 0.5, 2.0)))
                    self.cancelled.add(accepted.request_id)
                    with suppress(StoreUnavailable, RequestError):
                        submission.cancel(W, accepted.request_id)
                if self.is_atomic and rng.random() < 0.4 and self.mode == "stormy":
                    # A second life at once, while workers still run the first.
                    world.sleep(rng.choice((0.05, 0.5, 1.5)))
                    with suppress(StoreUnavailable, RequestError):
                        submission.resume(W, accepted.request_id)
                        self.resumed.add(accepted.request_id)

        self.client = Process(name)
        world.spawn(self.client, post)

    def _postings(self, submission: Submission, requests: int) -> Iterator[Accepted]:
        """What is accepted, of requests that come together or one after the other.

        Sometimes the workflow changes in between, so that what the front end knows of it is out of date.
        """
        ids = [self._new_id() for _ in range(requests)]
        postings = [Posting(request_id=r, workflow=W, job="job", arguments={"0": []}) for r in ids]
        groups = [postings] if self.world.rng.random() < 0.3 else [[posting] for posting in postings]
        for number, group in enumerate(groups):
            if number and self.world.rng.random() < 0.5:
                with suppress(StoreUnavailable):
                    self.store.commit(Transaction(operations=[Put(keys.workflow(W), b"{}")]))
            for outcome in submission.accept(group):
                if isinstance(outcome, Accepted):
                    yield outcome
                elif not isinstance(outcome, StoreUnavailable):
                    raise outcome

    def _new_id(self) -> str:
        r = f"{self.world.rng.getrandbits(160):040x}"
        self.attempted.append(r)
        return r

    def _meddle(self) -> None:
        """Sometimes a failed or cancelled request gets a second life, while the first one's zombies still sleep."""
        world = self.world
        if not self.is_atomic or world.rng.random() < 0.5:
            return
        submission = Submission(self.store, self.broker, Definitions(self.store, self.job), world, RETENTION, KEY)

        def resume() -> None:
            for r in list(self.accepted):
                with suppress(RequestError, RequestEnded, StoreUnavailable):
                    submission.resume(W, r)
                    self.resumed.add(r)

        world.spawn(Process("operator"), resume)
        world.run(lambda: False, 0.2)

    # -- what must hold at the end ----------------------------------------------------------------------------------

    def _state(self, r: str) -> Request | None:
        entry = self.store.entries.get(keys.request(W, r))
        return codec.decode(entry.value, Request) if entry is not None else None

    def _all_ended(self) -> bool:
        # A request whose acceptance nobody confirmed may exist; if it does, it must end, too.
        has_posted = not self.client.is_alive or self.client.is_done
        return has_posted and not self._open_requests()

    def _open_requests(self) -> list[str]:
        found = []
        for r in self.attempted:
            request = self._state(r)
            has_fence = keys.active(W, r) in self.store.entries
            if r not in self.accepted and (request is None or self.mode == "quiet"):
                continue  # nobody was told that it is accepted; without the sweeper nobody takes it up
            if request is None and has_fence:
                found.append(r)
            elif request is not None and (not request.state.is_final or has_fence):
                found.append(r)
        return found

    def _check(self, r: str) -> None:
        request = self._state(r)
        if r not in self.born:
            raise Violation(f"{r} was accepted and never existed")
        if request is None or (request.due_at is not None and request.due_at <= stamp(self.world.now())):
            return  # it ended early enough to be cleaned already; its end was observed
        expected_failure = self.job.fails and request.epoch == 1
        is_late = (request.error or {}).get("class") == "result_writer"
        if request.state is not RequestState.SUCCEEDED and not is_late and self.ledger.writes.get(r):
            raise Violation(f"{r} is {request.state.value}, and was written")
        if request.state is RequestState.CANCELLED:
            if r not in self.cancelled:
                raise Violation(f"{r} was cancelled by nobody")
            return
        if request.state is RequestState.FAILED:
            report = request.error or {}
            if expected_failure and report.get("class") == "exception":
                return
            if report.get("class") in ("lost_worker", "exit") and self.world.hits["executor_death"] >= 2:
                return
            if is_late and self.world.hits["writer"] >= retry.ATTEMPTS_WRITE:
                return
            raise Violation(f"{r} failed in epoch {request.epoch}: {report.get('class')} {report.get('message')}")
        self._check_result(r)
        self._check_ledger(r)

    def _check_result(self, r: str) -> None:
        reader = Datasets(self.store, Blobs(self.blobs.still() if self.blobs is not None else None))
        store_world, self.store._world = self.store._world, _Still(self.world)
        self.store._away_until = 0.0
        try:
            pairs = [tuple(msgspec.json.decode(d)) for items in reader.pairs(W, r) for d in items]
        finally:
            self.store._world = store_world
        decided = {}
        prefix = keys.manifest(W, r, "")
        for entry in self.store.page(prefix).entries:
            p = entry.key[len(prefix) :]
            manifest = codec.decode(entry.value, Manifest)
            if p != "-" and manifest.step is not None:
                decided[p] = self._way(r, p, manifest)
        expected = self.job.expected(decided)
        if dict(pairs) != expected or len(pairs) != len(expected):
            missing = {k: v for k, v in expected.items() if dict(pairs).get(k) != v}
            raise Violation(f"wrong result of {r}: differs in {list(missing.items())[:3]}, has {pairs[:3]}")
        for token, _ in pairs:
            kind, p, _ = token.split(" ", 2)
            runs = self.ledger.maps if kind == "leaf" else self.ledger.reduces
            if not runs[f"{r}.{p}"]:
                raise Violation(f"{token} is in the result of {r}, but nobody ran it")
        if any(written != pairs for written in self.ledger.writes.get(r, ())):
            raise Violation(f"what was written of {r} is not its result")

    def _way(self, r: str, p: str, manifest: Manifest) -> int:
        entry = self.store.entries.get(keys.session(W, r, p, manifest.execution, "decided"))
        if entry is None:
            raise Violation(f"the manifest of {p} has no session of its execution {manifest.execution}")
        way = msgspec.json.decode(entry.value)[1]
        node = self.job.nodes[p]
        if manifest.count != node.variants[way_of(node, way)]:
            raise Violation(f"the manifest of {p} has {manifest.count} children, its session decided on another way")
        return int(way)

    def _check_ledger(self, r: str) -> None:
        """Nothing runs more often than faults, failing attempts and new lives explain; without any, exactly once.

        A fault may cost two runs: a message that timed out is delivered again, and the sweeper may publish, too.
        """
        allowed = 1 + 2 * self.world.faults_total + (3 if self.job.fails else 0) + (2 if r in self.resumed else 0)
        for runs in (self.ledger.maps, self.ledger.reduces):
            for name, times in runs.items():
                if name.startswith(r) and times > allowed:
                    raise Violation(f"{name} ran {times} times, with {self.world.faults_total} faults in all")
        if len(self.ledger.writes.get(r, ())) > allowed:
            raise Violation(f"{r} was written {len(self.ledger.writes[r])} times")

    def _leftovers(self) -> list[str]:
        # Without transactions there is no fence: a zombie, or a late write, may leave facts that nobody reads, and who
        # stood still while it cancelled a request leaves its marker.
        strays = ("entities/", "entity_trees/", "queues/", "published/", keys.STOPPED) if not self.is_atomic else ()
        untold = [r for r in self.attempted if r not in self.accepted] if self.mode == "quiet" else []
        unknown = [name for r in untold for name in (keys.active(W, r), keys.request(W, r), keys.facts(W, r))]
        kept = (keys.WORKERS, keys.WORKFLOWS, *strays, *unknown)
        blobs = self.blobs.leftovers() if self.blobs is not None else ()
        return [*(key for key in self.store.entries if not key.startswith(kept)), *blobs]

    def _is_clean(self) -> bool:
        return not self._leftovers() and not any(
            w.process.stopped_until > self.world.time for w in self.workers if w.process.is_alive
        )


class _Still(World):
    """A world in which nothing happens, for the oracle's own reads."""

    def __init__(self, world: World) -> None:
        super().__init__(0)
        self.time = world.time

    def step(self, label: str, seconds: float = 0.0) -> None:
        return None

    def strikes(self, fault: str, weight: float = 1.0) -> bool:
        return False


def run_seed(seed: int, mutant: str | None = None) -> Report:
    """Run one seed."""
    with small_limits():
        return _Seed(seed, mutant).run()
