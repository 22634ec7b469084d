"""The fleet: which workers there are, what they hold, what waits for them, and what waits for nobody.

Everything is read now and nothing is kept. The hard part is how long something has waited: brokers do not tell. It
is worked out from the store: what is due of a running request, by its receipt, or by when its mapper decided. Only
some of the oldest requests are looked at, so a time is a lower bound, and missing where nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache

import msgspec

from mr import codec
from mr.clock import Clock
from mr.collections.pages import entries
from mr.errors import BrokerUnavailable, MrError
from mr.model import ids
from mr.model.capability import requirement
from mr.model.definitions import DefinitionSet
from mr.model.invocation import Manifest, Receipt, WorkerRecord
from mr.model.request import Request, RequestState
from mr.ports.broker import Backlog, Publisher
from mr.ports.store import Store
from mr.rules import keys, routing
from mr.rules.fan_in import Due, Facts
from mr.rules.routing import Direction
from mr.services.briefing import survey
from mr.services.placement import Missing, Placement, nobody, place, serves, writes
from mr.services.registry import Registry
from mr.services.sweeper import due_of, receipt_of, topic_of

ACTIVE_READ = 500
"""Running requests whose age is asked for; of 10,000 one wants to know that there are so many."""
LOOKED_AT = 20
"""Requests, the oldest of those, in which is looked for what waits."""
FACTS_MAX = 20_000
"""A request with more facts is not looked through for a table."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One topic: what lies in it, for at least how long, and who serves it."""

    topic: str
    workflow: str
    direction: Direction
    capability: str
    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0
    oldest_wait_s: float | None = None
    workers: int = 0
    slots: int = 0

    @property
    def total(self) -> int:
        """Messages that are not finished."""
        return self.waiting + self.in_flight + self.delayed


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """Unfinished requests of a workflow, and for at least how long the oldest has run."""

    requests: int
    oldest_s: float | None = None


