"""A trial: one job, one strike at a seeded moment, and everything that has to be true afterwards."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import NamedTuple

from mr.errors import MrError, ResultTimeout, StoreUnavailable
from mr.model.request import Request
from mr.ports.store import Watch
from mr.rules import keys
from tests.chaos import checker, client, jobs
from tests.chaos.client import WaitingClient
from tests.chaos.deployment import BOUND_S, Deployment
from tests.chaos.kills import KINDS, UNDISTURBED, Kind
from tests.chaos.ledger import Ledger
from tests.chaos.processes import NotInTime, wait_for

EARLIEST, LATEST = 0.1, 0.9
"""A strike counts if it hits while this share of the leaves is done."""
EXECUTIONS_MAX = 6
"""Five for lost work, as a handler has by default, and one."""
BEGIN_S = 30.0
PATIENCE_S = 60.0
"""After the bound is missed: to know whether the request would have ended at all."""
ANSWERED_S = 10.0
"""How long after the end of a request its client has been answered, at the latest."""
SLOWNESS = (1.0, 2.0, 4.0, 8.0)


class Record(NamedTuple):
    """What a trial found. `done` is the share of leaves done when it struck; times are in seconds.

    `took_s` is from the strike to the end of the request (from its start if undisturbed), None if it did not end;
    `recovery_s` what of that an undisturbed run would not have needed.
    """

    pair: str
    kind: str
    job: str
    number: int
    hit: str
    done: float
    took_s: float | None
    recovery_s: float | None
    twice: int
    executions: int
    problems: list[str]

    def __str__(self) -> str:
        took = "never ended" if self.took_s is None else f"over after {self.took_s:5.2f} s"
        lost = "" if self.recovery_s is None else f", recovery {self.recovery_s:5.2f} s"
        text = f"{self.pair:8} {self.kind:10} {self.number:3} {self.job:11} {self.hit:27} at {self.done:4.0%}: {took}"
        text += f"{lost}, {self.twice} leaves twice"
        return "\n".join([text, *(f"    PROBLEM: {problem}" for problem in self.problems)])


class TooQuick(Exception):
    """The job was nearly over before the strike could hit."""


def undisturbed(deployment: Deployment, job: str, seed: int) -> Record:
    """The job without any fault. Nothing excuses a second execution of a leaf then."""
    draw = Random(f"{seed} undisturbed {job}")
    return _Trial(deployment, "undisturbed", UNDISTURBED, 0, job, draw, 1.0, None).run()


def run(deployment: Deployment, kind: str, number: int, seed: int, usual_s: dict[str, float]) -> Record:
    """One trial. `usual_s` is how long each job takes undisturbed. Jobs take turns by `number`."""
    job = list(jobs.JOBS)[number % len(jobs.JOBS)]
    for slowness in SLOWNESS:
        draw = Random(f"{seed} {deployment.pair} {kind} {number}")
        try:
            return _Trial(deployment, kind, KINDS[kind], number, job, draw, slowness, usual_s[job] * slowness).run()
        except TooQuick:
            continue
    raise AssertionError(f"{job} is too quick to be hit, even {SLOWNESS[-1]:g} times as slow")


class _Trial:
    """One job and one strike. `run` is once."""

    def __init__(
        self,
        deployment: Deployment,
        name: str,
        kind: Kind,
        number: int,
        job: str,
        draw: Random,
        slowness: float,
        usual_s: float | None,
    ) -> None:
        self._deployment, self._name, self._kind, self._number, self._job = deployment, name, kind, number, job
        self._draw, self._slowness, self._usual_s = draw, slowness, usual_s
        self._bound_s = BOUND_S[deployment.pair]
        self._ledger = Ledger(deployment.folder / f"ledger-{name}-{job}-{number}-{slowness:g}")
        # From the strike on everything that is wrong is noted, and nothing raised: then evidence is wanted most.
        self._problems: list[str] = []

    def run(self) -> Record:
        """Start the job, strike, heal, wait for the end, and check.

        Raises: TooQuick; NotInTime if the job does not even begin as it should.
        """
        deployment, ledger, requests = self._deployment, self._ledger, keys.requests(jobs.WORKFLOW)
        deployment.wait_until_ready()
        page = deployment.parts.store.range(requests, keys_only=True, limit=10_000)
        earlier = {entry.key for entry in page.entries}
        with deployment.parts.store.watch(requests, page.revision) as watch:
            waiting = self._submit()
            share = self._draw.uniform(EARLIEST + 0.02, LATEST - 0.08)
            wanted = round(share * jobs.LEAVES)
            wait_for(f"{wanted} leaves are done", lambda: ledger.read() >= wanted, BEGIN_S + 10 * self._slowness)
            page = deployment.parts.store.range(requests, keys_only=True, limit=10_000)
            (request_id,) = [entry.key[len(requests) :] for entry in page.entries if entry.key not in earlier]
            struck_at = time.time()
            fault = self._kind.strike(deployment, self._draw, ledger)
            hit = next(fault)
            done = ledger.read() / jobs.LEAVES
            self._go_on(fault)
            healed_at = time.time()
            ended = self._wait_for_end(request_id, healed_at + self._bound_s + PATIENCE_S)
            self._go_on(fault)
            if self._usual_s is not None and not EARLIEST <= done <= LATEST:
                waiting.join(client.WAIT_S)
                raise TooQuick
            took_s = recovery_s = None
            if ended is None:
                self._problems.append(f"the request is not over {time.time() - struck_at:.0f} s after the strike")
            else:
                took_s, recovery_s = self._times(ended, struck_at, healed_at, done)
                deployment.finished[request_id] = time.time()
                self._check(request_id, waiting, watch)
        self._problems += checker.ledger_problems(ledger, EXECUTIONS_MAX if self._kind.repeats else 1)
        record = Record(
            deployment.pair, self._name, self._job, self._number, hit, done, took_s, recovery_s,
            ledger.more_than_once, max(ledger.executions.values()), self._problems,
        )  # fmt: skip
        if record.problems:
            deployment.keep = True
            path = deployment.folder / f"evidence-{self._name}-{self._number}.txt"
            path.write_text("\n".join([str(record), *_evidence(deployment, request_id, ledger)]))
            record.problems.append(f"evidence: {path}")
        return record

    def _submit(self) -> WaitingClient:
        seed = str(self._draw.random())
        arguments = jobs.arguments(self._job, ledger=self._ledger.path, slowness=self._slowness, seed=seed)
        waiting = WaitingClient(self._deployment.port, self._job, arguments)
        waiting.start()
        return waiting

    def _go_on(self, fault: Iterator[str]) -> None:
        """The next stage of a fault."""
        try:
            next(fault, None)
        except (NotInTime, AssertionError) as error:
            self._problems.append(str(error))

    def _wait_for_end(self, request_id: str, deadline: float) -> Request | None:
        while (left := deadline - time.time()) > 0:
            try:
                return self._deployment.parts.results.wait(jobs.WORKFLOW, request_id, left)
            except ResultTimeout:
                break
            except StoreUnavailable:
                time.sleep(0.05)
        return None

    def _times(self, ended: Request, struck_at: float, healed_at: float, done: float) -> tuple[float, float | None]:
        assert ended.finished_at is not None
        finished_at = datetime.fromisoformat(ended.finished_at).timestamp()
        if self._usual_s is None:
            return finished_at - datetime.fromisoformat(ended.created_at).timestamp(), None
        took_s = finished_at - struck_at
        if finished_at - healed_at > self._bound_s:
            self._problems.append(f"the request was over only {finished_at - healed_at:.1f} s after the fault")
        return took_s, took_s - (1 - done) * self._usual_s

    def _check(self, request_id: str, waiting: WaitingClient, watch: Watch) -> None:
        problems, port = self._problems, self._deployment.port
        waiting.join(ANSWERED_S)
        if self._kind.client == "cut off":
            if waiting.error is None:
                problems.append(f"the client was not cut off from a front end that was killed: {waiting}")
        elif waiting.answer is None:
            problems.append(f"the client that waits was not answered: {waiting}")
        else:
            if self._kind.client == "answered":
                problems += checker.tokens_problems(waiting.answer)
            elif waiting.answer.status != 202:
                problems.append(f"the client was not told to come back: {waiting}")
            if waiting.answer.request_id != request_id:
                problems.append(f"the client was told that its request is {waiting.answer.request_id!r}")
        try:
            wait_for("the front end answers", lambda: client.is_up(port), self._bound_s)
            problems += checker.tokens_problems(client.result(port, request_id))
        except (NotInTime, OSError, http.client.HTTPException) as error:
            problems.append(f"the result cannot be read: {error!r}")
        problems += checker.store_problems(self._deployment, request_id, watch)
        try:
            self._deployment.wait_until_ready()
        except NotInTime as error:
            problems.append(f"the deployment is not whole again: {error}")


def _evidence(deployment: Deployment, request_id: str, ledger: Ledger) -> list[str]:
    """Everything that is known of a request: its records, who works, what is queued, and the last lines of logs."""
    w, store = jobs.WORKFLOW, deployment.parts.store
    lines: list[str] = [f"request {request_id}", f"executions {ledger.executions.most_common(10)}", ""]
    prefixes = [keys.request(w, request_id), keys.active(w, request_id), keys.facts(w, request_id)]
    prefixes += [keys.receipts(w, request_id), keys.WORKERS, keys.SWEEPER]
    try:
        for prefix in prefixes:
            for entry in store.range(prefix, limit=10_000).entries:
                lines.append(f"{entry.created} {entry.version} {entry.key} {entry.value[:400].decode()}")
        lines.append(f"unfinished messages: {deployment.backlog()}")
    except MrError as error:
        lines.append(f"and more that cannot be read: {error}")
    for process in deployment.processes:
        pid = process.pid.number if process.is_alive else "ended"
        text = process.log.read_text(errors="replace").splitlines()
        lines += ["", f"{process.name} ({pid}, of {os.getpid()}):", *text[-200:]]
    return lines
