"""The sweeper: publishes again what is due and lost. It runs in every worker; one leads, two are harmless.

The queue may lose anything; the facts in the store say what is due. The hard part is not to publish what is only
waiting, or running long. A due thing is published again only if

    (i)   it has no receipt, and has been seen due for DUE_S: its publisher died before or while publishing;
    (ii)  its receipt names a broker that was started anew since, or has been gone for GONE_S;
    (iii) its topic is empty on every broker, twice, DUE_S apart: the message was lost on the way;
    (iv)  its receipt names a worker that is gone, or does not hold it any more.

and never while a live worker says that it holds it. A broker that does not answer tells nothing: what the others and
the receipts say of the rest still holds. Where publishing is part of the commit, a message cannot be
missing from the start, so only (iii) and (iv) remain. What is published again is flagged so: whoever gets it
looks first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Literal

import msgspec

from mr import codec
from mr.clock import Clock
from mr.collections.pages import remove_all
from mr.errors import BrokerUnavailable, CorruptEntry
from mr.model import ids
from mr.model.definitions import DefinitionSet
from mr.model.invocation import Receipt, WorkerRecord
from mr.model.message import Message, seal
from mr.model.request import Active, Request, RequestState
from mr.ports.broker import Backlog, Publication, Publisher
from mr.ports.store import Delete, Equals, Store, Transaction
from mr.rules import fan_in, fan_out, keys, routing
from mr.rules.fan_in import Due, Facts
from mr.services.briefing import survey
from mr.services.receipts import Receipts

_log = logging.getLogger(__name__)

DUE_S = 2.0
GONE_S = 10.0
AGAIN_S = 4.0
"""How long something published again is left alone."""
LOOK_MAX_S = 10.0
"""The longest pause between two looks at a request that stands still."""
SWEEP_MAX_S = 2.0
"""How long one sweep looks at requests; of a great many the others have their turn next time."""
_KINDS: Mapping[str, Literal["map", "reduce", "end", "write"]] = {
    "map": "map",
    "slice": "map",
    "reduce": "reduce",
    "end": "end",
    "write": "write",
}


class _Seen(msgspec.Struct):
    """What the sweeper remembers of one active request."""

    since: float
    count: int = -1
    look_at: float = 0.0
    pause: float = DUE_S
    due: dict[str, float] = {}
    empty: dict[str, float] = {}
    again: dict[str, float] = {}
    unheld: dict[str, float] = {}


class _Brokers:
    """What the brokers say, asked once in a sweep: each question may cost the whole patience for one that hangs."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._empty: dict[str, bool] = {}
        self._tell = True

    @cached_property
    def instances(self) -> Mapping[str, str]:
        """Those that answer, and when they started."""
        return self._publisher.instances()

    def is_empty(self, topic: str) -> bool:
        """Whether a topic holds no message anywhere; False as long as one of the brokers does not tell."""
        if self._tell and topic not in self._empty:
            try:
                self._empty[topic] = not self._publisher.backlog([topic]).get(topic, Backlog()).total
            except BrokerUnavailable as error:
                _log.info("what waits in topics is not known now: %s", error)
                self._tell = False
        return self._tell and self._empty[topic]