class Writes(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a workflow that are reduced and wait to be written, or are being written.

    `requests` is their number at least, `oldest_s` for how long the oldest of these has run; the messages that ask
    for writes lie in `topic`; `workers` write.
    """

    topic: str
    requests: int = 0
    oldest_s: float | None = None
    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0
    workers: int = 0


class Unserved(Missing, frozen=True, kw_only=True):
    """Handlers of a workflow require a capability that no worker which serves it offers.

    `messages` lie there and stay.
    """

    workflow: str
    messages: int = 0
    oldest_wait_s: float | None = None


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment.

    `writes` has the workflows of which results are to be written. `strays` are topics of no workflow that hold
    messages. `problem` says why nothing is known of messages: the
    queues are those that the definitions need, and look empty.
    """

    workers: dict[str, WorkerRecord]
    running: dict[str, Running]
    queues: list[Queue]
    unserved: list[Unserved]
    strays: dict[str, Backlog]
    writes: dict[str, Writes] = {}
    problem: str = ""


class Fleet:
    """Looks at the fleet. Safe to call from several threads."""

    def __init__(self, store: Store, publisher: Publisher, registry: Registry, clock: Clock) -> None:
        self._store, self._publisher, self._registry, self._clock = store, publisher, registry, clock

    def workers(self) -> dict[str, WorkerRecord]:
        """Live workers by id."""
        return {
            entry.key[len(keys.WORKERS) :]: codec.decode(entry.value, WorkerRecord, where=entry.key)
            for entry in entries(self._store, keys.WORKERS)
        }

    def look(self) -> Picture:
        """All of it.

        Raises: StoreUnavailable.
        """
        workers = self.workers()
        names = list(self._registry.list_workflows())
        problem = ""
        try:
            queues, strays = self._queues(names, workers)
            lies = self._publisher.backlog([routing.write_topic(w) for w in names])
        except BrokerUnavailable as error:
            problem = str(error)
            queues = [_queue(topic, *place, workers, Backlog()) for topic, place in self._needed(names).items()]
            strays, lies = {}, {}
        running = {w: self._store.count(keys.active(w, "")) for w in names}
        requests = self._oldest()
        ages, waits = self._ages(requests, workers, {queue.topic for queue in queues if queue.waiting})
        queues = [msgspec.structs.replace(queue, oldest_wait_s=waits.get(queue.topic)) for queue in queues]
        return Picture(
            workers=workers,
            running={w: Running(requests=count, oldest_s=ages.get(w)) for w, count in running.items()},
            queues=queues,
            writes=self._writes(names, requests, workers, lies),
            unserved=unserved(queues, workers),
            strays=strays,
            problem=problem,
        )

    def place(self, w: str, job: str) -> Placement:
        """What of a job nobody could run now.

        Raises: UnknownWorkflow, StoreUnavailable.
        """
        _, _, definitions = self._registry.current(w)
        return place(w, job, definitions, self.workers())

    def _needed(self, names: list[str]) -> dict[str, tuple[str, Direction, str]]:
        """Workflow, direction and capability by topic, as the current definitions ask for them."""
        needed: dict[str, tuple[str, Direction, str]] = {}
        directions: tuple[Direction, Direction] = ("map", "reduce")
        for w in names:
            _, _, definitions = self._registry.current(w)
            for capability in sorted({handler.capability for handler in definitions.handlers.values()}):
                for direction in directions:
                    needed[routing.topic(w, direction, capability)] = (w, direction, capability)
        return needed

    def _queues(self, names: list[str], workers: Mapping[str, WorkerRecord]) -> tuple[list[Queue], dict[str, Backlog]]:
        """Topics of all workflows, and what lies in topics of mr that belong to none."""
        known = self._needed(names)
        others = []

        @cache
        def words(w: str) -> dict[str, str]:
            return {requirement(text).word: text for text in self._registry.requirements(w)}

        for topic in self._publisher.topics():
            if topic in known or not topic.startswith("mr."):
                continue
            # Requests that were accepted with earlier definitions may still need what the current ones do not.
            found = _read(topic, names, words)
            if found is None:
                others.append(topic)
            else:
                known[topic] = found
        backlog = self._publisher.backlog([*known, *others])
        queues = [_queue(topic, *place, workers, backlog[topic]) for topic, place in known.items()]
        return queues, {topic: backlog[topic] for topic in others if backlog[topic].total}

    # -- how long ---------------------------------------------------------------------------------------------------

    def _oldest(self) -> list[tuple[str, Request]]:
        """Ids and records of unfinished requests, the oldest first; of very many, only some."""
        requests: list[tuple[str, Request]] = []
        for entry in self._store.range(keys.ACTIVE, limit=ACTIVE_READ, keys_only=True).entries:
            w, _, r = entry.key[len(keys.ACTIVE) :].partition("/")
            found = self._store.get(keys.request(w, r))
            if found is not None:
                requests.append((r, codec.decode(found.value, Request, where=found.key)))
        return sorted(requests, key=lambda pair: pair[1].created_at)

    def _writes(
        self,
        names: list[str],
        requests: list[tuple[str, Request]],
        workers: Mapping[str, WorkerRecord],
        backlog: Mapping[str, Backlog],
    ) -> dict[str, Writes]:
        """By workflow, what is to be written; `backlog` has what lies in the topics of writes."""
        now = self._clock.now()
        found: dict[str, Writes] = {}
        for w in names:
            topic = routing.write_topic(w)
            mine = [one for _, one in requests if one.workflow_name == w and one.state is RequestState.WRITING]
            lies = backlog.get(topic, Backlog())
            if mine or lies.total:
                found[w] = Writes(
                    topic=topic,
                    requests=len(mine),
                    oldest_s=seconds_since(mine[0].created_at, now) if mine else None,
                    waiting=lies.waiting,
                    in_flight=lies.in_flight,
                    delayed=lies.delayed,
                    workers=sum(1 for record in workers.values() if writes(record, w)),
                )
        return found

    def _ages(
        self, requests: list[tuple[str, Request]], workers: Mapping[str, WorkerRecord], topics: set[str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Age of the oldest running request by workflow, and of the oldest waiting thing by topic, in seconds."""
        now = self._clock.now()
        ages: dict[str, float] = {}
        for _, request in requests:
            ages.setdefault(request.workflow_name, seconds_since(request.created_at, now))
        held = {hold for record in workers.values() for hold in record.holds}
        waits: dict[str, float] = {}
        for r, request in requests[:LOOKED_AT] if topics else ():
            for topic, since in self._due(request.workflow_name, r, request, held):
                if topic in topics and since:
                    waits[topic] = max(waits.get(topic, 0.0), seconds_since(since, now))
        return ages, waits

    def _due(self, w: str, r: str, request: Request, held: set[str]) -> Iterable[tuple[str, str]]:
        """What is due of a request and in nobody's hands: the topic, and since when, empty where nothing tells."""
        if self._store.count(keys.facts(w, r)) > FACTS_MAX:
            return
        try:
            definitions: DefinitionSet = self._registry.definitions(w, request.set)
        except MrError:
            return
        facts = survey(self._store, w, r)
        receipts = {entry.key: entry for entry in entries(self._store, keys.receipts(w, r))}
        for due in due_of(request, facts):
            if f"{w}/{r}/{due.p}" in held:
                continue
            noted = receipts.get(receipt_of(w, r, due, facts))
            if noted is not None:
                since = codec.decode(noted.value, Receipt, where=noted.key).at
            else:
                since = self._decided_at(w, r, due, facts, request)
            yield topic_of(w, due, facts, definitions, request.job_name), since

    def _decided_at(self, w: str, r: str, due: Due, facts: Facts, request: Request) -> str:
        if due.p == ids.ROOT:
            return request.created_at
        if due.kind != "map" or due.p not in facts.manifests:
            return ""
        entry = self._store.get(keys.manifest(w, r, due.p))
        return codec.decode(entry.value, Manifest, where=entry.key).at if entry is not None else ""


def unserved(queues: Iterable[Queue], workers: Mapping[str, WorkerRecord]) -> list[Unserved]:
    """What waits for nobody, most messages first."""
    found: dict[tuple[str, str], Unserved] = {}
    for queue in queues:
        if queue.workers:
            continue
        place = (queue.workflow, queue.capability)
        before = found.get(place) or Unserved(
            workflow=queue.workflow, **msgspec.structs.asdict(nobody(*place, workers))
        )
        waits = [wait for wait in (before.oldest_wait_s, queue.oldest_wait_s) if wait is not None]
        found[place] = msgspec.structs.replace(
            before, messages=before.messages + queue.total, oldest_wait_s=max(waits, default=None)
        )
    return sorted(found.values(), key=lambda one: (-one.messages, one.workflow, one.capability))


def seconds_since(stamp: str, now: datetime) -> float:
    """Seconds since a stored time, 0 if it is still to come by our clock."""
    return max(0.0, (now - datetime.fromisoformat(stamp)).total_seconds()) if stamp else 0.0


def _queue(
    topic: str, w: str, direction: Direction, capability: str, workers: Mapping[str, WorkerRecord], lies: Backlog
) -> Queue:
    serving = [record for record in workers.values() if serves(record, w, capability)]
    return Queue(
        topic=topic,
        workflow=w,
        direction=direction,
        capability=capability,
        waiting=lies.waiting,
        in_flight=lies.in_flight,
        delayed=lies.delayed,
        workers=len(serving),
        slots=sum(record.slots for record in serving),
    )


def _read(
    topic: str, names: Iterable[str], words: Callable[[str], Mapping[str, str]]
) -> tuple[str, Direction, str] | None:
    """Workflow, direction and capability of a topic, if it is of one of these workflows.

    `words` says what words in topics of a workflow stand for; it may read the store.
    """
    directions: tuple[Direction, Direction] = ("map", "reduce")
    for w in sorted(names, key=len, reverse=True):
        for direction in directions:
            start = f"mr.{w}.{direction}."
            if topic.startswith(start):
                word = topic[len(start) :]
                return w, direction, words(w).get(word, word)
    return None
