"""Waits: what an unfinished request waits for, who has it in hand, and since when.

Nothing says so in one place. What is due follows from the facts; who has it, from the records of live workers, which
name what they have run for over a second, and from receipts; whether anybody could, from capabilities; and whether a
message asks for it, from the broker.

The hard part is size again: of ten thousand children that are due, those that wait in the same way are one wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from mr import codec
from mr.clock import Clock
from mr.collections.pages import entries
from mr.errors import BrokerUnavailable
from mr.model import ids
from mr.model.invocation import ErrorReport, Receipt, WorkerRecord
from mr.model.request import Request
from mr.ports.broker import Backlog, Publisher
from mr.ports.store import Store
from mr.rules import keys
from mr.rules.fan_in import Due
from mr.services.fleet import Fleet, seconds_since
from mr.services.placement import nobody, serves, writes
from mr.services.prints import Printed, Prints
from mr.services.sweeper import due_of, receipt_of, topic_of
from mr.services.tracing import Tracing
from mr.services.tree import Seen

Kind = Literal["map", "reduce", "write", "end"]
How = Literal["unserved", "lost", "delayed", "queued", "taken", "running"]
ORDER: tuple[How, ...] = ("unserved", "lost", "delayed", "running", "taken", "queued")

GENERAL = "general"
"""What is taken to be required where the definitions cannot be read."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """`count` invocations that wait in the same way, of which `path` is the first.

    `how`   unserved  no worker offers the capability; for a write: no worker writes
            lost      no message asks for it; a worker publishes it again within seconds
            delayed   the message is put off, as after a failed attempt
            queued    it lies in the queue, with `ahead` messages in all
            taken     some worker has had the message for less than a second, or longer where several share a queue
            running   the `workers` have it in hand
            Where the broker does not answer, `queued` without `ahead`.
    `since` is when it became due, or was published last; empty where nothing tells. `printed` is the last line that
    the last failed attempt printed; `lacks` says, where nobody offers the capability, who comes nearest.
    """

    kind: Kind
    how: How
    path: str
    count: int = 1
    step: str = ""
    handler: str = ""
    capability: str = ""
    since: str = ""
    seconds: float | None = None
    workers: list[str] = []
    serving: int = 0
    lacks: str = ""
    ahead: int | None = None
    attempts: list[ErrorReport] = []
    printed: str = ""


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """An invocation that runs, and the last line that it has printed, some seconds ago."""

    path: str
    worker: str
    line: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is not over, or how it ended. `printed` is the last thing that any of its handlers printed that
    have ended, `speakers` are those that have run for over a second and printed anything.

    Of one that failed, `failed_path` is the invocation and `attempts` are those of it; `waits` are empty then.
    """

    workflow: str
    request_id: str
    request: Request
    waits: list[Wait] = []
    workers: int = 0
    problem: str = ""
    failed_path: str = ""
    attempts: list[ErrorReport] = []
    printed: Printed | None = None
    speakers: list[Speaker] = []


class Waits:
    """Looks at what requests wait for. Safe to call from several threads."""

    def __init__(
        self, store: Store, tracing: Tracing, fleet: Fleet, prints: Prints, publisher: Publisher, clock: Clock
    ) -> None:
        self._store, self._tracing, self._fleet, self._prints = store, tracing, fleet, prints
        self._publisher, self._clock = publisher, clock

    def of(self, w: str, r: str) -> Answer:
        """Everything that one request waits for, what nobody will do first.

        Raises: RequestNotFound; StoreUnavailable.
        """
        seen = self._tracing.read(w, r)
        request = seen.request
        workers = self._fleet.workers()
        failed = (request.failed_invocation_id or "").partition(".")[2]
        of_map, of_reduce = seen.reports(failed) if failed else ([], [])
        texts = [one for one in self._prints.so_far(w, r) if one.kind == "output"]
        answer = Answer(
            workflow=w,
            request_id=r,
            request=request,
            workers=len(workers),
            failed_path=f"{failed}.r" if of_reduce else failed,
            attempts=of_reduce or of_map,
            printed=texts[-1] if texts else None,
        )
        if request.state.is_final:
            return answer
        look = _Look(seen, workers, self._receipts(w, r), self._clock)
        singles = list(look.waits())
        try:
            backlog = self._publisher.backlog(sorted({topic for topic, _ in singles if topic}))
            problem = ""
        except BrokerUnavailable as error:
            backlog, problem = {}, str(error)
        waits = _together(_queued(wait, backlog.get(topic)) for topic, wait in singles)
        return msgspec.structs.replace(answer, waits=waits, problem=problem, speakers=_speakers(w, r, workers))

    def _receipts(self, w: str, r: str) -> dict[str, Receipt]:
        return {
            entry.key: codec.decode(entry.value, Receipt, where=entry.key)
            for entry in entries(self._store, keys.receipts(w, r))
        }