class Sweeper:
    """One sweep at a time; call `sweep` every second or so, from one thread."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        definitions: Callable[[str, str], DefinitionSet],
        clock: Clock,
        message_key: bytes,
    ) -> None:
        self._store, self._publisher, self._definitions = store, publisher, definitions
        self._clock, self._message_key = clock, message_key
        self._receipts = Receipts(store, publisher, clock)
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._gone: dict[str, float] = {}
        self._brokers = _Brokers(publisher)
        self._noticed: tuple[Mapping[str, str], frozenset[str]] = ({}, frozenset())

    def sweep(self) -> int:
        """Look at every active request that stands still; how many messages were published again.

        Raises: StoreUnavailable; the next sweep goes on.
        """
        now = self._clock.monotonic()
        active = self._active()
        self._seen = {name: self._seen.get(name) or _Seen(since=now) for name in active}
        self._brokers = _Brokers(self._publisher)
        if active and not self._publisher.joins_commit:
            self._notice(now)
        old = [name for name, seen in self._seen.items() if now - seen.since >= DUE_S and now >= seen.look_at]
        standing = self._standing(old, now)
        if not standing:
            return 0
        holds, workers = self._holders()
        until = self._clock.monotonic() + SWEEP_MAX_S
        again = 0
        for name in sorted(standing, key=lambda name: self._seen[name].look_at):
            if self._clock.monotonic() > until:
                break
            try:
                again += self._look(name, active[name], holds, workers, now)
            except BrokerUnavailable as error:
                _log.warning("the broker does not answer, sweeping request %s later: %s", name[1], error)
            except CorruptEntry as error:
                _log.error("request %s cannot be swept: %s", name[1], error)
        return again

    # -- what may have been lost at once ------------------------------------------------------------------------

    def _notice(self, now: float) -> None:
        """An instance of the broker that started anew, or is gone for good: look at all requests without a pause."""
        instances = self._brokers.instances
        before, _ = self._noticed
        for name in before.keys() - instances.keys():
            self._gone.setdefault(name, now)
        for name in instances:
            self._gone.pop(name, None)
        noticed = {**before, **instances}, frozenset(name for name, at in self._gone.items() if now - at >= GONE_S)
        if noticed != self._noticed:
            self._noticed = noticed
            for seen in self._seen.values():
                seen.look_at = min(seen.look_at, now)

    # -- finding what stands still ------------------------------------------------------------------------------

    def _active(self) -> dict[tuple[str, str], bytes]:
        found: dict[tuple[str, str], bytes] = {}
        after = ""
        while True:
            page = self._store.range(keys.ACTIVE, after=after, limit=5000)
            for entry in page.entries:
                w, _, r = entry.key[len(keys.ACTIVE) :].partition("/")
                found[w, r] = entry.value
            if not page.more:
                return found
            after = page.entries[-1].key

    def _standing(self, names: list[tuple[str, str]], now: float) -> list[tuple[str, str]]:
        standing = []
        at_once = self._store.limits.operations // 2
        for start in range(0, len(names), at_once):
            some = names[start : start + at_once]
            prefixes = [keys.facts(w, r) for w, r in some]
            if self._store.abilities.transactions:
                counts: Mapping[str, int] = self._store.commit(Transaction(counts=prefixes)).counts
            else:
                counts = {prefix: self._store.count(prefix) for prefix in prefixes}
            for name, prefix in zip(some, prefixes, strict=True):
                seen = self._seen[name]
                if counts[prefix] == seen.count:
                    standing.append(name)
                else:
                    seen.count, seen.look_at, seen.pause = counts[prefix], now + DUE_S, DUE_S
                    seen.due, seen.empty = {}, {}
        return standing

    def _holders(self) -> tuple[frozenset[str], frozenset[str]]:
        """What live workers hold, and who lives."""
        holds: set[str] = set()
        workers: set[str] = set()
        for entry in self._store.range(keys.WORKERS, limit=10_000).entries:
            workers.add(entry.key[len(keys.WORKERS) :])
            holds.update(codec.decode(entry.value, WorkerRecord, where=entry.key).holds)
        return frozenset(holds), frozenset(workers)

    # -- one request --------------------------------------------------------------------------------------------

    def _look(
        self,
        name: tuple[str, str],
        fence: bytes,
        holds: frozenset[str],
        workers: frozenset[str],
        now: float,
    ) -> int:
        w, r = name
        seen = self._seen[name]
        seen.look_at, seen.pause = now + seen.pause, min(seen.pause * 1.5, LOOK_MAX_S)
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            self._never_accepted(w, r, fence, seen, now)
            return 0
        request = codec.decode(entry.value, Request, where=entry.key)
        epoch = codec.decode(fence, Active, where=keys.active(w, r)).epoch
        facts = survey(self._store, w, r)
        due = due_of(request, facts)
        definitions = self._definitions(w, request.set)
        receipts = {
            e.key: codec.decode(e.value, Receipt, where=e.key)
            for e in self._store.range(keys.receipts(w, r), limit=10_000).entries
        }
        lost: list[tuple[str, Publication]] = []
        for one in due:
            label = receipt_of(w, r, one, facts)
            first_seen = seen.due.setdefault(label, now)
            # Who holds `-` runs the root's mapper; a write is never held, its message stays in flight.
            if one.kind != "write" and f"{w}/{r}/{one.p}" in holds:
                seen.unheld.pop(label, None)
                continue
            if now - seen.again.get(label, -AGAIN_S) < AGAIN_S:
                continue
            topic = topic_of(w, one, facts, definitions, request.job_name)
            if self._is_lost(label, topic, receipts.get(label), first_seen, workers, seen, now):
                first, to = _range(one, facts)
                message = Message(
                    w=w,
                    r=r,
                    epoch=epoch,
                    set="",
                    kind=_KINDS[one.kind],
                    p=one.p,
                    from_=first,
                    to=to,
                    again=True,
                )
                lost.append((label, Publication(topic, seal(message, self._message_key))))
        if lost:
            _log.info("publishing %d messages of request %s again", len(lost), r)
            labels = [label for label, _ in lost]
            instances = self._brokers.instances
            broker = self._publisher.publish([publication for _, publication in lost])
            seen.again.update(dict.fromkeys(labels, now))
            seen.look_at = now + DUE_S
            # What made them look lost is over: by their old receipts they would be published again for ever.
            self._receipts.again((keys.active(w, r), fence), labels, broker, instances.get(broker, ""))
        elif due:
            seen.look_at = now + DUE_S if any(now - at < 2 * DUE_S for at in seen.due.values()) else seen.look_at
        return len(lost)

    def _is_lost(
        self,
        label: str,
        topic: str,
        receipt: Receipt | None,
        first_seen: float,
        workers: frozenset[str],
        seen: _Seen,
        now: float,
    ) -> bool:
        if receipt is not None and receipt.worker:
            # A worker that lives, and does not say so any more, has thrown it away.
            return receipt.worker not in workers or now - seen.unheld.setdefault(label, now) >= DUE_S
        joins = self._publisher.joins_commit
        if not joins and receipt is not None and self._is_restarted(receipt, now):
            return True
        if now - first_seen < DUE_S:
            return False
        if not joins and receipt is None:
            return True
        if not self._brokers.is_empty(topic):
            seen.empty.pop(topic, None)
            return False
        return now - seen.empty.setdefault(topic, now) >= DUE_S

    def _is_restarted(self, receipt: Receipt, now: float) -> bool:
        started = self._brokers.instances.get(receipt.broker)
        if started is None:
            return now - self._gone.setdefault(receipt.broker, now) >= GONE_S
        self._gone.pop(receipt.broker, None)
        return started != receipt.started

    def _never_accepted(self, w: str, r: str, fence: bytes, seen: _Seen, now: float) -> None:
        """A fence without a record: an acceptance died half-way, on a store without transactions. Nobody was told."""
        if now - seen.since < GONE_S:
            return
        remove_all(self._store, keys.facts(w, r))
        fence_key = keys.active(w, r)
        self._store.commit(Transaction(conditions=[Equals(fence_key, fence)], operations=[Delete(fence_key)]))


def _range(due: Due, facts: Facts) -> tuple[int, int]:
    if due.kind == "map":
        return due.first, due.to
    if due.kind == "slice":
        shape = facts.manifests[due.p]
        return fan_out.bounds(due.first, shape.slice, shape.count)
    return 0, 0


def due_of(request: Request, facts: Facts) -> list[Due]:
    """What is due of a request whose fence stands."""
    match request.state:
        case RequestState.RUNNING:
            return list(fan_in.due(facts))
        case RequestState.WRITING:
            return [Due(kind="write", p=ids.ROOT)]
        case _:
            return [Due(kind="end", p=ids.ROOT)]


def topic_of(w: str, due: Due, facts: Facts, definitions: DefinitionSet, job: str) -> str:
    """Where the message for a due thing belongs; `job` is that of its request."""
    if due.kind == "write":
        return routing.write_topic(w)
    if due.kind == "end":
        return routing.topic(w, "map", definitions.mapper(definitions.jobs[job]).capability)
    if due.kind == "reduce":
        step = facts.manifests[ids.parent(due.p)[0]].step
        assert step is not None
        return routing.topic(w, "reduce", definitions.reducer(step).capability)
    step = facts.manifests[due.p].step
    assert step is not None
    return routing.topic(w, "map", definitions.mapper(step).capability)


def receipt_of(w: str, r: str, due: Due, facts: Facts) -> str:
    """The key of the receipt of a due thing, which also names it."""
    if due.kind == "map":
        return keys.receipt(w, r, due.p, due.first // facts.manifests[due.p].slice)
    if due.kind == "slice":
        return keys.receipt(w, r, due.p, due.first)
    if due.kind == "write":
        return keys.receipt_of_write(w, r)
    return keys.receipt(w, r, due.p)
