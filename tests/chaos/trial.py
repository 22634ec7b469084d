"""A trial: one job, one strike at a seeded moment, and everything that has to be true afterwards."""

from __future__ import annotations

import http.client
import os
import time
from datetime import datetime
from random import Random
from typing import NamedTuple

from mr import codec
from mr.errors import MrError, ResultTimeout, StoreUnavailable
from mr.model.request import Request
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
    return _run(deployment, "undisturbed", UNDISTURBED, 0, job, Random(f"{seed} undisturbed {job}"), 1.0, None)


def run(deployment: Deployment, kind: str, number: int, seed: int, usual_s: dict[str, float]) -> Record:
    """One trial. `usual_s` is how long each job takes undisturbed. Jobs take turns by `number`."""
    job = list(jobs.JOBS)[number % len(jobs.JOBS)]
    for slowness in SLOWNESS:
        draw = Random(f"{seed} {deployment.pair} {kind} {number}")
        try:
            return _run(deployment, kind, KINDS[kind], number, job, draw, slowness, usual_s[job] * slowness)
        except TooQuick:
            continue
    raise AssertionError(f"{job} is too quick to be hit, even {SLOWNESS[-1]:g} times as slow")


def _run(
    deployment: Deployment,
    name: str,
    kind: Kind,
    number: int,
    job: str,
    draw: Random,
    slowness: float,
    usual_s: float | None,
) -> Record:
    deployment.wait_until_ready()
    share = draw.uniform(EARLIEST + 0.02, LATEST - 0.08)
    ledger = Ledger(deployment.folder / f"ledger-{name}-{job}-{number}-{slowness:g}")
    before = deployment.parts.store.revision()
    earlier = {r for r, _ in deployment.parts.results.requests(jobs.WORKFLOW)}
    arguments = jobs.arguments(job, ledger=ledger.path, slowness=slowness, seed=str(draw.random()))
    waiting = WaitingClient(deployment.port, job, arguments)
    waiting.start()
    wait_for(f"{share:.0%} of the leaves are done", lambda: ledger.read() >= share * jobs.LEAVES, BEGIN_S + 10 * slowness)
    (request_id,) = {r for r, _ in deployment.parts.results.requests(jobs.WORKFLOW)} - earlier
    # From here on everything is found, noted, and never raised: the evidence is wanted most when it fails.
    problems: list[str] = []
    struck_at = time.time()
    fault = kind.strike(deployment, draw, ledger)
    hit = next(fault)
    done = ledger.read() / jobs.LEAVES
    _go_on(fault, problems)
    ended = _wait_for_end(deployment, request_id, struck_at + BOUND_S[deployment.pair] + PATIENCE_S)
    _go_on(fault, problems)
    if usual_s is not None and not EARLIEST <= done <= LATEST:
        waiting.join(client.WAIT_S)
        raise TooQuick
    took_s = recovery_s = None
    if ended is None:
        problems.append(f"the request is not over {time.time() - struck_at:.0f} s after the strike")
    else:
        assert ended.finished_at is not None
        finished_at = datetime.fromisoformat(ended.finished_at).timestamp()
        deployment.finished[request_id] = finished_at
        if usual_s is None:
            took_s = finished_at - datetime.fromisoformat(ended.created_at).timestamp()
        else:
            took_s = finished_at - struck_at
            recovery_s = took_s - (1 - done) * usual_s
            if took_s > BOUND_S[deployment.pair]:
                problems.append(f"the request was over only {took_s:.1f} s after the strike")
        problems += _check(deployment, kind, request_id, waiting, before)
    problems += checker.ledger_problems(ledger, 1 if kind is UNDISTURBED else EXECUTIONS_MAX)
    record = Record(
        deployment.pair, name, job, number, hit, done, took_s, recovery_s, ledger.more_than_once,
        max(ledger.executions.values()), problems,
    )  # fmt: skip
    if problems:
        deployment.keep = True
        path = deployment.folder / f"evidence-{name}-{number}.txt"
        path.write_text("\n".join([str(record), *_evidence(deployment, request_id, ledger)]))
        problems.append(f"evidence: {path}")
    return record


def _go_on(fault: object, problems: list[str]) -> None:
    """The next stage of a fault."""
    try:
        next(fault, None)  # type: ignore[call-overload]
    except (NotInTime, AssertionError) as error:
        problems.append(str(error))


def _wait_for_end(deployment: Deployment, request_id: str, deadline: float) -> Request | None:
    while (left := deadline - time.time()) > 0:
        try:
            return deployment.parts.results.wait(jobs.WORKFLOW, request_id, left)
        except ResultTimeout:
            break
        except StoreUnavailable:
            time.sleep(0.05)
    return None


def _check(deployment: Deployment, kind: Kind, request_id: str, waiting: WaitingClient, before: int) -> list[str]:
    problems: list[str] = []
    waiting.join(BOUND_S[deployment.pair])
    if kind.cuts_client:
        if waiting.error is None:
            problems.append(f"the client waits at a front end that was killed: {waiting}")
    elif waiting.answer is None:
        problems.append(f"the client that waits did not get the result: {waiting}")
    else:
        problems += checker.tokens_problems(waiting.answer)
        if waiting.answer.request_id != request_id:
            problems.append(f"the client was told that its request is {waiting.answer.request_id!r}")
    try:
        wait_for("the front end answers", lambda: client.is_up(deployment.port), BOUND_S[deployment.pair])
        problems += checker.tokens_problems(client.result(deployment.port, request_id))
    except (NotInTime, OSError, http.client.HTTPException) as error:
        problems.append(f"the result cannot be read: {error!r}")
    return [*problems, *checker.store_problems(deployment, request_id, before)]


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