class _Look:
    """One look at what is due of a request, before the broker is asked."""

    def __init__(
        self, seen: Seen, workers: Mapping[str, WorkerRecord], receipts: Mapping[str, Receipt], clock: Clock
    ) -> None:
        self._seen, self._workers, self._receipts, self._now = seen, workers, receipts, clock.now()
        self._tried: dict[str, list[int]] = {}
        for path in sorted(seen.attempts):
            if path != ids.ROOT:
                parent, child = ids.parent(path)
                self._tried.setdefault(parent, []).append(child)

    def waits(self) -> Iterator[tuple[str, Wait]]:
        """Each with the topic of its message; empty where the definitions are gone."""
        for due in due_of(self._seen.request, self._seen.facts):
            if due.kind == "map":
                yield from self._children(due)
            else:
                yield self._one(due, self._path(due), 1)

    def _children(self, due: Due) -> Iterator[tuple[str, Wait]]:
        """Children that were tried before stand alone."""
        tried = sorted(child for child in self._tried.get(due.p, ()) if due.first <= child < due.to)
        for child in tried:
            yield self._one(due, ids.child(due.p, child), 1)
        rest = [child for child in (due.first, *(child + 1 for child in tried)) if child < due.to]
        first = next((child for child in rest if child not in tried), None)
        if first is not None:
            yield self._one(due, ids.child(due.p, first), due.to - due.first - len(tried))

    def _path(self, due: Due) -> str:
        match due.kind:
            case "reduce":
                return f"{due.p}.r"
            case "slice":
                return ids.child(due.p, due.first * self._seen.facts.manifests[due.p].slice)
            case _:
                return "0"

    def _one(self, due: Due, path: str, count: int) -> tuple[str, Wait]:
        seen, w, r = self._seen, self._seen.w, self._seen.r
        # A slice whose parts all stand only wants a record; whoever would map its children writes that.
        kind: Kind = "map" if due.kind == "slice" else due.kind
        step, handler, capability = self._bound(due, kind)
        try:
            topic = topic_of(w, due, seen.facts, seen.definitions, seen.request.job_name)
        except KeyError:
            topic = ""  # the definitions cannot be read
        receipt = self._receipts.get(receipt_of(w, r, due, seen.facts))
        holders = [name for name, record in self._workers.items() if f"{w}/{r}/{due.p}" in record.holds]
        if receipt is not None and receipt.worker in self._workers and receipt.worker not in holders:
            holders.append(receipt.worker)
        if kind == "write":
            holders, serving = [], sum(1 for record in self._workers.values() if writes(record, w))
        else:
            serving = sum(1 for record in self._workers.values() if serves(record, w, capability or GENERAL))
        since = receipt.at if receipt is not None else self._due_at(due)
        attempts = self._attempts(kind, path)
        return topic, Wait(
            kind=kind,
            how="running" if holders else "queued" if serving else "unserved",
            path=path,
            count=count,
            step=step,
            handler=handler,
            capability=capability,
            since=since,
            seconds=seconds_since(since, self._now) if since else None,
            workers=[f"{name} on {self._workers[name].host}" for name in holders],
            serving=serving,
            lacks="" if serving or not capability else str(nobody(w, capability, self._workers)),
            attempts=attempts,
            printed=_last_line(attempts[-1].output) if attempts else "",
        )

    def _attempts(self, kind: Kind, path: str) -> list[ErrorReport]:
        if kind in ("write", "end"):
            return sorted(self._seen.attempts.get(ids.ROOT, []), key=lambda report: report.at)
        of_map, of_reduce = self._seen.reports(path.removesuffix(".r"))
        return of_reduce if kind == "reduce" else of_map

    def _bound(self, due: Due, kind: Kind) -> tuple[str, str, str]:
        """Step, handler and capability of what is due."""
        seen = self._seen
        if kind in ("write", "end"):
            return "", "", ""
        above = due.p if kind == "map" else ids.parent(due.p)[0]
        shape = seen.facts.manifests.get(above)
        step = (shape.step if shape else None) or ""
        bound = seen.definitions.steps.get(step)
        if bound is None:
            return step, "", ""
        handler = bound.mapper if kind == "map" else bound.reducer
        found = seen.definitions.handlers.get(handler)
        return step, handler, found.capability if found else ""

    def _due_at(self, due: Due) -> str:
        """When something became due, by the facts alone."""
        seen = self._seen
        if due.kind == "map":
            manifest = seen.manifests.get(due.p)
            return (manifest.at if manifest else "") or seen.request.created_at
        manifest = seen.manifests.get(due.p)
        return seen.last_at(due.p) or (manifest.at if manifest else "")


def _queued(wait: Wait, lies: Backlog | None) -> Wait:
    """What the broker tells of a wait that no worker is known to have in hand."""
    if lies is None or wait.how == "running":
        return wait
    if wait.how == "unserved":
        return msgspec.structs.replace(wait, ahead=lies.waiting)
    how: How = "lost"
    if lies.waiting:
        how = "queued"
    elif lies.in_flight:
        how = "taken"
    elif lies.delayed:
        how = "delayed"
    return msgspec.structs.replace(wait, how=how, ahead=lies.waiting)


def _together(waits: Iterator[Wait]) -> list[Wait]:
    """Those that wait in the same way as one, with the earliest time; what is worst, then oldest, first."""
    found: dict[object, Wait] = {}
    for wait in waits:
        label: object = wait.path
        if not wait.attempts:
            label = (wait.kind, wait.how, wait.step, wait.capability, tuple(wait.workers))
        before = found.get(label)
        if before is None:
            found[label] = wait
            continue
        oldest = min((one for one in (before, wait) if one.since), key=lambda one: one.since, default=before)
        found[label] = msgspec.structs.replace(
            before, count=before.count + wait.count, since=oldest.since, seconds=oldest.seconds
        )
    return sorted(found.values(), key=lambda one: (ORDER.index(one.how), not one.attempts, one.since))


def _speakers(w: str, r: str, workers: Mapping[str, WorkerRecord]) -> list[Speaker]:
    start = f"{w}/{r}/"
    found = [
        Speaker(path=name.removeprefix(start), worker=worker, line=line)
        for worker, record in workers.items()
        for name, line in record.printed.items()
        if name.startswith(start)
    ]
    return sorted(found, key=lambda one: [int(part) if part.isdigit() else -1 for part in one.path.split(".")])


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
